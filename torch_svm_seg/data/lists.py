"""Text files that list images or classes.

A list of images holds one of these per line:

- the name of an image, with or without its suffix, ``ID`` or ``FOLDER/ID.jpg``; it may hold spaces and dots;
- the files of an image and of its mask, ``/JPEGImages/ID.jpg /SegmentationClass/ID.png``, the second not being used;
- an id and whether the image shows a class, ``ID 1``, ``ID -1`` or ``ID 0``, as the lists in VOC's ``ImageSets/Main``:
  images that do not show it are left out;
- an id and class ids, ``ID 7 14``, as lists of image-level labels hold; here they are not used.
"""

import re
from collections.abc import Callable
from pathlib import PurePosixPath

from torch_svm_seg.data.constants import IMAGE_SUFFIXES
from torch_svm_seg.data.reading import PathLike, read_text

_SHOWN = re.compile(r"(\S+)\s+(-1|0|1)")
_CLASSES = re.compile(r"(\S+)((?:\s+\d{1,3})+)")
_FILES = re.compile(r"(\S*/\S+)\s+(\S*/\S+)")


def read_lines(path: PathLike) -> list[str]:
    r"""Read the lines of a text file that are not blank, without the white space around them.

    Raises:
        InputError: The file is missing, or no UTF-8 text.

    Examples:
        >>> import tempfile, pathlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "list.txt")
        ...     _ = path.write_text("a\n\n  b \n")
        ...     read_lines(path)
        ['a', 'b']
    """
    return [line.strip() for line in read_text(path).split("\n") if line.strip()]


def read_list(path: PathLike, has: Callable[[str], bool], flat: bool = True) -> tuple[list[str], list[str]]:
    r"""Read the ids of a list of images.

    Args:
        path: The list.
        has: Whether there is an image of an id: lines that name images as a whole are not taken apart.
        flat: Whether images lie in one folder, so that folders in the list are not part of ids, as in VOC's layout.

    Returns:
        The ids, and notes on what was left out.

    Raises:
        InputError: The file is missing, or no UTF-8 text.

    Examples:
        >>> import tempfile, pathlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "cat_train.txt")
        ...     _ = path.write_text("a 1\nb -1\nc 0\n")
        ...     read_list(path, has=lambda id: id in ("a", "b", "c"))
        (['a', 'c'], ['cat_train.txt: 1 images, marked -1 as not showing its class, are left out'])
    """
    lines = read_lines(path)
    whole = [without_image_suffix(line) for line in lines]
    named = _stem if flat else without_image_suffix
    if any(map(has, whole)):
        return [id if has(id) else named(id) for id in whole], []
    if shown := _all_match(_SHOWN, lines):
        ids = [named(name) for name, value in shown if value != "-1"]
        left_out = len(lines) - len(ids)
        note = f"{PurePosixPath(path).name}: {left_out} images, marked -1 as not showing its class, are left out"
        return ids, [note] if left_out else []
    if columns := _all_match(_FILES, lines) or _all_match(_CLASSES, lines):
        return [named(image) for image, _ in columns], []
    return [named(line) for line in lines], []


def without_image_suffix(name: str) -> str:
    """Return the id of an image that is named with or without its suffix.

    Examples:
        >>> without_image_suffix("birds/17.JPG"), without_image_suffix("tile.0001")
        ('birds/17', 'tile.0001')
    """
    suffix = PurePosixPath(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in IMAGE_SUFFIXES else name


def _stem(name: str) -> str:
    """Return the id of a file in a flat folder."""
    return without_image_suffix(PurePosixPath(name).name)


def _all_match(pattern: re.Pattern[str], lines: list[str]) -> list[tuple[str, str]] | None:
    """Return the two groups of a pattern in each line; None unless all lines match it."""
    matches = [pattern.fullmatch(line) for line in lines]
    return [(match[1], match[2]) for match in matches if match] if lines and all(matches) else None
