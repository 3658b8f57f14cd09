"""What the training of an IRNet ends with, and the checkpoint that it leaves."""

from typing import Any

import torch

from torch_svm_seg.backbones import RANDOM, load_backbone
from torch_svm_seg.distributed import sum_over_processes
from torch_svm_seg.files import InputError, PathLike
from torch_svm_seg.irn.network import IRNet
from torch_svm_seg.irn.refinement import IRNRefinement
from torch_svm_seg.trainable import Crops
from torch_svm_seg.training_checkpoints import load_network, read_checkpoint

METHOD = "irn"


@torch.no_grad()
def centre_displacements(network: IRNet, crops: Crops, rank: int = 0, processes: int = 1) -> None:
    """Sets the network's mean displacement to that over all crops, each process its share.

    The losses see differences of displacements only, and leave their mean open (Ahn et al., CVPR 2019, section 4.3).
    """
    network.eval()
    network.displacement_mean.zero_()
    device = network.displacement_mean.device
    total = torch.zeros(2, dtype=torch.float64)
    for place in range(rank, len(crops), processes):
        image, *_ = crops[place]
        total += network(image[None].to(device))[1].mean((0, 2, 3)).cpu()
    network.displacement_mean.copy_(sum_over_processes(total) / len(crops))


def load_irn(path: PathLike, **parameters: Any) -> IRNRefinement:
    """Builds the refinement by a trained IRNet, in evaluation mode on the CPU.

    Args:
        path: checkpoint of train.py irn.
        parameters: of :class:`~torch_svm_seg.irn.IRNRefinement`, but for the network.

    Raises:
        InputError: the file cannot be read, is no checkpoint of an IRNet, or the weights do not fit the backbone that
            it names.
    """
    checkpoint = read_checkpoint(path)
    method = checkpoint.settings.get("method")
    if method != METHOD:
        raise InputError(f"{path}: not a checkpoint of train.py irn (its method is {method})")
    name = checkpoint.settings["backbone"]
    network = load_network(path, checkpoint, IRNet(load_backbone(name, RANDOM)), name)
    return IRNRefinement(network, **parameters).eval()
