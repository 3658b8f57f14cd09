"""What an IRNet is trained on: sure labels of activation maps, and crops of images with them; its checkpoint."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torch_svm_seg.backbones.builder import RANDOM, load_backbone
from torch_svm_seg.data.constants import VOID
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import PathLike, read_mask, size_text
from torch_svm_seg.data.transforms import random_placement
from torch_svm_seg.expansion.labelling import present_classes
from torch_svm_seg.irn.network import STRIDE, IRNet
from torch_svm_seg.irn.refinement import IRNRefinement
from torch_svm_seg.refine import DenseCRF
from torch_svm_seg.refine.probabilities import label_probabilities
from torch_svm_seg.training.checkpoints import load_network, read_checkpoint
from torch_svm_seg.training.distributed import sum_over_processes
from torch_svm_seg.training.trainable import Crops

# Longest side of an image, in sides of a crop: 0.5 to 1.5 times VOC's 500 pixels in crops of 512.
_LONGEST = (0.5, 1.5)

METHOD = "irn"


@torch.no_grad()
def sure_labels(image: Tensor, activation: Tensor, factor: float = 0.5, crf: DenseCRF | None = None) -> Tensor:
    """Labels pixels by activation, and leaves out those whose label depends on how strong the background is.

    Each pixel goes to the strongest class, once with the background as it is and once with a weaker one; a dense CRF
    refines both labellings, with a confidence of 0.7 in each label. Where they agree, the pixel is sure. SIPE's recipe
    is its own background and half of it; IRN's is a constant of 0.30 and one of 0.05, a factor of 1/6. (There, pixels
    that the two labellings give to different objects keep the first one's; here they are not sure.)

    Args:
        image: RGB 0..255 of shape (B, 3, H, W).
        activation: of the classes present, background first, at least 0: maps, or probabilities of any classifier,
            (B, K, H, W).
        factor: of the weaker background, from 0 to 1.
        crf: refines labels; by default ``DenseCRF.preset("irn")``.

    Returns:
        Channels of the activation (B, H, W), int64, 255 where not sure.

    Raises:
        ValueError: naming the argument, where shapes do not match or values are not as above.
    """
    if not 0 <= factor <= 1:
        raise ValueError(f"factor: expected 0 to 1, got {factor}")
    crf = crf or DenseCRF.preset("irn")
    weaker = activation.clone()
    weaker[:, 0] *= factor
    first, second = (_refined(image, maps.argmax(1), maps.shape[1], crf) for maps in (activation, weaker))
    return torch.where(first == second, first, VOID)


def label_by_activation(image: Tensor, activation: Tensor, factor: float = 0.5) -> Tensor:
    """Labels an image by the activation of all classes.

    Args:
        image: RGB 0..255 of shape (3, H, W).
        activation: by class id, background included, at least 0, (K, H, W); -inf for absent classes.
        factor: as of :func:`sure_labels`.

    Returns:
        Class ids (H, W), int64, 255 where not sure.
    """
    present = present_classes(activation)
    channels = sure_labels(image[None], activation[present][None], factor)[0]
    return torch.where(channels == VOID, VOID, present[channels.clamp_max(len(present) - 1)])


def _refined(image: Tensor, labels: Tensor, number: int, crf: DenseCRF) -> Tensor:
    marginals: Tensor = crf(image, label_probabilities(labels, number))
    return marginals.argmax(1)


def label_path(folder: PathLike, id: str) -> Path:
    """Where an image's sure labels lie."""
    return Path(folder) / f"{id}.png"


class SureCrops(Crops):
    """A random crop of each image, with the labels of its cells.

    Args:
        images: the images.
        folder: holds the sure labels ``ID.png``, class ids and 255.
        size: side of the crops, in pixels.
        fill: colour of the padding, (3, 1, 1).
        seed: of the choices.
    """

    def __init__(self, dataset: ImageDataset, folder: PathLike, size: int, fill: Tensor, seed: int) -> None:
        super().__init__(seed)
        self._photographs, self._folder, self._size, self._fill = dataset, folder, size, fill

    def __len__(self) -> int:
        return len(self._photographs)

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
        """Gives a crop (3, size, size) and the labels in the middle of its cells, int64 (size / 4, size / 4)."""
        image = self._photographs.image(place)
        path = label_path(self._folder, self._photographs.ids[place])
        labels = read_mask(path)
        if labels.shape != image.shape[1:]:
            raise InputError(
                f"{path}: {size_text(labels.shape)} pixels, but the image has {size_text(image.shape[1:])}"
            )
        placement = random_placement(labels.shape, self._size, _LONGEST, self.generator(place))
        crop = placement.apply(image, self._fill.float())
        cells = placement.apply(labels[None], torch.full((1, 1, 1), VOID), nearest=True)
        return crop, cells[0, STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE]


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
