"""Images with their masks: PASCAL VOC 2012, its augmented train set, a folder of one's own, an embedded sample.

Every data set is a :class:`ImageDataset`; the functions below build one. Files are read when an item is asked for
and a bad one raises :class:`~torch_svm_seg.data.io.InputError` with the file and the reason.
"""

import copy
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from torch.utils.data import Dataset

from torch_svm_seg.data.constants import VOC_CLASSES, VOID
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import PathLike, read_image, read_mask, safe_id, size_text


@dataclass(frozen=True)
class DatasetItem:
    """One image of a data set.

    Attributes:
        id: its name in the data set, safe to name files after.
        image: RGB values, uint8 of shape (3, H, W).
        mask: class ids, int64 of shape (H, W), :data:`VOID` where there is no label; None in a data set without masks.
    """

    id: str
    image: Tensor
    mask: Tensor | None


class ImageDataset(Dataset[DatasetItem]):
    """Images of a folder, with masks of another folder if there are any.

    Images differ in size, so a ``DataLoader`` needs ``batch_size=None`` or a ``collate_fn`` of one's own.

    Attributes:
        ids: image ids in order.
        class_names: name of each class id, background first.
    """

    def __init__(
        self,
        images: PathLike,
        masks: PathLike | None,
        ids: Iterable[str],
        class_names: Sequence[str] = VOC_CLASSES,
        suffixes: Sequence[str] = (".jpg",),
        source: PathLike = "ids",
    ) -> None:
        """Notes where the files are; none is read yet.

        Args:
            images: folder of the images.
            masks: folder of the masks ``ID.png``, or None.
            ids: image ids, which are file names without suffix; an id that occurs again is skipped.
            class_names: name of each class id, background first.
            suffixes: suffixes an image can have; the first that exists is read.
            source: where the ids come from, for messages.

        Raises:
            InputError: no ids, an unsafe id, or class names that are fewer than 2, more than 255 or not unique.
        """
        self._images = Path(images)
        self._masks = None if masks is None else Path(masks)
        self._suffixes = tuple(suffixes)
        self.ids = _unique_ids(ids, source)
        self.class_names = _checked_names(class_names)

    @property
    def has_masks(self) -> bool:
        """Whether images come with their masks."""
        return self._masks is not None

    def __len__(self) -> int:
        """Gives the number of images."""
        return len(self.ids)

    def __getitem__(self, index: int) -> DatasetItem:
        """Reads one image and, if the data set has masks, its mask.

        Raises:
            IndexError: there is no such item.
            InputError: a file is missing or damaged, the mask's size is not the image's, or it holds an unknown id.
        """
        id = self.ids[index]
        image = self.image(index)
        if not self.has_masks:
            return DatasetItem(id, image, None)
        mask = self.mask(index)
        if mask.shape != image.shape[1:]:
            raise InputError(
                f"{self._mask_path(id)}: the mask has {size_text(mask.shape)} pixels (width x height), "
                f"but its image {self._image_path(id)} has {size_text(image.shape[1:])}"
            )
        return DatasetItem(id, image, mask)

    def image(self, index: int) -> Tensor:
        """Reads only the image of one image, whether or not it has a mask.

        Returns:
            RGB values, uint8 of shape (3, H, W).

        Raises:
            IndexError: there is no such item.
            InputError: the file is missing or damaged.
        """
        return read_image(self._image_path(self.ids[index]))

    def mask(self, index: int) -> Tensor:
        """Reads only the mask of one image.

        Returns:
            Class ids, int64 of shape (H, W), :data:`VOID` where there is no label.

        Raises:
            IndexError: there is no such item.
            InputError: the data set has no masks, the file is missing or damaged, or it holds an unknown id.
        """
        path = self._mask_path(self.ids[index])
        mask = self._read_mask(path)
        outside = ((mask < 0) | (mask >= len(self.class_names))) & (mask != VOID)
        unknown = sorted(set(mask[outside].tolist()))
        if unknown:
            raise InputError(
                f"{path}: unknown class ids {_listed(unknown)}; "
                f"expected 0..{len(self.class_names) - 1} or {VOID} for no label"
            )
        return mask

    def _read_mask(self, path: Path) -> Tensor:
        return read_mask(path)

    def subset(self, places: Iterable[int]) -> "ImageDataset":
        """Gives the data set of the images at `places`."""
        selection = copy.copy(self)
        selection.ids = tuple(self.ids[place] for place in places)
        return selection

    def with_masks(self, masks: PathLike) -> "ImageDataset":
        """Gives the data set of the same images with the masks ``ID.png`` of another folder.

        Raises:
            InputError: there is no such folder.
        """
        if not Path(masks).is_dir():
            raise InputError(f"{masks}: no such folder")
        other = copy.copy(self)
        other._masks = Path(masks)
        return other

    def has_mask(self, index: int) -> bool:
        """Whether the mask of one image is there."""
        return self.has_masks and self._mask_path(self.ids[index]).is_file()

    def _image_path(self, id: str) -> Path:
        """Gives the image file of an id."""
        candidates = [self._images / (id + suffix) for suffix in self._suffixes]
        found = next((path for path in candidates if os.path.isfile(path)), None)
        if found is None:
            raise InputError(f"{self._images / id}: no such image, with suffix {', '.join(self._suffixes)}")
        return found

    def _mask_path(self, id: str) -> Path:
        """Gives the mask file of an id, whether or not it exists."""
        if self._masks is None:
            raise InputError(f"{self._images}: these images have no masks")
        return self._masks / f"{id}.png"


def _unique_ids(ids: Iterable[str], source: PathLike) -> tuple[str, ...]:
    try:
        unique = tuple(dict.fromkeys(safe_id(id) for id in ids))
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    if not unique:
        raise InputError(f"{source}: no images")
    return unique


def _checked_names(names: Sequence[str]) -> tuple[str, ...]:
    if not 2 <= len(names) <= VOID:
        raise InputError(f"class names: expected 2 to {VOID}, background first, got {len(names)}")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(f"class names: each must occur once, these do not: {', '.join(repeated)}")
    return tuple(names)


def _listed(ids: list[int]) -> str:
    """Lists ids, but not hundreds of them: a grey image taken for a mask has that many."""
    return ", ".join(map(str, ids[:10])) + (f" and {len(ids) - 10} more" if len(ids) > 10 else "")
