"""Pairs of cells and their affinity by direct computation, as the tests of IRN compare with."""

import math

import torch
from torch import Tensor

from torch_svm_seg.irn.paths import Paths


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pairs_of(shape: tuple[int, int], paths: Paths) -> list[tuple[int, int, tuple[int, int], tuple[int, int]]]:
    """All pairs of cells of a grid as (path, which cell it starts from, the cell, the other cell)."""
    height, width = shape
    found = []
    for path, (down, right) in enumerate(paths.ends):
        for row in range(height - down):
            for column in range(max(0, -right), min(width, width - right)):
                end = (row + down, column + right)
                found.append((path, row * width + column, (row, column), end))
    return found


def direct_affinity(boundary: Tensor, start: tuple[int, int], end: tuple[int, int]) -> float:
    """1 - the largest boundary (h, w) on cells whose distance from the line, inside the box, is below 1."""
    (top, left), (bottom, right) = start, end
    length = math.hypot(bottom - top, right - left)
    on_path = [
        boundary[row, column]
        for row in range(top, bottom + 1)
        for column in range(min(left, right), max(left, right) + 1)
        if abs((row - top) * (right - left) - (column - left) * (bottom - top)) / length < 1 - 1e-9
    ]
    return 1 - float(max(on_path))
