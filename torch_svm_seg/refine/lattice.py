"""The permutohedral lattice around a set of pixels, built in tensor operations.

D-dimensional features are embedded into the plane of R^(D+1) whose coordinates sum to 0. There the lattice's vertices
are the integer points whose coordinates have the same remainder modulo D + 1; they tile the plane by simplices with
one vertex of each remainder, and the simplex around a point follows from rounding and ranking its coordinates (Adams,
Baek, Davis: Fast high-dimensional filtering using the permutohedral lattice, Eurographics 2010).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# Of the largest feature, in standard deviations: coarser ones would put coordinates into no cell.
_RESOLUTION = 2**-6


@dataclass
class Lattice:
    """M vertices around N pixels, and the weights by which values move between them.

    Attributes:
        splat_pixels: Pixels that the vertices gather from, vertex by vertex, (N (D + 1),).
        splat_weights: Their weights, (N (D + 1),).
        splat_starts: First entry of each vertex in both, (M,).
        blurs: For each of the D + 1 directions, each vertex with its neighbours on both sides, (M, 3), and their
            weights; a neighbour that does not exist has weight 0.
        slice_vertices: Vertices that the pixels gather from, (N, D + 1).
        slice_weights: Their weights, (N, D + 1).

    Examples:
        >>> lattice = Lattice.of(torch.rand(5, 100), torch.zeros(100))
        >>> lattice.slice_vertices.shape, len(lattice.blurs)
        (torch.Size([100, 6]), 6)
    """

    splat_pixels: Tensor
    splat_weights: Tensor
    splat_starts: Tensor
    blurs: list[tuple[Tensor, Tensor]]
    slice_vertices: Tensor
    slice_weights: Tensor

    @classmethod
    def of(cls, features: Tensor, image: Tensor) -> "Lattice":
        """Return the lattice of features (D, N), in standard deviations; pixels of different images share no vertex.

        Raises:
            ValueError: The features are larger than their precision can place in a cell, or span more cells than a
                64-bit integer can number.
        """
        largest, most = float(features.abs().amax()), _RESOLUTION / torch.finfo(features.dtype).eps
        if not largest <= most:
            raise ValueError(f"features: expected at most {most:.3g} standard deviations, got {largest:.3g}")
        anchor, rank, weights = _enclosing_simplex(_elevate(features))
        keys, strides = _vertex_keys(anchor, rank, image)
        pixels, starts, slices, vertices = [], [], [], []
        number = 0
        for remainder, key in enumerate(keys):
            ordered, pixel = key.sort()
            first = torch.cat([torch.ones_like(ordered[:1], dtype=torch.bool), ordered[1:] != ordered[:-1]])
            start = first.nonzero()[:, 0]
            vertex = first.cumsum(0) + (number - 1)
            slices.append(torch.empty_like(vertex).scatter_(0, pixel, vertex))
            starts.append(start + remainder * len(key))
            vertices.append(ordered.index_select(0, start))
            pixels.append(pixel)
            number += len(start)
        return cls(
            splat_pixels=torch.cat(pixels).int(),
            splat_weights=weights.gather(1, torch.stack(pixels)).flatten(),
            splat_starts=torch.cat(starts).int(),
            blurs=[_blur(vertices, direction, strides, features.dtype) for direction in range(len(keys))],
            slice_vertices=torch.stack(slices, 1).int(),
            slice_weights=weights.mT.contiguous(),
        )


def _elevate(features: Tensor) -> Tensor:
    """Return features (D, N) embedded into the plane, (D + 1, N), so that the blur has their unit of length."""
    dimensions = features.shape[0]
    number = torch.arange(1, dimensions + 1, dtype=torch.float64)
    scale = math.sqrt(2 / 3) * (dimensions + 1) * (number * (number + 1)).rsqrt()
    basis = torch.ones(dimensions + 1, dimensions, dtype=torch.float64).triu()
    basis[1:].diagonal().copy_(-number)
    return (basis * scale).to(features) @ features


def _enclosing_simplex(elevated: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the simplex around each point of the plane, (D + 1, N).

    Returns:
        The vertex of remainder 0, divided by D + 1; each coordinate's rank by distance from it, 0 the largest; the
        point's barycentric coordinates by the vertices' remainder. All are (D + 1, N).
    """
    size = elevated.shape[0]
    point = elevated / size
    anchor = point.round()
    distance = point - anchor
    rank = _ranks(distance).to(distance) + anchor.sum(0)
    # Rounding may leave the plane; the coordinates that were rounded the furthest bring the anchor back.
    shift = (rank < 0).to(rank) - (rank >= size).to(rank)
    anchor, distance, rank = anchor + shift, distance - shift, (rank + size * shift).long()
    ordered = torch.empty_like(distance).scatter_(0, rank, distance)
    weights = torch.cat([1 + ordered[-1:] - ordered[:1], (ordered[:-1] - ordered[1:]).flip(0)])
    return anchor, rank, weights


