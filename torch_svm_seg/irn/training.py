"""Training data of an IRNet, which are sure labels of activation maps and crops of images with them; its checkpoint."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torch_svm_seg.backbones.builder import RANDOM, load_backbone
from torch_svm_seg.data.constants import VOID
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import PathLike, size_text
from torch_svm_seg.data.provenance import Source
from torch_svm_seg.data.transforms import random_placement
from torch_svm_seg.expansion.labelling import present_classes
from torch_svm_seg.irn.network import STRIDE, IRNet
from torch_svm_seg.irn.refinement import IRNRefinement
from torch_svm_seg.refine import DenseCRF
from torch_svm_seg.refine.probabilities import label_probabilities
from torch_svm_seg.training.checkpoints import load_network, read_checkpoint, setting
from torch_svm_seg.training.trainable import Crops

# Longest side of an image, in sides of a crop: 0.5 to 1.5 times VOC's 500 pixels in crops of 512.
_LONGEST = (0.5, 1.5)

METHOD = "irn"
"""Name of the method in checkpoints."""


@torch.no_grad()
def sure_labels(image: Tensor, activation: Tensor, factor: float = 0.5, crf: DenseCRF | None = None) -> Tensor:
    """Label pixels by activation, and leave out those whose label depends on how strong the background is.

    Each pixel goes to the strongest class, once with the background as it is and once with a weaker one; a dense CRF
    refines both labellings, with a confidence of 0.7 in each label. Where they agree, the pixel is sure. SIPE's recipe
    is its own background and half of it; IRN's is a constant of 0.30 and one of 0.05, a factor of 1/6. (There, pixels
    that the two labellings give to different objects keep the first one's; here they are not sure.)

    Args:
        image: RGB images from 0 to 255, (B, 3, H, W).
        activation: Activation of the classes present, background first, at least 0: maps, or probabilities of any
            classifier, (B, K, H, W).
        factor: Factor of the weaker background, from 0 to 1.
        crf: Refinement of the labels; by default ``DenseCRF.preset("irn")``.

    Returns:
        Channels of the activation, int64 (B, H, W), 255 where not sure.

    Raises:
        ValueError: Shapes do not match or values are out of range.

    Examples:
        >>> activation = torch.tensor([0.6, 0.4])[None, :, None, None].expand(1, 2, 8, 8)
        >>> sure_labels(torch.zeros(1, 3, 8, 8), activation, factor=0.5).unique()  # background, or is it?
        tensor([255])
    """
    if not 0 <= factor <= 1:
        raise ValueError(f"factor: expected 0 to 1, got {factor}")
    crf = crf or DenseCRF.preset("irn")
    weaker = activation.clone()
    weaker[:, 0] *= factor
    first, second = (_refined(image, maps.argmax(1), maps.shape[1], crf) for maps in (activation, weaker))
    return torch.where(first == second, first, VOID)


def label_by_activation(image: Tensor, activation: Tensor, factor: float = 0.5) -> Tensor:
    """Label an image by the activation of all classes.

    Args:
        image: RGB image from 0 to 255, (3, H, W).
        activation: Activation by class id, background included, at least 0, (K, H, W); -inf for absent classes.
        factor: See :func:`sure_labels`.

    Returns:
        Class ids, int64 (H, W), 255 where not sure.

    Examples:
        >>> activation = torch.full((21, 8, 8), -torch.inf)
        >>> activation[0], activation[15] = 0.1, 0.8
        >>> label_by_activation(torch.zeros(3, 8, 8), activation).unique()
        tensor([15])
    """
    present = present_classes(activation)
    channels = sure_labels(image[None], activation[present][None], factor)[0]
    return torch.where(channels == VOID, VOID, present[channels.clamp_max(len(present) - 1)])


def _refined(image: Tensor, labels: Tensor, number: int, crf: DenseCRF) -> Tensor:
    marginals: Tensor = crf(image, label_probabilities(labels, number))
    return marginals.argmax(1)


def label_path(folder: PathLike, id: str) -> Path:
    """Return the path of an image's sure labels."""
    return Path(folder) / f"{id}.png"


class SureCrops(Crops):
    """A random crop of each image, with the labels of its cells.

    Args:
        dataset: The images.
        folder: Folder of the sure labels ``ID.png``, class ids and 255.
        size: Side of the crops, in pixels.
        fill: Colour of the padding, (3, 1, 1).
        seed: Seed of the random choices.
    """

    def __init__(self, dataset: ImageDataset, folder: PathLike, size: int, fill: Tensor, seed: int) -> None:
        super().__init__(seed)
        self._dataset, self._size, self._fill = dataset, size, fill
        self._labels = dataset.mask_folder(folder)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return a crop (3, size, size) and the labels in the middle of its cells, int64 (size / 4, size / 4)."""
        image = self._dataset.image(index)
        id = self._dataset.ids[index]
        path, labels = self._labels.path(id), self._labels.read(id)
        if labels.shape != image.shape[1:]:
            raise InputError(
                f"{path}: {size_text(labels.shape)} pixels, but the image has {size_text(image.shape[1:])}"
            )
        placement = random_placement(labels.shape, self._size, _LONGEST, self.generator(index))
        crop = placement.apply(image, self._fill.float())
        cells = placement.apply(labels[None], torch.full((1, 1, 1), VOID), nearest=True)
        return crop, cells[0, STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE]

    def sources(self, index: int) -> Sequence[Source]:
        """Return the image and its labels."""
        labels = self._labels
        return (*self._dataset.image_sources(index), labels.path(self._dataset.ids[index]), *labels.set_sources)


def load_irn(path: PathLike, **parameters: Any) -> IRNRefinement:
    """Load the refinement by a trained IRNet, in evaluation mode on the CPU.

    Args:
        path: Checkpoint of ``train.py irn``.
        **parameters: Parameters of :class:`~torch_svm_seg.irn.IRNRefinement`, but for the network.

    Raises:
        InputError: The file cannot be read, is no checkpoint of an IRNet, or the weights do not fit the backbone that
            it names.

    Examples:
        >>> load_irn("runs/irn/checkpoint.pt", exponent=1.0)  # doctest: +SKIP
    """
    checkpoint = read_checkpoint(path)
    method = setting(path, checkpoint, "method")
    if method != METHOD:
        raise InputError(f"{path}: not a checkpoint of train.py irn (its method is {method})")
    name = setting(path, checkpoint, "backbone")
    network = load_network(path, checkpoint, IRNet(load_backbone(name, RANDOM)), name)
    return IRNRefinement(network, **parameters).eval()
