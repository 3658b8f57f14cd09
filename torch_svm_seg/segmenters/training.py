"""Training data and validation of a segmentation network: crops with their masks, mean IoU on whole images."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from torch_svm_seg.data.constants import VOID
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.provenance import Source
from torch_svm_seg.data.transforms import random_masked_crop
from torch_svm_seg.evaluation.metrics import SegmentationResult, confusion_matrix, summarize
from torch_svm_seg.segmenters import Segmenter, class_probabilities
from torch_svm_seg.training.distributed import gathered
from torch_svm_seg.training.trainable import Crops


class LabelWeights(Protocol):
    """A rule for the weights of the labels in masks.

    Examples:
        >>> class Half:
        ...     def __call__(self, index, mask):
        ...         return torch.full(mask.shape, 0.5)
        ...
        ...     def sources(self, index):
        ...         return ("a half",)
        >>> weights: LabelWeights = Half()
    """

    def __call__(self, index: int, mask: Tensor) -> Tensor:
        """Return the weight of each label of an image's mask (H, W), float32 from 0 to 1."""

    def sources(self, index: int) -> Sequence[Source]:
        """Return the files that the weights come from, or texts that stand for them."""


class MaskedCrops(Crops):
    """A random crop of each image, with its mask, and the weights of its labels if there are any.

    Args:
        dataset: Images with masks.
        size: Side of the square crops, in pixels.
        scales: Smallest and largest factor on an image's size.
        fill: Colour of the padding, (3, 1, 1).
        seed: Seed of the random choices.
        weights: Weights of the labels.

    Examples:
        >>> from torch_svm_seg.data.embedded import embedded_sample
        >>> crops = MaskedCrops(embedded_sample(), 64, (0.5, 1.5), torch.zeros(3, 1, 1), seed=0)
        >>> crops[0][0].shape, crops[0][1].shape
        (torch.Size([3, 64, 64]), torch.Size([64, 64]))
    """

    def __init__(
        self,
        dataset: ImageDataset,
        size: int,
        scales: tuple[float, float],
        fill: Tensor,
        seed: int,
        weights: LabelWeights | None = None,
    ) -> None:
        super().__init__(seed)
        self._dataset, self._size, self._scales, self._fill, self._weights = dataset, size, scales, fill, weights

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        """Return a crop (3, size, size), its class ids, int64 (size, size), 255 in padding, and their weights."""
        item = self._dataset[index]
        if item.mask is None:
            raise InputError(f"{item.id}: no mask to train on")
        weights = None if self._weights is None else self._weights(index, item.mask)
        generator = self.generator(index)
        return random_masked_crop(item.image, item.mask, self._size, self._scales, self._fill, generator, weights)

    def sources(self, index: int) -> Sequence[Source]:
        """Return the image, its mask, and what its weights come from."""
        more = () if self._weights is None else self._weights.sources(index)
        return (*self._dataset.sources(index), *more)


@dataclass(frozen=True)
class MaskSummary:
    """Summary of the masks of a data set.

    Attributes:
        with_masks: The images that have a mask.
        without: Ids of the others.
        pixels: Number of pixels of each class, int64 (classes,).
        unlabelled: Number of pixels without a label.
    """

    with_masks: ImageDataset
    without: tuple[str, ...]
    pixels: Tensor
    unlabelled: int


def survey_masks(dataset: ImageDataset, on_image: Callable[[], object] | None = None) -> MaskSummary:
    """Read all masks with their images, so that a bad one is found before the training and not during it.

    Args:
        dataset: Images with a folder of masks, in which some may be missing.
        on_image: Called after each mask, for a progress bar.

    Raises:
        InputError: There are no masks or none with a labelled pixel; or a file is damaged, a mask's size is not its
            image's, or it holds an unknown id.

    Examples:
        >>> from torch_svm_seg.data.embedded import embedded_sample
        >>> survey_masks(embedded_sample()).without
        ()
    """
    indices = [index for index in range(len(dataset)) if dataset.has_mask(index)]
    if not indices:
        raise InputError(f"masks: none of the {len(dataset)} images has one, such as {dataset.ids[0]}.png")
    counts = torch.zeros(VOID + 1, dtype=torch.long)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for histogram in pool.map(lambda index: _histogram(dataset, index), indices):
            counts += histogram
            if on_image:
                on_image()
    pixels = counts[: len(dataset.class_names)]
    if not pixels.any():
        raise InputError(f"masks: no labelled pixel in {len(indices)} masks; all are {VOID}")
    paired = set(indices)
    without = tuple(id for index, id in enumerate(dataset.ids) if index not in paired)
    return MaskSummary(dataset.subset(indices), without, pixels, int(counts[VOID]))


@torch.inference_mode()
def validate(network: Segmenter, dataset: ImageDataset, rank: int = 0, processes: int = 1) -> SegmentationResult:
    """Score a network on whole images at their own size, each process its share.

    Args:
        network: The network.
        dataset: Images with their ground truth.
        rank: Number of this process.
        processes: Number of processes.

    Examples:
        >>> validate(network, dataset).miou  # doctest: +SKIP
        0.66
    """
    network.eval()
    classes = len(dataset.class_names)
    confusion = torch.zeros(classes, classes + 1, dtype=torch.long)
    for index in range(rank, len(dataset), processes):
        prediction = class_probabilities(network, dataset.image(index)).argmax(0).cpu()
        confusion += confusion_matrix(prediction, dataset.mask(index), classes)
    return summarize(torch.stack(gathered(confusion)).sum(0))


def _histogram(dataset: ImageDataset, index: int) -> Tensor:
    """Return the number of pixels of each value in one mask."""
    mask = dataset[index].mask
    assert mask is not None
    return torch.bincount(mask.flatten(), minlength=VOID + 1)
