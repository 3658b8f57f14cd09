"""The colours of class ids."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def voc_palette() -> list[int]:
    """Return the colour map of PASCAL VOC.

    Bits 0, 1 and 2 of an id are the highest bits of red, green and blue, bits 3, 4 and 5 the next ones, and so on:
    close ids get far colours.

    Returns:
        768 values 0..255: red, green and blue of id 0, then of id 1, up to id 255.

    Examples:
        >>> voc_palette()[:9]
        [0, 0, 0, 128, 0, 0, 0, 128, 0]
    """
    return list(_VOC_PALETTE)


def colorize(mask: Tensor) -> NDArray[np.uint8]:
    """Paint a mask in the colours of PASCAL VOC.

    Args:
        mask: Class ids 0..255, of an integer type and shape (H, W).

    Returns:
        RGB values of shape (H, W, 3).

    Raises:
        TypeError: The mask is not of an integer type.
        ValueError: The mask has another shape, is empty or holds other ids.

    Examples:
        >>> colorize(torch.tensor([[0, 15]])).tolist()
        [[[0, 0, 0], [192, 128, 128]]]
    """
    palette = np.array(voc_palette(), dtype=np.uint8).reshape(256, 3)
    return palette[as_bytes(mask)]


def as_bytes(mask: Tensor) -> NDArray[np.uint8]:
    """Return a mask as bytes (H, W).

    Raises:
        TypeError: The mask is not of an integer type.
        ValueError: The mask has another shape, is empty or holds other ids than 0..255.

    Examples:
        >>> as_bytes(torch.tensor([[0, 255]])).dtype
        dtype('uint8')
    """
    if mask.is_floating_point() or mask.is_complex():
        raise TypeError(f"mask: expected class ids of an integer type, got {mask.dtype}")
    if mask.ndim != 2 or mask.numel() == 0:
        raise ValueError(f"mask: expected shape (H, W) with at least one pixel, got {tuple(mask.shape)}")
    if mask.min() < 0 or mask.max() > 255:
        raise ValueError(f"mask: expected class ids 0..255, got {mask.min().item()}..{mask.max().item()}")
    return mask.detach().to("cpu", torch.uint8).numpy()


def _spread_bits(bits: int) -> int:
    """Move bits 0, 3 and 6 to positions 7, 6 and 5."""
    return (bits & 1) << 7 | (bits >> 3 & 1) << 6 | (bits >> 6 & 1) << 5


_VOC_PALETTE = tuple(_spread_bits(id >> channel) for id in range(256) for channel in range(3))
