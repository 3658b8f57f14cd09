"""Images of other channels than red, green and blue: arrays of NumPy, and stacks of grey pages in a TIFF.

They have no network, but their channels are features themselves, of the stage ``img``: spectral bands, stains, phases,
or features of another program.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ImageFile
from torch import Tensor

from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import size_text
from torch_svm_seg.data.pillow import MOST_PIXELS
from torch_svm_seg.data.reading import PathLike, read_array

ARRAY_SUFFIX = ".npy"

_GREY_PAGES = ("L", "I", "F", "I;16", "I;16B", "I;16L")
_MOST_CHANNELS = 4096


def read_channels(path: PathLike) -> Tensor:
    """Read an array of NumPy as an image.

    Args:
        path: An array (H, W), (H, W, C), or, where the first axis is the shortest, (C, H, W), of any type of numbers.

    Returns:
        Bytes of one or three channels are a grey or a colour image, uint8 (3, H, W); any others are left as they are,
        float32 (C, H, W).

    Raises:
        InputError: The file is missing, damaged, of another shape, too large, or holds nan or inf.

    Examples:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        ...     np.save(file.name, np.zeros((20, 30, 5), np.uint16))
        ...     read_channels(file.name).shape
        torch.Size([5, 20, 30])
    """
    values = read_array(path)
    if values.ndim not in (2, 3) or 0 in values.shape or values.dtype.kind not in "biuf":
        raise InputError(f"{path}: expected numbers (H, W), (H, W, C) or (C, H, W), got {values.dtype} {values.shape}")
    planes = values[None] if values.ndim == 2 else values
    if values.ndim == 3 and not planes.shape[0] < min(planes.shape[1:]):
        planes = planes.transpose(2, 0, 1)
    if planes.dtype == np.uint8 and len(planes) in (1, 3):
        return torch.from_numpy(planes.repeat(3 // len(planes), 0))
    return _checked(planes, path)


def read_pages(image: ImageFile.ImageFile, path: PathLike) -> Tensor | None:
    """Return the pages of an opened TIFF as channels, float32 (C, H, W); None unless it is several grey ones.

    Raises:
        InputError: Pages differ in size, or a page is damaged.

    Examples:
        >>> import io
        >>> from PIL import Image
        >>> stream, pages = io.BytesIO(), [Image.new("L", (6, 4), grey) for grey in (7, 8)]
        >>> pages[0].save(stream, "TIFF", save_all=True, append_images=pages[1:])
        >>> read_pages(Image.open(stream), "a.tif")[:, 0, 0].tolist()
        [7.0, 8.0]
    """
    number = getattr(image, "n_frames", 1) if image.format == "TIFF" and image.mode in _GREY_PAGES else 1
    if number == 1:
        return None
    if number > _MOST_CHANNELS or number * image.width * image.height > MOST_PIXELS:
        raise InputError(f"{path}: {number} pages of {image.width}x{image.height} pixels, more than are read")
    pages, size = [], image.size
    for page in range(number):
        image.seek(page)
        if image.mode not in _GREY_PAGES:
            return None
        if image.size != size:
            shown = " and ".join(size_text(one[::-1]) for one in (size, image.size))
            raise InputError(f"{path}: pages of {shown} pixels; as channels of an image they must be of one size")
        pages.append(np.array(image))
    return _checked(np.stack(pages), path)


def as_colours(image: Tensor) -> Tensor:
    """Return an image (C, H, W) as one to look at, uint8 (3, H, W): bytes of three channels are left as they are.

    Otherwise the first three channels, or the first thrice, are shown, each from its smallest value to its largest.

    Examples:
        >>> as_colours(torch.tensor([[[-1.0, 0.0, 1.0]]]))[:, 0].tolist()
        [[0, 127, 255], [0, 127, 255], [0, 127, 255]]
    """
    if image.dtype == torch.uint8 and len(image) == 3:
        return image
    shown = (image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)).float()
    least, most = shown.amin((1, 2), keepdim=True), shown.amax((1, 2), keepdim=True)
    spread = (most - least).clamp_min(torch.finfo(shown.dtype).tiny)
    return (255 * ((shown - least) / spread)).to(torch.uint8)


def _checked(planes: NDArray[np.generic], path: PathLike) -> Tensor:
    """Return planes (C, H, W) in single precision."""
    if len(planes) > _MOST_CHANNELS or planes.size > _MOST_CHANNELS * MOST_PIXELS // 16:
        raise InputError(f"{path}: {len(planes)} channels of {size_text(planes.shape[1:])} pixels, more than are read")
    values = torch.from_numpy(planes.astype(np.float32))
    if not bool(values.isfinite().all()):
        raise InputError(f"{path}: expected finite values, got nan or inf")
    return values
