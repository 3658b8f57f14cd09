"""Opening images by Pillow without what it trusts a file with: any format, any size, any checksum."""

import contextlib
import io
import sys
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
_WIDE = "content of a file of 16 bits and several channels"  # in an image's info: Pillow keeps 8 of the bits
_OTHER_BYTE = {"RGB;16B": "RGB;16L", "RGB;16L": "RGB;16B", "RGBA;16B": "RGBA;16L", "RGBA;16L": "RGBA;16B"}
_OTHER_BYTE |= {"RGB;16N": _OTHER_BYTE[f"RGB;16{'L' if sys.byteorder == 'little' else 'B'}"]}
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@contextlib.contextmanager
def open_image(path: PathLike) -> Iterator[ImageFile.ImageFile]:
    """Open an image; whatever fails while it is open, decoding included, becomes an InputError that names the file.

    Args:
        path: An image of one of :data:`FORMATS`; the checksums of a PNG are verified.

    Raises:
        InputError: The file is missing, damaged, too large, not an image or of another format.

    Examples:
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
            if ";16" in str(_raw_mode(image)) and not image.mode.startswith("I"):
                image.info[_WIDE] = content
            yield image


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8, of an image that is not decoded yet; 1 is upright.

    Pillow itself turns TIFF upright, whose orientation is no tag for viewers but a part of the format.

    Examples:
        >>> orientation(Image.new("RGB", (4, 3)))
        1
    """
    if image.format == "TIFF":
        return 1
    tag = image.getexif().get(_ORIENTATION, 1)
    return tag if tag in range(1, 9) else 1


def is_wide(image: Image.Image) -> bool:
    """Whether the values of an image have more than 8 bits.

    Examples:
        >>> is_wide(Image.new("I;16", (4, 3)))
        True
    """
    return image.mode.startswith("I") or _WIDE in image.info


def wide_values(image: Image.Image, path: PathLike) -> NDArray[np.int64]:
    """Return the values of an image of more than 8 bits, (H, W), or (H, W, 3) of one in colour.

    Raises:
        InputError: They are negative or exceed 16 bits, so that their range is not known.

    Examples:
        >>> wide_values(Image.new("I;16", (3, 2), color=700), "a.png").tolist()
        [[700, 700, 700], [700, 700, 700]]
    """
    if _WIDE in image.info:
        return _wide_colours(image.info[_WIDE], path)
    values = np.array(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise InputError(f"{path}: pixel values beyond 16 bits; save the image with 8 or 16 bits")
    return values


def _wide_colours(content: bytes, path: PathLike) -> NDArray[np.int64]:
    """Return the values of an image in colour of 16 bits, (H, W, 3): Pillow gives one of the two bytes of each."""
    raw_mode, high = _decoded(content, "")
    if raw_mode == "LA;16B":
        both = _decoded(content, "RGBA")[1].astype(np.int64)  # grey, high and low byte, and its opacity
        return (256 * both[..., :1] + both[..., 1:2]).repeat(3, 2)
    other = _OTHER_BYTE.get(raw_mode)
    if other is None:
        raise InputError(f"{path}: colours of 16 bits in an unusual order ({raw_mode}); save the image with 8 bits")
    return 256 * high[..., :3].astype(np.int64) + _decoded(content, other)[1][..., :3]


def _decoded(content: bytes, raw_mode: str) -> tuple[str, NDArray[np.uint8]]:
    """Return Pillow's name of the order of an image's bytes, and its pixels, where another order is given, in that."""
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        own = str(_raw_mode(image))
        image.tile = [
            tile._replace(args=raw_mode if isinstance(tile.args, str) else (raw_mode, *(tile.args or ())[1:]))
            if raw_mode
            else tile
            for tile in image.tile
        ]
        return own, np.array(image)


def _raw_mode(image: ImageFile.ImageFile) -> object:
    """Return Pillow's name of the order of the bytes of an image that is not decoded yet."""
    arguments = image.tile[0].args if image.tile else None
    return arguments[0] if isinstance(arguments, tuple) and arguments else arguments


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
