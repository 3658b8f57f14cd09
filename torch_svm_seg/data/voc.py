"""PASCAL VOC 2012 and its augmented train set."""

import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets import VOCSegmentation  # type: ignore[import-untyped]

from torch_svm_seg.data.constants import VOC_CLASSES
from torch_svm_seg.data.dataset import Conventions, ImageDataset
from torch_svm_seg.data.errors import InputError, import_optional, one_line, reason_of
from torch_svm_seg.data.file_index import FileIndex
from torch_svm_seg.data.lists import read_list
from torch_svm_seg.data.mask_files import MaskFiles
from torch_svm_seg.data.mask_forms import StoredMask
from torch_svm_seg.data.reading import PathLike, read_bytes


def voc2012(
    root: PathLike,
    split: str = "train",
    list_file: PathLike | None = None,
    download: bool = False,
    sbd_root: PathLike | None = None,
    conventions: Conventions | None = None,
) -> ImageDataset:
    """Open PASCAL VOC 2012 in the layout of torchvision, ``root/VOCdevkit/VOC2012``.

    Any split with a list ``ImageSets/Segmentation/SPLIT.txt`` opens; see :mod:`~torch_svm_seg.data.lists` for the forms
    of lists.

    The split ``train_aug`` is the train set of 10,582 images that the field trains on: the 1,464 of VOC train together
    with the 8,498 of SBD train and the 2,857 of SBD val (Semantic Boundaries Dataset, Hariharan et al. 2011), each
    image once, without the 1,449 of VOC val. It can be there in two ways, each for itself:

    - its list: ``ImageSets/Segmentation/train_aug.txt``, else it is built from the lists of VOC and SBD;
    - its masks: the folder ``VOC2012/SegmentationClassAug``, else VOC's masks where there are any, and for the other
      images SBD's ``cls/ID.mat``, which need the package scipy. SBD's masks have no void border. With neither, a list
      opens without masks: image-level labels need none.

    Args:
        root: Folder that holds ``VOCdevkit``.
        split: Name of a list, or ``train_aug``.
        list_file: List to use in place of the split's; the masks are still the split's.
        download: Fetch VOC 2012 (2 GB) through torchvision if it is not there.
        sbd_root: SBD in torchvision's layout (``img``, ``cls``, ``train.txt``, ``val.txt``); by default ``root/SBD``.
        conventions: How to read files whose form leaves it open.

    Raises:
        InputError: The folder or list is not there (the available splits are listed), the list is empty, or
            downloading failed.

    Examples:
        >>> dataset = voc2012("/data", "val")  # doctest: +SKIP
        >>> len(dataset), len(dataset.class_names)  # doctest: +SKIP
        (1449, 21)
    """
    voc = Path(root) / "VOCdevkit" / "VOC2012"
    if download and not _is_whole(voc):
        _download_voc2012(root)
    if not voc.is_dir():
        raise InputError(
            f"{root}: no folder VOCdevkit/VOC2012 in it; give the folder that holds VOCdevkit, or download"
        )
    if split == "train_aug":
        return _train_aug(voc, Path(root) / "SBD" if sbd_root is None else Path(sbd_root), list_file, conventions)
    source = _split_file(voc, split) if list_file is None else Path(list_file)
    return _opened(voc, voc / "SegmentationClass", source, conventions)


def _opened(voc: Path, masks: Path | None, source: Path, conventions: Conventions | None) -> ImageDataset:
    """Return the images of a list, and say which of them it leaves out."""
    ids, notes = _listed(voc, source)
    dataset = ImageDataset(voc / "JPEGImages", masks, ids, source=source, conventions=conventions)
    for note in notes:
        dataset.notes.about_all(note)
    return dataset


class _AugmentedVOC(ImageDataset):
    """The images and masks of VOC, and those of SBD where VOC has none."""

    def __init__(
        self,
        voc: Path,
        masks: Path,
        sbd: Path,
        ids: Iterable[str],
        source: PathLike,
        conventions: Conventions | None,
    ) -> None:
        super().__init__(voc / "JPEGImages", None, ids, source=source, conventions=conventions)
        self._sbd = sbd
        form = None if conventions is None else conventions.masks
        self._masks = _MasksBesideSBD(sbd, masks, VOC_CLASSES, self.ids, form, notes=self.notes)

    def _image_path(self, id: str) -> Path:
        in_sbd = self._sbd / "img" / f"{id}.jpg"
        return in_sbd if self._images.index.find(id) is None and in_sbd.is_file() else super()._image_path(id)


