"""Reading and writing images and masks: what goes wrong is said in one line, and no half-written file is ever left.

Readers raise :class:`InputError`, whose message names the file and the reason. Writers let an ``OSError`` such as a
full disk through, since it is not the input's fault, and name the target in it.
"""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageFile
from torch import Tensor

from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.palette import as_bytes, voc_palette
from torch_svm_seg.data.pillow import TRANSPOSED, is_wide, open_image, orientation, wide_values
from torch_svm_seg.data.reading import PathLike as PathLike
from torch_svm_seg.data.reading import read_bytes

TEMPORARY_PATTERN = ".torch_svm_seg-*.part"
"""Glob pattern of files under writing; what still matches it when no run is active was left by a killed run."""

# What a PNG of 2 or 4 bits a pixel is multiplied by when Pillow stretches it to 0..255.
_GREY_STEP: dict[object, int] = {"L;2": 85, "L;4": 17}

# Sides of (3, H, W) to mirror, after the exchange of rows and columns if there is one, by EXIF orientation.
_FLIPPED_SIDES = {2: (2,), 3: (1, 2), 4: (1,), 6: (2,), 7: (1, 2), 8: (1,)}

# Characters that some file system forbids or gives a meaning, so that an id is one file name everywhere.
_FORBIDDEN_IN_IDS = frozenset('\\:*?"<>|')


def read_image(path: PathLike, upright: bool = False, bits: int = 16) -> Tensor:
    """Read an image.

    Greyscale, palette, CMYK and 16-bit images are converted, transparency is dropped.

    Args:
        path: An image of one of :data:`~torch_svm_seg.data.pillow.FORMATS`; of an animation, its first frame.
        upright: Whether to turn the image as its EXIF orientation asks viewers to. Masks carry no such tag: turn the
            image if they were drawn in a viewer, and leave it as it is stored if they were drawn on its pixels.
        bits: Of the values of an image that has more than 8; cameras and microscopes store 10 or 12 in 16.

    Returns:
        RGB values, uint8 of shape (3, H, W).

    Raises:
        InputError: The file is missing, damaged, not an image, too large, of a pixel type with no fixed range of
            values, or has values beyond ``bits``.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("L", (6, 4), color=7).save(Path(folder, "a.png"))
        ...     image = read_image(Path(folder, "a.png"))
        >>> image.shape, image.unique().tolist()
        (torch.Size([3, 4, 6]), [7])
    """
    with open_image(path) as image:
        return decoded(image, path, upright, bits)


def decoded(image: ImageFile.ImageFile, path: PathLike, upright: bool, bits: int) -> Tensor:
    """Return the pixels of an image opened by :func:`~torch_svm_seg.data.pillow.open_image`; see :func:`read_image`.

    Examples:
        >>> decoded(Image.new("RGB", (6, 4)), "a.png", upright=False, bits=16).shape
        torch.Size([3, 4, 6])
    """
    turn = orientation(image) if upright else 1
    pixels = torch.from_numpy(np.array(_to_rgb(image, path, bits))).permute(2, 0, 1)
    pixels = pixels.transpose(1, 2) if turn in TRANSPOSED else pixels
    return pixels.flip(_FLIPPED_SIDES.get(turn, ())).contiguous()


def read_mask(path: PathLike) -> Tensor:
    """Read a mask of class ids.

    Args:
        path: A palette image, whose ids are the palette's indices, or a greyscale image, whose ids are the stored
            values.

    Returns:
        Class ids, int64 of shape (H, W).

    Raises:
        InputError: The file is missing, damaged, not an image or a colour image.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_mask(Path(folder, "a.png"), torch.tensor([[0, 8], [255, 8]]))
        ...     read_mask(Path(folder, "a.png")).tolist()
        [[0, 8], [255, 8]]
    """
    with open_image(path) as image:
        return stored_ids(image, path)


