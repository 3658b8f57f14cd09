"""The archive of masks that the evaluation server of PASCAL VOC takes."""

import gzip
import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from torch_svm_seg.data.constants import VOC_CLASSES
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import PathLike, write_atomically

SUFFIXES = (".tar.gz", ".tgz")


def check_voc_archive(path: PathLike, class_names: Sequence[str]) -> None:
    """Raise InputError unless an archive of masks of these classes is one for the server.

    Raises:
        InputError: The file has another suffix, or the classes are not VOC's.

    Examples:
        >>> check_voc_archive("results.tar.gz", VOC_CLASSES)
    """
    if not str(path).endswith(SUFFIXES):
        raise InputError(f"{path}: expected a name that ends in {' or '.join(SUFFIXES)}, which the server takes")
    if tuple(class_names) != VOC_CLASSES:
        raise InputError(f"{path}: the server takes masks of VOC's {len(VOC_CLASSES)} classes, not of others")


def write_voc_archive(path: PathLike, masks: PathLike, ids: Sequence[str], image_set: str = "test") -> None:
    """Pack masks as ``results/VOC2012/Segmentation/comp6_SET_cls/ID.png``.

    Competition 6 is segmentation by methods that were trained on any data but the test set; 5 admits VOC's alone, so
    no pretraining on ImageNet. The same masks make the same bytes.

    Args:
        path: Archive to write, ``*.tar.gz`` or ``*.tgz``; it appears whole or not at all.
        masks: Folder of palette PNGs ``ID.png``.
        ids: Images to pack; the server wants all of the set.
        image_set: Name of the set.

    Raises:
        InputError: A mask is missing.
        OSError: The archive cannot be written.

    Examples:
        >>> write_voc_archive("results.tar.gz", "runs/network/test", ids)  # doctest: +SKIP
    """
    missing = [id for id in ids if not Path(masks, f"{id}.png").is_file()]
    if missing:
        raise InputError(f"{path}: not written, since {len(missing)} masks are missing, such as {missing[0]}.png")
    folder = f"results/VOC2012/Segmentation/comp6_{image_set}_cls"

    def write(stream: BinaryIO) -> None:
        with (
            gzip.GzipFile("", "wb", fileobj=stream, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w") as archive,
        ):
            for id in ids:
                content = Path(masks, f"{id}.png").read_bytes()
                entry = tarfile.TarInfo(f"{folder}/{id}.png")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))

    write_atomically(path, write)
