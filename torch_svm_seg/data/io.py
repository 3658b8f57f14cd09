"""Reading and writing images and masks: what goes wrong is said in one line, and no half-written file is ever left.

Readers raise :class:`InputError`, whose message names the file and the reason. Writers let an ``OSError`` such as a
full disk through, since it is not the input's fault, and name the target in it.
"""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageFile, UnidentifiedImageError
from torch import Tensor

from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.palette import _as_bytes, voc_palette

PathLike = str | os.PathLike[str]

TEMPORARY_PATTERN = ".torch_svm_seg-*.part"
"""Glob pattern of files under writing; what still matches it when no run is active was left by a killed run."""

# What a PNG of 2 or 4 bits a pixel is multiplied by when Pillow stretches it to 0..255.
_GREY_STEP: dict[object, int] = {"L;2": 85, "L;4": 17}

# Characters that some file system forbids or gives a meaning, so that an id is one file name everywhere.
_FORBIDDEN_IN_IDS = frozenset('\\:*?"<>|')


def read_image(path: PathLike) -> Tensor:
    """Reads an image.

    Greyscale, palette, CMYK and 16-bit images are converted, transparency is dropped. An EXIF orientation is *not*
    applied: masks are drawn on the pixels as they are stored and carry no such tag, so turning only the image
    would tear the two apart.

    Args:
        path: an image file of any format Pillow reads; of an animation, its first frame.

    Returns:
        RGB values, uint8 of shape (3, H, W).

    Raises:
        InputError: the file is missing, damaged, not an image, too large for Pillow's limit, or of a pixel type with
            no fixed range of values.
    """
    with _open(path) as image:
        pixels = np.array(_to_rgb(image, path))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def read_mask(path: PathLike) -> Tensor:
    """Reads a mask of class ids.

    Args:
        path: a palette PNG, whose ids are the palette's indices, or a greyscale PNG, whose ids are the stored values.

    Returns:
        Class ids, int64 of shape (H, W).

    Raises:
        InputError: the file is missing, damaged, not an image or a colour image.
    """
    with _open(path) as image:
        if image.mode not in ("P", "L", "1", "I") and not image.mode.startswith("I;16"):
            raise InputError(
                f"{path}: a colour image (mode {image.mode}) is not a mask of class ids; "
                "save ids as a palette or greyscale PNG"
            )
        step = _grey_step(image)
        ids = np.array(image).astype(np.int64) // step
    return torch.from_numpy(ids)


def save_mask(path: PathLike, mask: Tensor) -> None:
    """Writes a mask as a palette PNG in the colours of PASCAL VOC, so that viewers show more than black.

    The file appears whole or not at all, see :func:`write_atomically`.

    Args:
        path: the PNG to write; missing parent folders are created.
        mask: class ids 0..255, of an integer type and shape (H, W).

    Raises:
        TypeError: the mask is not of an integer type.
        ValueError: the mask has another shape, is empty or holds other ids.
        OSError: the file cannot be written.
    """
    picture = Image.fromarray(_as_bytes(mask))
    picture.putpalette(voc_palette())
    write_atomically(path, lambda stream: picture.save(stream, format="PNG"))


def write_atomically(path: PathLike, write: Callable[[BinaryIO], object]) -> None:
    """Writes a file that appears whole or not at all.

    The bytes go to a temporary file in the same folder, reach the disk, and only then take the name. Whatever
    interrupts the writing, the temporary file is removed and a file that stood there before is untouched. After a
    kill or a power cut a leftover can remain; its name matches :data:`TEMPORARY_PATTERN`.

    Args:
        path: the file to write or replace; missing parent folders are created.
        write: writes the content to the binary stream it is given.

    Raises:
        OSError: the file cannot be written, for example since the disk is full; its ``filename`` is `path`.
    """
    path = Path(path)
    temporary = path.parent / TEMPORARY_PATTERN.replace("*", secrets.token_hex(8))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        # The error names the temporary file or none at all; the user knows only the target.
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_text_atomically(path: PathLike, text: str) -> None:
    """Writes a UTF-8 text file that appears whole or not at all, see :func:`write_atomically`."""
    write_atomically(path, lambda stream: stream.write(text.encode()))


def safe_id(id: str) -> str:
    """Returns an image id unchanged if a file named after it cannot leave its folder.

    Ids come from lists that others wrote, and become names of files that are written. An id is a file name without
    suffix, or several joined by ``/`` for a file in a sub-folder.

    Raises:
        InputError: the id is empty or absolute, has an empty, ``.`` or ``..`` part, or a character that is not
            printable or that some file system forbids.

    >>> safe_id("birds/2007_000063")
    'birds/2007_000063'
    """
    if any(part in ("", ".", "..") for part in id.split("/")):
        raise InputError(f"image id {id!r}: must be a relative name without empty, '.' or '..' parts")
    forbidden = " ".join(sorted(_FORBIDDEN_IN_IDS))
    if not id.isprintable() or _FORBIDDEN_IN_IDS.intersection(id):
        raise InputError(f"image id {id!r}: must hold printable characters only, and none of {forbidden}")
    return id


def size_text(size: Sequence[int]) -> str:
    """Gives the size (H, W) of an image as messages state it, width first.

    >>> size_text((375, 500))
    '500x375'
    """
    return "x".join(str(side) for side in reversed(size))


@contextlib.contextmanager
def _open(path: PathLike) -> Iterator[ImageFile.ImageFile]:
    """Opens an image; whatever fails while it is open, decoding included, becomes an InputError that names the file."""
    try:
        with Image.open(path) as image:
            yield image
    except (InputError, MemoryError):
        raise
    except Exception as error:  # damaged files make Pillow's decoders raise nearly anything
        raise InputError(f"{path}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image, or one of unknown format"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


def _to_rgb(image: Image.Image, path: PathLike) -> Image.Image:
    """Converts to RGB where Pillow would clip 16-bit values to white or warn about transparent palettes."""
    if image.mode == "F":
        raise InputError(f"{path}: floating point pixels have no fixed range; save the image with 8 or 16 bits")
    if image.mode.startswith("I"):
        values = np.array(image)
        if values.min() < 0 or values.max() > 65535:
            raise InputError(f"{path}: pixel values beyond 16 bits; save the image with 8 or 16 bits")
        image = Image.fromarray((values >> 8).astype(np.uint8))
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _grey_step(image: ImageFile.ImageFile) -> int:
    """Gives the factor between the stored values and Pillow's, of an image that is not decoded yet."""
    raw_mode = image.tile[0][3] if image.format == "PNG" and image.tile else None
    return _GREY_STEP.get(raw_mode, 1)


def digest(path: PathLike | None) -> str | None:
    """Tells a file from another one of the same name: its name and a hash; anything but a file is given back as it is.

    Raises:
        InputError: the file cannot be read.
    """
    if path is None or not Path(path).exists():
        return None if path is None else str(path)
    try:
        return f"{Path(path).name} {hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]}"
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