def stored_ids(image: ImageFile.ImageFile, path: PathLike) -> Tensor:
    """Return the values of an opened mask as they are stored, int64 of shape (H, W), see :func:`read_mask`.

    Examples:
        >>> stored_ids(Image.new("L", (3, 2), color=8), "a.png").tolist()
        [[8, 8, 8], [8, 8, 8]]
    """
    if image.mode not in ("P", "L", "1", "I") and not image.mode.startswith("I;16"):
        raise InputError(
            f"{path}: a colour image (mode {image.mode}) is not a mask of class ids; "
            "save ids as a palette or greyscale PNG"
        )
    step = _grey_step(image)
    ids = torch.from_numpy(np.array(image).astype(np.int64))
    return ids if step == 1 else ids // step


def save_mask(path: PathLike, mask: Tensor) -> None:
    """Write a mask as a palette PNG in the colours of PASCAL VOC, so that viewers show more than black.

    The file appears whole or not at all, see :func:`write_atomically`.

    Args:
        path: The PNG to write; missing parent folders are created.
        mask: Class ids 0..255, of an integer type and shape (H, W).

    Raises:
        TypeError: the mask is not of an integer type.
        ValueError: the mask has another shape, is empty or holds other ids.
        OSError: The file cannot be written.
    """
    picture = Image.fromarray(as_bytes(mask))
    picture.putpalette(voc_palette())
    write_atomically(path, lambda stream: picture.save(stream, format="PNG"))


def write_atomically(path: PathLike, write: Callable[[BinaryIO], object]) -> None:
    """Write a file that appears whole or not at all.

    The bytes go to a temporary file in the same folder, reach the disk, and only then take the name. Whatever
    interrupts the writing, the temporary file is removed and a file that stood there before is untouched. After a
    kill or a power cut a leftover can remain; its name matches :data:`TEMPORARY_PATTERN`.

    Args:
        path: The file to write or replace; missing parent folders are created.
        write: Writes the content to the binary stream it is given.

    Raises:
        OSError: The file cannot be written, for example since the disk is full; its ``filename`` is `path`.
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
    """Write a UTF-8 text file that appears whole or not at all, see :func:`write_atomically`."""
    write_atomically(path, lambda stream: stream.write(text.encode()))


def remove_unfinished(folder: Path) -> None:
    """Remove what writers that were killed have left in a folder, into which nobody else may be writing."""
    for path in folder.glob(TEMPORARY_PATTERN):
        path.unlink(missing_ok=True)


def safe_id(id: str) -> str:
    """Return an image id unchanged if a file named after it cannot leave its folder.

    Ids come from lists that others wrote, and become names of files that are written. An id is a file name without
    suffix, or several joined by ``/`` for a file in a sub-folder.

    Raises:
        InputError: The id is empty or absolute, has an empty, ``.`` or ``..`` part, or a character that is not
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
    """Return the size (H, W) of an image as messages state it, width first.

    >>> size_text((375, 500))
    '500x375'
    """
    return "x".join(str(side) for side in reversed(size))


def _to_rgb(image: Image.Image, path: PathLike, bits: int) -> Image.Image:
    """Convert to RGB where Pillow would clip 16-bit values to white or warn about transparent palettes."""
    if image.mode == "F":
        raise InputError(f"{path}: floating point pixels have no fixed range; save the image with 8 or 16 bits")
    if is_wide(image):
        values = wide_values(image, path)
        if values.max() >> bits:
            raise InputError(f"{path}: pixel values up to {values.max()}, more than {bits} bits hold")
        image = Image.fromarray((values >> (bits - 8)).astype(np.uint8))
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _grey_step(image: ImageFile.ImageFile) -> int:
    """Return the factor between the stored values and Pillow's, of an image that is not decoded yet."""
    raw_mode = image.tile[0][3] if image.format == "PNG" and image.tile else None
    return _GREY_STEP.get(raw_mode, 1)


def digest(path: PathLike | None) -> str | None:
    """Return what tells a file from another one of the same name: its name and a hash of its content.

    Anything but a file is returned as it is.

    Raises:
        InputError: The file cannot be read.

    Examples:
        >>> digest("no such file"), digest(None)
        ('no such file', None)
    """
    if path is None or not Path(path).is_file():
        return None if path is None else str(path)
    return f"{Path(path).name} {hashlib.sha256(read_bytes(path)).hexdigest()[:16]}"