class _MasksBesideSBD(MaskFiles):
    """Masks of a folder, and those of SBD that it lacks."""

    def __init__(self, sbd: Path, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._sbd = sbd

    def find(self, id: str) -> Path | None:
        in_sbd = self._sbd / "cls" / f"{id}.mat"
        return super().find(id) or (in_sbd if in_sbd.is_file() else None)

    def size(self, id: str) -> tuple[int, int] | None:
        path = self.find(id)
        if path is None or path.suffix != ".mat":
            return super().size(id)
        try:
            height, width = _read_sbd_mask(path).shape
        except InputError:
            return None
        return height, width

    def _stored(self, id: str) -> StoredMask:
        path = self.path(id)
        if path.suffix != ".mat":
            return super()._stored(id)
        return StoredMask(path, _read_sbd_mask(path), {}, False, "MATLAB")


def _train_aug(voc: Path, sbd: Path, list_file: PathLike | None, conventions: Conventions | None) -> ImageDataset:
    masks = voc / "SegmentationClassAug"
    lists = voc / "ImageSets" / "Segmentation"
    source = lists / "train_aug.txt" if list_file is None else Path(list_file)
    listed = list_file is not None or source.is_file()
    if not masks.is_dir():
        if not (sbd / "cls").is_dir():
            if listed:
                return _opened(voc, None, source, conventions)
            own = f"{source.relative_to(voc)}, {masks.name}"
            raise InputError(f"{voc}: for train_aug, none of {own} and {sbd / 'cls'} exists")
        import_optional("scipy.io", f"reading SBD's masks needs it; pip install scipy, or provide {masks}")
        masks = voc / "SegmentationClass"
    if listed:
        return _AugmentedVOC(voc, masks, sbd, _listed(voc, source)[0], source, conventions)
    parts = [lists / "train.txt", sbd / "train.txt", sbd / "val.txt"]
    excluded = set(_listed(voc, lists / "val.txt")[0])
    ids = [id for part in parts for id in _listed(voc, part)[0] if id not in excluded]
    return _AugmentedVOC(voc, masks, sbd, ids, source, conventions)


def _is_whole(voc: Path) -> bool:
    """Whether all images and masks of VOC's lists are there: unpacking may have been interrupted."""
    lists = [voc / "ImageSets" / "Segmentation" / f"{split}.txt" for split in ("train", "val")]
    if not all(path.is_file() for path in lists):
        return False
    ids = [id for path in lists for id in _listed(voc, path)[0]]
    files = [Path("JPEGImages", f"{id}.jpg") for id in ids] + [Path("SegmentationClass", f"{id}.png") for id in ids]
    return all((voc / file).is_file() for file in files)


def _download_voc2012(root: PathLike) -> None:
    try:
        VOCSegmentation(os.fspath(root), year="2012", image_set="train", download=True)
    except (OSError, RuntimeError) as error:
        raise InputError(f"{root}: downloading PASCAL VOC 2012 failed: {one_line(str(error))}") from error


def _split_file(voc: Path, split: str) -> Path:
    lists = voc / "ImageSets" / "Segmentation"
    path = lists / f"{split}.txt"
    if not path.is_file():
        available = sorted({list.stem for list in lists.glob("*.txt")} | {"train_aug"})
        raise InputError(f"{path}: no split {split!r}; available: {', '.join(available)}")
    return path


def _listed(voc: Path, source: PathLike) -> tuple[list[str], list[str]]:
    """Return the ids of a list, and notes on what it leaves out."""
    images = FileIndex(voc / "JPEGImages", (".jpg",))
    return read_list(source, lambda id: images.find(id) is not None)


def _read_sbd_mask(path: Path) -> Tensor:
    """Read a mask of the Semantic Boundaries Dataset, the field ``GTcls.Segmentation`` of a MATLAB file."""
    loadmat = import_optional("scipy.io", "reading SBD's masks needs it; pip install scipy").loadmat
    content = io.BytesIO(read_bytes(path))
    try:
        ids = np.asarray(loadmat(content)["GTcls"][0]["Segmentation"][0]).astype(np.int64)
        _height, _width = ids.shape  # two sides
    except Exception as error:  # what a damaged file makes the reader raise is not documented
        raise InputError(f"{path}: not a mask of the Semantic Boundaries Dataset ({reason_of(error)})") from error
    return torch.from_numpy(ids)
