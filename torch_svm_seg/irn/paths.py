"""Straight paths between neighbouring cells of a grid, and the strongest boundary on each.

Two cells belong together where no class boundary lies between them: their affinity is 1 less the largest boundary
strength on the straight path from one to the other, ends included (Ahn et al., CVPR 2019, equation 5).
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F


class Paths:
    """Paths from a cell to the cells nearer than a radius, in one of each two opposite directions.

    Args:
        radius: Radius in cells, at least 2.

    Attributes:
        reach: The longest step along a row or a column.
        ends: The end of each of the P paths, rows down and columns right of its start.
        cells: The cells on each path from start to end, as the ends: those of the box between both that lie nearer
            than one cell to the straight line.

    Examples:
        >>> paths = Paths(2)
        >>> paths.ends
        [(0, 1), (1, -1), (1, 0), (1, 1)]
        >>> paths.cells[3]
        [(0, 0), (0, 1), (1, 0), (1, 1)]
    """

    def __init__(self, radius: int) -> None:
        if radius < 2:
            raise ValueError(f"radius: expected at least 2, got {radius}")
        self.radius, self.reach = radius, radius - 1
        side = range(-self.reach, radius)
        offsets = [(y, x) for y in range(radius) for x in side if y > 0 or x > 0]
        self.ends = [(y, x) for y, x in offsets if y * y + x * x < radius * radius]
        self.cells = [_cells_to(*end) for end in self.ends]


def _cells_to(y: int, x: int) -> list[tuple[int, int]]:
    box = [(row, column) for row in range(y + 1) for column in range(min(x, 0), max(x, 0) + 1)]
    near = [cell for cell in box if (y * cell[1] - x * cell[0]) ** 2 < y * y + x * x]
    return sorted(near, key=lambda cell: abs(cell[0]) + abs(cell[1]))


@dataclass(frozen=True)
class CellLine:
    """The cells of a grid in a row, so that each offset is one step along it.

    Each row of the grid is followed by `reach` cells that lie outside; no offset is longer, so one that leaves the grid
    at either side ends on such cells. A margin before and after takes those that leave it above or below.

    Attributes:
        height: Height of the grid.
        width: Width of the grid.
        reach: The longest step along a row or a column.

    Examples:
        >>> import torch
        >>> line = CellLine.of(torch.zeros(3, 4), reach=2)
        >>> line.height, line.width
        (3, 4)
    """

    height: int
    width: int
    reach: int

    @classmethod
    def of(cls, grid: Tensor, reach: int) -> "CellLine":
        """Return the line of a grid (..., height, width)."""
        return cls(grid.shape[-2], grid.shape[-1], reach)

    @property
    def row(self) -> int:
        """Number of cells in a row, with those outside."""
        return self.width + self.reach

    @property
    def margin(self) -> int:
        """Number of cells before the first row, and after the last."""
        return self.reach * (self.row + 1)

    @cached_property
    def indices(self) -> Tensor:
        """Index of each of the rows' cells, int64 (height * row,)."""
        return self.margin + torch.arange(self.height * self.row)

    def step(self, offset: tuple[int, int]) -> int:
        """Return the step of an offset, rows down and columns right."""
        return offset[0] * self.row + offset[1]

    def write(self, grid: Tensor, outside: float) -> Tensor:
        """Return a grid (..., height, width) as a line, with a value for the cells outside."""
        rows = F.pad(grid, (0, self.reach), value=outside).flatten(-2)
        return self.with_margin(rows, outside)

    def with_margin(self, rows: Tensor, outside: float) -> Tensor:
        """Return rows (..., height * row) as a line."""
        return F.pad(rows, (self.margin, self.margin), value=outside)

    def after(self, step: int, line: Tensor) -> Tensor:
        """Return the values that lie a step after each of the rows' cells, a view (..., height * row)."""
        return line.narrow(-1, self.margin + step, self.height * self.row)

    def grid(self, rows: Tensor) -> Tensor:
        """Return rows (..., height * row) as a grid (..., height, width), a view."""
        return rows.reshape(*rows.shape[:-1], self.height, self.row)[..., : self.width]


def path_maxima(boundary: Tensor, paths: Paths) -> Tensor:
    """Return the strongest boundary on each path from each cell.

    Args:
        boundary: Strength from 0 to 1, (B, h, w).
        paths: P paths.

    Returns:
        (B, P, h, w); 1 for a path that leaves the grid. Differentiable; among equal cells the one nearest to the start
        gets the gradient.

    Examples:
        >>> path_maxima(torch.tensor([[[0.0, 0.3, 0.1]]]), Paths(2))[0, 0]  # with the right neighbour
        tensor([[0.3000, 0.3000, 1.0000]])
    """
    line = CellLine.of(boundary, paths.reach)
    values = line.write(boundary, outside=1)
    with torch.no_grad():
        steps = torch.stack([_strongest(line, values, [line.step(cell) for cell in cells]) for cells in paths.cells], 1)
        indices = steps.add_(line.indices.to(steps))
    maxima = values.gather(1, indices.flatten(1)).view(indices.shape)
    return line.grid(maxima)


def _strongest(line: CellLine, values: Tensor, steps: list[int]) -> Tensor:
    """Return the step after which each of the rows' cells finds the largest value, int64 (B, height * row)."""
    largest = line.after(steps[0], values).clone()
    strongest = torch.full_like(largest, steps[0], dtype=torch.int32)
    for step in steps[1:]:
        value = line.after(step, values)
        strongest = torch.where(value > largest, step, strongest)
        largest = torch.maximum(largest, value)
    return strongest.long()
