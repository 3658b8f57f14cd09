"""What boundaries are learned from: crops of photographs with their sure labels."""

from pathlib import Path

import torch
from torch import Tensor

from torch_svm_seg.augmentation import random_placement
from torch_svm_seg.datasets import PhotographDataset
from torch_svm_seg.files import InputError, PathLike, read_mask, size_text
from torch_svm_seg.irn.network import STRIDE
from torch_svm_seg.sampling import VOID
from torch_svm_seg.trainable import Crops

# Longest side of an image, in sides of a crop: 0.5 to 1.5 times VOC's 500 pixels in crops of 512.
_LONGEST = (0.5, 1.5)


def label_path(folder: PathLike, id: str) -> Path:
    """Where an image's sure labels lie."""
    return Path(folder) / f"{id}.png"


class SureCrops(Crops):
    """A random crop of each photograph, with the labels of its cells.

    Args:
        photographs: the photographs.
        folder: holds the sure labels ``ID.png``, class ids and 255.
        size: side of the crops, in pixels.
        fill: colour of the padding, (3, 1, 1).
        seed: of the choices.
    """

    def __init__(self, photographs: PhotographDataset, folder: PathLike, size: int, fill: Tensor, seed: int) -> None:
        super().__init__(seed)
        self._photographs, self._folder, self._size, self._fill = photographs, folder, size, fill

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
