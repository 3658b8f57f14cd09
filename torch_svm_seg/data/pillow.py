"""Opening images by Pillow without what it trusts a file with: any format, any size, any checksum."""

import contextlib
import io
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.reading import PathLike, read_bytes, reading

FORMATS = ("BMP", "DIB", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Formats that are read, whatever a file's suffix: Pillow itself starts other programs for some, such as EPS."""

MOST_PIXELS = 89_478_485
"""Most pixels of an image, as many as Pillow takes before it warns: a small file of one colour can claim any size."""

TRANSPOSED = (5, 6, 7, 8)
"""EXIF orientations that exchange width and height."""

_ORIENTATION = 0x0112  # the EXIF tag
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@contextlib.contextmanager
def open_image(path: PathLike) -> Iterator[ImageFile.ImageFile]:
    """Open an image; whatever fails while it is open, decoding included, becomes an InputError that names the file.

    Args:
        path: An image of one of :data:`FORMATS`; the checksums of a PNG are verified.

    Raises:
        InputError: The file is missing, damaged, too large, not an image or of another format.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile(suffix=".png") as file:
        ...     Image.new("RGB", (6, 4)).save(file.name)
        ...     with open_image(file.name) as image:
        ...         image.size
        (6, 4)
    """
    with reading(path):
        content = read_bytes(path)
        _check_png(content)
        try:
            image = Image.open(io.BytesIO(content), formats=FORMATS)
        except UnidentifiedImageError as error:
            raise InputError(f"{path}: not an image, or one of unknown format") from error
        with image:
            if image.width * image.height > MOST_PIXELS:
                raise InputError(f"{path}: {image.width}x{image.height} pixels, more than the {MOST_PIXELS} allowed")
            yield image


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8, of an image that is not decoded yet; 1 is upright.

    Pillow itself turns TIFF upright, whose orientation is no tag for viewers but a part of the format.

    Example:
        >>> orientation(Image.new("RGB", (4, 3)))
        1
    """
    if image.format == "TIFF":
        return 1
    tag = image.getexif().get(_ORIENTATION, 1)
    return tag if tag in range(1, 9) else 1


def is_wide(image: Image.Image) -> bool:
    """Whether the values of an image have more than 8 bits.

    Example:
        >>> is_wide(Image.new("I;16", (4, 3)))
        True
    """
    return image.mode.startswith("I")


def wide_values(image: Image.Image, path: PathLike) -> NDArray[np.int64]:
    """Return the values of an image of more than 8 bits, (H, W).

    Raises:
        InputError: They are negative or exceed 16 bits, so that their range is not known.

    Example:
        >>> wide_values(Image.new("I;16", (3, 2), color=700), "a.png").tolist()
        [[700, 700, 700], [700, 700, 700]]
    """
    values = np.array(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise InputError(f"{path}: pixel values beyond 16 bits; save the image with 8 or 16 bits")
    return values


def _check_png(content: bytes) -> None:
    """Raise ValueError where a chunk of a PNG is cut or fails its checksum, which Pillow does not look at in all."""
    if not content.startswith(_PNG_SIGNATURE):
        return
    view, start = memoryview(content), len(_PNG_SIGNATURE)
    while start + 12 <= len(content):
        length, kind = int.from_bytes(view[start : start + 4], "big"), bytes(view[start + 4 : start + 8])
        end = start + 8 + length
        if end + 4 > len(content):
            break
        if zlib.crc32(view[start + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            raise ValueError(f"damaged: the PNG's chunk {kind!r} fails its checksum")
        if kind == b"IEND":
            return
        start = end + 4
    raise ValueError("truncated PNG")
