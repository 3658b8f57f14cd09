"""Bilinear interpolation read at chosen pixels, and the scores of all pixels from a decision function.

Positions and weights are those of ``torch.nn.functional.interpolate(mode="bilinear", align_corners=False)``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

# Up to this many channels, features are interpolated before they are projected; with more, interpolating their
# projections costs less.
FEW_CHANNELS = 128


@dataclass
class Neighbours:
    """The four native-grid neighbours of pixels: indices into flattened (B h w) grids and weights, (B, N, 4) each.

    The order is top left, top right, bottom left, bottom right.

    Examples:
        >>> neighbours = Neighbours.of(torch.tensor([[0, 5, 11]]), (2, 2), (3, 4), torch.float32)
        >>> neighbours.read(torch.rand(4, 7)).shape
        torch.Size([1, 3, 7])
    """

    indices: Tensor
    weights: Tensor

    @classmethod
    def of(cls, positions: Tensor, grid: tuple[int, int], size: tuple[int, int], dtype: torch.dtype) -> "Neighbours":
        """Return the neighbours of flat positions (B, N) in images of ``size`` (H, W), on a ``grid`` (h, w)."""
        (top, bottom), (down, up) = _axis(positions // size[1], grid[0], size[0], dtype)
        (left, right), (across, back) = _axis(positions % size[1], grid[1], size[1], dtype)
        offset = torch.arange(positions.shape[0], device=positions.device)[:, None] * (grid[0] * grid[1])
        top, bottom = offset + top * grid[1], offset + bottom * grid[1]
        indices = torch.stack([top + left, top + right, bottom + left, bottom + right], -1)
        weights = torch.stack([up * back, up * across, down * back, down * across], -1)
        return cls(indices, weights)

    def read(self, table: Tensor) -> Tensor:
        """Return interpolated rows (B, N, C) of a table (B h w, C)."""
        read = F.embedding_bag(
            self.indices.flatten(0, 1), table, per_sample_weights=self.weights.flatten(0, 1), mode="sum"
        )
        return read.view(*self.indices.shape[:2], -1)


def _axis(
    pixels: Tensor, cells: int, size: int, dtype: torch.dtype
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return the cells before and after each pixel along one axis, and the weights of the after and the before cell."""
    place = ((pixels.to(dtype) + 0.5) * (cells / size) - 0.5).clamp(min=0)
    before = place.floor().long().clamp(max=cells - 1)
    share = place - before
    return (before, (before + 1).clamp(max=cells - 1)), (share, 1 - share)


def read_pixels(features: Tensor | Sequence[Tensor], positions: Tensor, size: tuple[int, int]) -> Tensor:
    """Return features as if interpolated to the size of the images, at some pixels.

    Args:
        features: (B, C, h, w), or several such maps on grids of their own, whose channels are joined.
        positions: Flat pixel positions y * W + x, (B, N).
        size: Size (H, W) of the images.

    Returns:
        One row per pixel, (B, N, C).

    Examples:
        >>> read_pixels(torch.tensor([[[[0.0, 1.0]]]]), torch.tensor([[0, 1, 2, 3]]), (1, 4)).flatten().tolist()
        [0.0, 0.25, 0.75, 1.0]
    """
    return torch.cat([_read_map(features, positions, size) for features in feature_maps(features)], 2)


def _read_map(features: Tensor, positions: Tensor, size: tuple[int, int]) -> Tensor:
    neighbours = Neighbours.of(positions, (features.shape[2], features.shape[3]), size, features.dtype)
    return neighbours.read(cell_rows(features).flatten(0, 1))


def feature_maps(features: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """Return the maps (B, C, h, w) that are given as one tensor or several.

    Examples:
        >>> len(feature_maps(torch.rand(1, 3, 4, 5)))
        1
    """
    return [_with_plain_gradient(one) for one in ([features] if isinstance(features, Tensor) else features)]


def _with_plain_gradient(features: Tensor) -> Tensor:
    """Return the same features, whose gradient will lie in memory as a new tensor does.

    What leads back from rows to a map gives a batch of one image an unusual stride, for which the derivatives of
    PyTorch's BatchNorm are wrong on a CPU (seen in 2.15).
    """
    same = features.view_as(features)
    if same.requires_grad:
        same.register_hook(_plain_copy)
    return same


def _plain_copy(gradient: Tensor | None) -> Tensor | None:  # None: no gradient came
    return None if gradient is None else gradient.clone(memory_format=torch.contiguous_format)


def cell_rows(features: Tensor) -> Tensor:
    """Return features (B, C, h, w) as one row per cell, (B, h w, C).

    Examples:
        >>> cell_rows(torch.rand(1, 3, 4, 5)).shape
        torch.Size([1, 20, 3])
    """
    return features.flatten(2).mT
