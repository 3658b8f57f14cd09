"""Gaussian filters over the pixels of images, normalised symmetrically, and differentiable.

For pixels with features f and weights a of 0 or 1, a filter is S K S with K_ij = exp(-|f_i - f_j|^2 / 2) between pixels
of the same image, and S diagonal, s_i = a_i / sqrt(sum_j K_ij a_j). Pixels of weight 0 take no part: they send nothing
and receive 0. A pixel is its own neighbour.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from torch_svm_seg.refine.lattice import Lattice

# Keeps the scale of a pixel that receives nothing finite.
TINY = 1e-20
# Where the Gaussian of positions ends, in standard deviations.
TRUNCATE = 4
# Rows of a band matrix multiplied at once.
BLOCK_ROWS = 32


class ExactFilter:
    """A filter as the matrix of all pairs of pixels: exact, and for small images only.

    Args:
        features: Features (D, N), in units of the Gaussian's standard deviation.
        image: Index of each pixel's image, (N,).
        weight: 1 or 0 for each pixel, (N,).

    Examples:
        >>> near = ExactFilter(torch.tensor([[0.0, 0.0, 99.0]]), torch.zeros(3), torch.ones(3))
        >>> near(torch.tensor([[1.0], [0.0], [0.0]])).flatten()
        tensor([0.5000, 0.5000, 0.0000])
    """

    def __init__(self, features: Tensor, image: Tensor, weight: Tensor) -> None:
        distances = torch.cdist(features.mT, features.mT, compute_mode="donot_use_mm_for_euclid_dist")
        kernel = torch.exp(-distances.square() / 2) * (image == image[:, None])
        scale = _scale(kernel @ weight, weight)
        self._matrix = scale[:, None] * kernel * scale

    def __call__(self, values: Tensor) -> Tensor:
        """Return values (N, K) filtered, (N, K)."""
        return self._matrix @ values


class LatticeFilter:
    """A filter on a permutohedral lattice (Adams, Baek, Davis 2010): time and memory are linear in the pixels.

    Values are splatted onto the vertices around the pixels, blurred along each direction of the lattice, and sliced at
    the pixels. All three are weighted sums of a few rows of a table.

    Args:
        features: Features (D, N), in units of the Gaussian's standard deviation.
        image: Index of each pixel's image, (N,).
        weight: 1 or 0 for each pixel, (N,).

    Examples:
        >>> near = LatticeFilter(torch.tensor([[0.0, 0.0, 9.0]]), torch.zeros(3), torch.ones(3))
        >>> near(torch.tensor([[1.0], [0.0], [0.0]])).flatten()
        tensor([0.5000, 0.5000, 0.0000])
    """

    def __init__(self, features: Tensor, image: Tensor, weight: Tensor) -> None:
        # Pixels of weight 0 must not add vertices, as blurs pass through all there are: they take another's features.
        index = torch.where(weight > 0, torch.arange(len(weight), device=weight.device), weight.argmax())
        self._lattice = lattice = Lattice.of(features.index_select(1, index), image.index_select(0, index))
        scale = _scale(self._filter(weight[:, None], transpose=False)[:, 0], weight)
        lattice.slice_weights *= scale[:, None]
        lattice.splat_weights *= scale.index_select(0, lattice.splat_pixels)

    def __call__(self, values: Tensor) -> Tensor:
        """Return values (N, K) filtered, (N, K)."""
        return _apply(self._filter, values)

    def _filter(self, values: Tensor, transpose: bool) -> Tensor:
        """Apply the filter or its transpose: blurs along two directions do not commute where vertices are missing."""
        lattice = self._lattice
        table = _weighted_sums(values, lattice.splat_pixels, lattice.splat_weights, lattice.splat_starts)
        for neighbours, weights in reversed(lattice.blurs) if transpose else lattice.blurs:
            table = _weighted_sums(table, neighbours, weights)
        return _weighted_sums(table, lattice.slice_vertices, lattice.slice_weights)


class PositionFilter:
    """A filter whose features are the pixels' positions: exact up to its truncation, as it separates into two axes.

    Args:
        sigma: Standard deviation in pixels.
        weight: 1 or 0 for each pixel, (B, 1, H, W).

    Examples:
        >>> PositionFilter(3.0, torch.ones(1, 1, 8, 9))(torch.rand(1, 2, 8, 9)).shape
        torch.Size([1, 2, 8, 9])
    """

    def __init__(self, sigma: float, weight: Tensor) -> None:
        self._reach = math.ceil(TRUNCATE * sigma)
        self._column, self._row = (_kernel(size, sigma, self._reach).to(weight) for size in weight.shape[2:])
        self._scale = _scale(self._filter(weight), weight)

    def __call__(self, values: Tensor) -> Tensor:
        """Return values (B, K, H, W) filtered, (B, K, H, W)."""
        return self._scale * self._filter(self._scale * values)

    def _filter(self, values: Tensor) -> Tensor:
        return _band_product(self._row, _band_product(self._column, values, self._reach).mT, self._reach).mT


def _kernel(size: int, sigma: float, reach: int) -> Tensor:
    """Return the Gaussian of the distances between the positions on a line, (size, size); 0 beyond reach."""
    position = torch.arange(size, dtype=torch.float64)
    distance = (position - position[:, None]).abs()
    return torch.exp(-(distance / sigma).square() / 2) * (distance <= reach)


def _band_product(matrix: Tensor, values: Tensor, reach: int) -> Tensor:
    """Return matrix (n, n) @ values (..., n, m), where entries further than ``reach`` from the diagonal are 0.

    Of each block of rows, only the columns within reach are multiplied.
    """
    blocks = []
    for start in range(0, len(matrix), BLOCK_ROWS):
        stop, low = start + BLOCK_ROWS, max(start - reach, 0)
        blocks.append(matrix[start:stop, low : stop + reach] @ values[..., low : stop + reach, :])
    return torch.cat(blocks, -2)


def _scale(total: Tensor, weight: Tensor) -> Tensor:
    return weight * (total + TINY).rsqrt()


def _weighted_sums(table: Tensor, rows: Tensor, weights: Tensor, starts: Tensor | None = None) -> Tensor:
    """Return sums of weighted rows of a table: of those in each row of ``rows`` (N, n), or in each part of a list."""
    return F.embedding_bag(rows, table, starts, per_sample_weights=weights, mode="sum")


Filtering = Callable[[Tensor, bool], Tensor]


def _apply(linear_map: Filtering, values: Tensor) -> Tensor:
    result: Tensor = _Linear.apply(values, linear_map, False)
    return result


class _Linear(torch.autograd.Function):
    """A linear map, whose gradient is its transpose."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, linear_map: Filtering, transpose: bool) -> Tensor:
        ctx.linear_map, ctx.transpose = linear_map, transpose
        return linear_map(values, transpose)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        gradient = gradients[0].contiguous()
        return _Linear.apply(gradient, ctx.linear_map, not ctx.transpose), None, None
