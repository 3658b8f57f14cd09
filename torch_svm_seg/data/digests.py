"""Digests of all that a result comes from: whatever is edited, the result is made again."""

import hashlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.reading import read_bytes

Value = TypeVar("Value")

Source = Path | str
"""A file, or anything else that a result comes from, as text."""

_THREADS = 8


def digest_of(sources: Iterable[Source]) -> str:
    """Return a digest of the content of files, whatever they are called and wherever they lie, and of texts.

    All bytes are read each time: sizes and dates can be kept when a file is changed.

    Raises:
        InputError: A file cannot be read.

    Example:
        >>> digest_of(["labels [8, 15]"]) == digest_of(["labels [8]"])
        False
    """
    whole = hashlib.sha256()
    for source in sources:
        content = source.encode() if isinstance(source, str) else read_bytes(source)
        whole.update(hashlib.sha256(content).digest())
    return whole.hexdigest()[:32]


def read_with_digest(read: Callable[[], Value], sources: Callable[[], Iterable[Source]]) -> tuple[Value, str]:
    """Return what is read, and the digest of what it is read from.

    The digest is taken first: a file that changes in between has another one the next time.

    Raises:
        InputError: A file cannot be read; by the reader's own words if it fails as well.
    """
    try:
        digest = digest_of(sources())
    except InputError:
        read()
        raise
    return read(), digest


def digest_of_images(dataset: ImageDataset, with_masks: bool) -> str:
    """Return a digest of all images of a data set, with or without their masks.

    Raises:
        InputError: A file cannot be read.
    """

    def one(index: int) -> str:
        masks = dataset.mask_sources(index) if with_masks else ()
        return digest_of((*dataset.image_sources(index), *masks))

    with ThreadPoolExecutor(_THREADS) as pool:
        return digest_of(pool.map(one, range(len(dataset))))
