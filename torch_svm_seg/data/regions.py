"""Regions of images that another program found, of no class: superpixels, or the masks of Segment Anything.

- ``ID.png`` and other images: each value, or each colour, is a region.
- ``ID.json``: a list of masks by COCO's run lengths, ``[{"segmentation": {"size": [H, W], "counts": ...}}, ...]``, as
  SAM's automatic generator writes them, or an object whose ``annotations`` are such a list. They may overlap: smaller
  ones lie on top.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torch_svm_seg.data.annotation_files import read_json
from torch_svm_seg.data.coco_json import decode_run_lengths
from torch_svm_seg.data.constants import MASK_SUFFIXES, NO_REGION
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.file_index import FileIndex
from torch_svm_seg.data.io import size_text
from torch_svm_seg.data.mask_forms import StoredMask
from torch_svm_seg.data.pillow import open_image
from torch_svm_seg.data.reading import PathLike, reading

_MOST_MASKS = 100_000


class RegionFiles:
    """Reads the regions of images from a folder.

    Args:
        folder: Where they lie, ``ID.png`` or ``ID.json``.
        void: Value of images that stands for no region; by default none, so that every value is a region.

    Raises:
        InputError: There is no such folder.

    Examples:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("L", (3, 2), color=7).save(Path(folder, "a.png"))
        ...     RegionFiles(folder).read("a", (2, 3)).tolist()
        [[0, 0, 0], [0, 0, 0]]
    """

    def __init__(self, folder: PathLike, void: int | None = None) -> None:
        self.folder, self.void = Path(folder), void
        if not self.folder.is_dir():
            raise InputError(f"{folder}: not a folder")
        self._index = FileIndex(folder, (*MASK_SUFFIXES, ".json"))

    def path(self, id: str) -> Path:
        """Return where the regions of an image lie, or else would lie."""
        return self._index.find(id) or self.folder / f"{id}.png"

    def read(self, id: str, size: tuple[int, int]) -> Tensor:
        """Read the regions of an image.

        Args:
            id: The image.
            size: Its height and width.

        Returns:
            Number of each pixel's region from 0 on, -1 where it lies in none, int64 (H, W).

        Raises:
            InputError: The file is missing or damaged, or is of another size.
        """
        path = self.path(id)
        if path.suffix.lower() == ".json":
            return _painted(path, size)
        with open_image(path) as image:
            values = StoredMask.of(image, path).values
        if tuple(values.shape) != size:
            raise InputError(f"{path}: {size_text(values.shape)} pixels, but the image has {size_text(size)}")
        regions = values.unique(return_inverse=True)[1]
        return regions if self.void is None else torch.where(values == self.void, NO_REGION, regions)


def _painted(path: Path, size: tuple[int, int]) -> Tensor:
    """Return the masks of a JSON file as regions, smaller ones above larger ones."""
    content = read_json(path)
    listed = content.get("annotations") if isinstance(content, dict) else content
    if not isinstance(listed, list) or len(listed) > _MOST_MASKS:
        raise InputError(f"{path}: expected a list of at most {_MOST_MASKS} masks, or annotations with one")
    regions = np.full(size, NO_REGION, np.int64)
    with reading(path):
        masks = sorted((_mask(entry, size) for entry in listed), key=lambda mask: int(mask.sum()), reverse=True)
    for number, mask in enumerate(masks):
        regions[mask] = number
    return torch.from_numpy(regions)


def _mask(entry: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
    outline = entry.get("segmentation") if isinstance(entry, dict) else None
    if not isinstance(outline, dict):
        raise ValueError("expected masks with a segmentation by run lengths, size and counts")
    return decode_run_lengths(outline, size)