def _ranks(values: Tensor) -> Tensor:
    """Return the rank of each entry along the first, short dimension, int8: 0 the largest, equals in their order."""
    rank = torch.arange(len(values), dtype=torch.int8, device=values.device)[:, None].repeat(1, values.shape[1])
    for first in range(len(values)):
        for second in range(first + 1, len(values)):
            smaller = (values[first] < values[second]).view(torch.int8)
            rank[first] += smaller
            rank[second] -= smaller
    return rank


def _vertex_keys(anchor: Tensor, rank: Tensor, image: Tensor) -> tuple[list[Tensor], list[int]]:
    """Return integers that name the simplices' vertices among those of their remainder.

    The vertex of remainder r is (D + 1) a + r, with the anchor a less 1 in the r coordinates of the last ranks. Its
    key is linear in the first D coordinates of that a, which imply the last, and in the image.

    Returns:
        The keys (N,) for each of the D + 1 remainders, and the weight of each coordinate of a in them.
    """
    lowest, highest = anchor.amin(1).tolist(), anchor.amax(1).tolist()
    strides, cells = [], 1
    for low, high in zip(lowest[:-1], highest[:-1], strict=True):
        strides.append(cells)
        cells *= int(high - low) + 4  # with a margin for the neighbours
    total = cells * (int(image.max()) + 1)
    if total >= 2**63:
        raise ValueError(f"features: expected fewer than 2^63 lattice cells, got {total:.1e}")
    dtype = torch.int32 if total < 2**31 else torch.int64
    key = cells * image.to(dtype)
    for stride, coordinate, low in zip(strides, anchor[:-1], lowest[:-1], strict=True):
        key = key.add_((coordinate - (low - 2)).to(dtype), alpha=stride)
    strides.append(0)
    stride_of_rank = torch.tensor(strides, dtype=dtype, device=rank.device)[:, None].expand_as(rank)
    stride_of_rank = torch.empty_like(rank, dtype=dtype).scatter_(0, rank, stride_of_rank)
    keys = [key]
    for stride_of_last in stride_of_rank.flip(0)[:-1]:
        keys.append(keys[-1] - stride_of_last)
    return keys, strides


def _blur(vertices: list[Tensor], direction: int, strides: list[int], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return each vertex with its neighbours along a direction, (M, 3), and their weights.

    A step adds D to one coordinate and takes 1 from the others: it leads to the next lower remainder.

    Args:
        vertices: Ascending keys for each remainder.
        direction: The coordinate.
        strides: Weight of each coordinate in the keys.
        dtype: Number type of the weights.
    """
    counts = [len(keys) for keys in vertices]
    own = torch.arange(sum(counts), device=vertices[0].device)
    after, before = own.clone(), own.clone()
    offsets = [sum(counts[:remainder]) for remainder in range(len(counts))]
    for remainder, keys in enumerate(vertices):
        step = strides[direction] - (0 if remainder else sum(strides))
        targets, wanted = vertices[remainder - 1], keys + step
        nearest = torch.searchsorted(targets, wanted).clamp_(max=len(targets) - 1)
        found = (targets.index_select(0, nearest) == wanted).nonzero()[:, 0]
        target = nearest.index_select(0, found) + offsets[remainder - 1]
        source = found + offsets[remainder]
        after.index_copy_(0, source, target)
        before.index_copy_(0, target, source)
    neighbours = torch.stack([own, before, after], 1)
    weights = torch.where(neighbours == own[:, None], 0.0, 0.5).to(dtype)
    weights[:, 0] = 1
    return neighbours.int(), weights
