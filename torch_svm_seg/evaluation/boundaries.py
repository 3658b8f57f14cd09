"""Splitting a mask's pixels into those near a boundary and those inside, to score them apart.

Near a boundary resolution counts, inside semantics. The band of pixels around a boundary is the trimap of
Kohli, Ladicky and Torr (IJCV 2009), which Krähenbühl and Koltun (NIPS 2011) score dense CRFs by.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from torch_svm_seg.data.constants import VOID
from torch_svm_seg.svm.arguments import check_count


def boundary_band(mask: Tensor, width: int) -> Tensor:
    """Return where a pixel of another id is at most ``width`` rows and columns away.

    Void is an id like any other: VOC draws it along the outlines of objects.

    Args:
        mask: Class ids, (H, W).
        width: Width of the band, in pixels, at least 1.

    Returns:
        The band, bool (H, W).

    Examples:
        >>> boundary_band(torch.tensor([[0, 0, 0, 8, 8, 8]]), width=1)
        tensor([[False, False,  True,  True, False, False]])
    """
    check_count("width", width)
    ids = mask[None].float()
    return _largest_within(ids, width)[0] != -_largest_within(-ids, width)[0]


def _largest_within(values: Tensor, width: int) -> Tensor:
    """Return the largest value in the square window around each pixel, along one axis after the other."""
    side = 2 * width + 1
    along_rows = F.max_pool2d(values, (1, side), stride=1, padding=(0, width))
    return F.max_pool2d(along_rows, (side, 1), stride=1, padding=(width, 0))


def near_boundaries(mask: Tensor, width: int) -> Tensor:
    """Return the mask, (H, W), with 255 outside the band.

    Examples:
        >>> near_boundaries(torch.tensor([[0, 0, 0, 8, 8, 8]]), width=1)
        tensor([[255, 255,   0,   8, 255, 255]])
    """
    return torch.where(boundary_band(mask, width), mask, VOID)


def far_from_boundaries(mask: Tensor, width: int) -> Tensor:
    """Return the mask, (H, W), with 255 inside the band.

    Examples:
        >>> far_from_boundaries(torch.tensor([[0, 0, 0, 8, 8, 8]]), width=1)
        tensor([[  0,   0, 255, 255,   8,   8]])
    """
    return torch.where(boundary_band(mask, width), VOID, mask)
