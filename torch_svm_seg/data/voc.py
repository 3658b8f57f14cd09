"""PASCAL VOC 2012 and its augmented train set."""

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets import VOCSegmentation  # type: ignore[import-untyped]

from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.errors import InputError, import_optional
from torch_svm_seg.data.io import PathLike
from torch_svm_seg.data.lists import read_lines


def voc2012(
    root: PathLike,
    split: str = "train",
    list_file: PathLike | None = None,
    download: bool = False,
    sbd_root: PathLike | None = None,
) -> ImageDataset:
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
    return ImageDataset(voc / "JPEGImages", voc / "SegmentationClass", _read_voc_list(source), source=source)


class _AugmentedVOC(ImageDataset):
    """VOC's images and masks, and SBD's where VOC has none."""

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

    def _read_mask(self, path: Path) -> Tensor:
        return _read_sbd_mask(path) if path.suffix == ".mat" else super()._read_mask(path)


def _train_aug(voc: Path, sbd: Path, list_file: PathLike | None) -> ImageDataset:
    masks = voc / "SegmentationClassAug"
    lists = voc / "ImageSets" / "Segmentation"
    source = lists / "train_aug.txt" if list_file is None else Path(list_file)
    listed = list_file is not None or source.is_file()
    if not masks.is_dir():
        if not (sbd / "cls").is_dir():
            if listed:
                return ImageDataset(voc / "JPEGImages", None, _read_voc_list(source), source=source)
            raise InputError(f"train_aug: none of {source}, {masks} and {sbd / 'cls'} exists")
        import_optional("scipy.io", f"reading SBD's masks needs it; pip install scipy, or provide {masks}")
        masks = voc / "SegmentationClass"
    if listed:
        return _AugmentedVOC(voc, masks, sbd, _read_voc_list(source), source)
    parts = [lists / "train.txt", sbd / "train.txt", sbd / "val.txt"]
    excluded = set(_read_voc_list(lists / "val.txt"))
    ids = [id for part in parts for id in _read_voc_list(part) if id not in excluded]
    return _AugmentedVOC(voc, masks, sbd, ids, source)


def _is_whole(voc: Path) -> bool:
    """Whether all images and masks of VOC's lists are there: unpacking may have been interrupted."""
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


def _read_sbd_mask(path: Path) -> Tensor:
    """Reads a mask of the Semantic Boundaries Dataset, the field ``GTcls.Segmentation`` of a MATLAB file."""
    loadmat = import_optional("scipy.io", "reading SBD's masks needs it; pip install scipy").loadmat
    try:
        ids = loadmat(path)["GTcls"][0]["Segmentation"][0]
        return torch.from_numpy(np.asarray(ids).astype(np.int64))
    except Exception as error:  # what a damaged file makes the reader raise is not documented
        raise InputError(f"{path}: not a mask of the Semantic Boundaries Dataset ({error})") from error
