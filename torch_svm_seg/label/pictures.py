"""Images, masks and uncertainty as PNGs that the page lays over each other."""

import io
from base64 import b64encode

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from torch_svm_seg.data.palette import voc_palette

UNSURE_BELOW = 1.0
"""Margin between two scores from which on a pixel counts as sure: that of the SVM."""


def image_png(image: Tensor) -> bytes:
    """Return an image, RGB uint8 (3, H, W), as a PNG: pixels as they were read, without tags that would turn them.

    Examples:
        >>> import torch
        >>> image_png(torch.zeros(3, 4, 6, dtype=torch.uint8))[1:4]
        b'PNG'
    """
    return _png(Image.fromarray(image.permute(1, 2, 0).numpy()))


def mask_png(mask: Tensor) -> str:
    """Return a mask, class ids (H, W), as a data address of a PNG in VOC's colours, its background transparent.

    Examples:
        >>> import torch
        >>> mask_png(torch.zeros(4, 6, dtype=torch.long))[:22]
        'data:image/png;base64,'
    """
    shown = Image.fromarray(mask.to(torch.uint8).numpy())
    shown.putpalette(voc_palette())
    return _address(_png(shown, transparency=0))


def uncertainty_png(margin: Tensor) -> str:
    """Return how unsure the label of each pixel is, as a data address of a white PNG that covers unsure pixels.

    Args:
        margin: By how much the best score exceeds the second best, (H, W), at least 0.

    Examples:
        >>> import torch
        >>> uncertainty_png(torch.zeros(4, 6))[:22]
        'data:image/png;base64,'
    """
    cover = Image.fromarray(((1 - margin / UNSURE_BELOW).clamp(min=0) * 255).to(torch.uint8).numpy())
    return _address(_png(Image.merge("LA", (Image.new("L", cover.size, 255), cover))))


def class_colours(number: int) -> list[str]:
    """Return the colours of the first classes, as a style sheet writes them.

    Examples:
        >>> class_colours(2)
        ['#000000', '#800000']
    """
    table = np.frombuffer(bytes(voc_palette()), np.uint8).reshape(256, 3)[:number]
    return ["#" + bytes(colour).hex() for colour in table]


def _png(picture: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=1, **options)
    return stream.getvalue()


def _address(content: bytes) -> str:
    return f"data:image/png;base64,{b64encode(content).decode()}"
