"""What a segmentation network trains on, and how well it does: crops with their masks, mean IoU on whole images."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from torch_svm_seg.data.constants import VOID
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.transforms import random_masked_crop
from torch_svm_seg.evaluation.metrics import SegmentationResult, confusion_matrix, summarize
from torch_svm_seg.segmenters import Segmenter, class_probabilities
from torch_svm_seg.training.distributed import gathered
from torch_svm_seg.training.trainable import Crops


class MaskedCrops(Crops):
    """A random crop of each image, with its mask.

    Args:
        images: images with masks.
        size: side of the square crops, in pixels.
        scales: smallest and largest factor on an image's size.
        fill: colour of the padding, (3, 1, 1).
        seed: of the choices.
    """

    def __init__(self, dataset: ImageDataset, size: int, scales: tuple[float, float], fill: Tensor, seed: int) -> None:
        super().__init__(seed)
        self._photographs, self._size, self._scales, self._fill = dataset, size, scales, fill

    def __len__(self) -> int:
        return len(self._photographs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Gives a crop (3, size, size) and its class ids, int64 (size, size), 255 in padding."""
        item = self._photographs[index]
        if item.mask is None:
            raise InputError(f"{item.id}: no mask to train on")
        generator = self.generator(index)
        return random_masked_crop(item.image, item.mask, self._size, self._scales, self._fill, generator)


@dataclass(frozen=True)
class MaskSummary:
    """What the masks of a data set hold.

    Attributes:
        with_masks: the images that have one.
        without: ids of the others.
        pixels: number of pixels of each class, int64 (classes,).
        unlabelled: number of pixels without a label.
    """

    with_masks: ImageDataset
    without: tuple[str, ...]
    pixels: Tensor
    unlabelled: int


def survey_masks(dataset: ImageDataset, on_image: Callable[[], object] | None = None) -> MaskSummary:
    """Reads all masks with their images, so that a bad one is found before the training and not during it.

    Args:
        dataset: images with a folder of masks, in which some may be missing.
        on_image: called after each mask, for a progress bar.

    Raises:
        InputError: there are no masks or none with a labelled pixel; or a file is damaged, a mask's size is not its
            image's, or it holds an unknown id.
    """
    places = [index for index in range(len(dataset)) if dataset.has_mask(index)]
    if not places:
        raise InputError(f"masks: none of the {len(dataset)} images has one, such as {dataset.ids[0]}.png")
    counts = torch.zeros(VOID + 1, dtype=torch.long)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for histogram in pool.map(lambda index: _histogram(dataset, index), places):
            counts += histogram
            if on_image:
                on_image()
    pixels = counts[: len(dataset.class_names)]
    if not pixels.any():
        raise InputError(f"masks: no labelled pixel in {len(places)} masks; all are {VOID}")
    paired = set(places)
    without = tuple(id for index, id in enumerate(dataset.ids) if index not in paired)
    return MaskSummary(dataset.subset(places), without, pixels, int(counts[VOID]))


@torch.inference_mode()
def validate(network: Segmenter, dataset: ImageDataset, rank: int = 0, processes: int = 1) -> SegmentationResult:
    """Scores a network on whole images at their own size, each process its share.

    Args:
        network: the network.
        dataset: images with their ground truth.
        rank: number of this process.
        processes: number of processes.
    """
    network.eval()
    classes = len(dataset.class_names)
    confusion = torch.zeros(classes, classes + 1, dtype=torch.long)
    for index in range(rank, len(dataset), processes):
        prediction = class_probabilities(network, dataset.image(index)).argmax(0).cpu()
        confusion += confusion_matrix(prediction, dataset.mask(index), classes)
    return summarize(torch.stack(gathered(confusion)).sum(0))


def _histogram(dataset: ImageDataset, index: int) -> Tensor:
    """Number of pixels of each value in one mask."""
    mask = dataset[index].mask
    assert mask is not None
    return torch.bincount(mask.flatten(), minlength=VOID + 1)
