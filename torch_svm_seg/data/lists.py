"""Text files that list images or classes."""

from pathlib import Path, PurePosixPath

from torch_svm_seg.data.constants import IMAGE_SUFFIXES
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import PathLike


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


def without_image_suffix(name: str) -> str:
    """Gives the id of an image that is named with or without its suffix."""
    suffix = PurePosixPath(name).suffix
    return name.removesuffix(suffix) if suffix in IMAGE_SUFFIXES else name
