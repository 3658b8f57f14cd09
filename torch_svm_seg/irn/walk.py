"""A random walk between the cells of a grid that belong together.

A step gives each cell the mean of its neighbours' values, weighted by their affinities. Affinities reach a few cells
only: the matrix of all pairs, (h w)^2 numbers, is a band of few diagonals, and is kept and applied as these.

Many steps of a reversible walk take far fewer products. With T the matrix of a step, whose eigenvalues lie in [-1, 1],

    T^n = sum over k of p_k C_k(T),

where C_k are the Chebyshev polynomials and p_k is the probability that n steps of +-1 end k away from their start. So
nothing far beyond k = sqrt(n) matters (Sachdeva and Vishnoi, Faster algorithms via approximation theory, 2014, section
3): 256 steps take 91 products to a precision of 1e-8.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from torch_svm_seg.irn.paths import CellLine, Paths, path_maxima

_PRECISION = 1e-8


class RandomWalk:
    """The walk on images whose class boundaries are known (Ahn et al., CVPR 2019, section 5.1).

    The affinity of two cells is (1 - the strongest boundary between them) to a power, that of a cell to itself is 1.

    Args:
        boundary: Strength from 0 to 1, (B, h, w).
        paths: Paths to the cells that are neighbours.
        power: Power of the affinities; larger ones make weak boundaries count.

    Examples:
        >>> boundary = torch.tensor([[[0.0, 0.0, 1.0, 0.0, 0.0]]])
        >>> walk = RandomWalk(boundary, Paths(2), power=10)
        >>> values = torch.tensor([[[[1.0, 0.0, 0.0, 0.0, 2.0]]]])
        >>> [round(value, 3) for value in walk(values, 64).flatten().tolist()]
        [0.5, 0.5, 0.0, 1.0, 1.0]
    """

    def __init__(self, boundary: Tensor, paths: Paths, power: float) -> None:
        self._line = CellLine.of(boundary, paths.reach)
        affinity = self._line.write((1 - path_maxima(boundary, paths)) ** power, outside=0)  # (B, P, length)
        forward = [self._line.step(end) for end in paths.ends]
        # A cell's affinity to one behind it stands with the one behind, where the path starts.
        self._steps = [0, *forward, *(-step for step in forward)]
        ahead = [self._line.after(0, affinity[:, path]) for path in range(len(forward))]
        behind = [self._line.after(-step, affinity[:, path]) for path, step in enumerate(forward)]
        weights = torch.stack([torch.ones_like(ahead[0]), *ahead, *behind])
        self._weights = (weights / weights.sum(0))[:, :, None]  # (2 P + 1, B, 1, cells)

    def __call__(self, values: Tensor, steps: int) -> Tensor:
        """Return the values (B, K, h, w) after a number of steps; differentiable with respect to them."""
        rows = self._line.after(0, self._line.write(values, outside=0))
        return self._line.grid(repeated(self._step, rows, steps))

    def _step(self, rows: Tensor) -> Tensor:
        """Return values (B, K, cells) after one step."""
        values = self._line.with_margin(rows, outside=0)
        result = torch.zeros_like(rows)
        for weight, step in zip(self._weights, self._steps, strict=True):
            result.addcmul_(weight, self._line.after(step, values))
        return result


def repeated(step: Callable[[Tensor], Tensor], values: Tensor, number: int) -> Tensor:
    """Apply a linear map of eigenvalues in [-1, 1] a number of times, by Chebyshev polynomials.

    Args:
        step: The map.
        values: Tensor that it is applied to.
        number: Number of times, at least 0.

    Examples:
        >>> repeated(lambda values: 0.5 * values, torch.tensor([8.0]), 3)
        tensor([1.])
    """
    if number < 0:
        raise ValueError(f"number: expected at least 0, got {number}")
    shares = _shares(number)
    result = shares[0] * values
    before, current = values, values
    for order, share in enumerate(shares[1:], start=1):
        # C_1(x) = x, C_k(x) = 2 x C_{k-1}(x) - C_{k-2}(x).
        before, current = current, step(current) if order == 1 else 2 * step(current) - before
        if share:
            result = result + share * current
    return result


def _shares(number: int) -> list[float]:
    """Return the share of each Chebyshev polynomial in x^number; those left out sum to less than the precision."""
    shares = [
        (2 if order else 1) * math.comb(number, (number - order) // 2) / 2**number if (number - order) % 2 == 0 else 0.0
        for order in range(number + 1)
    ]
    left_out = 0.0
    while left_out + shares[-1] < _PRECISION:
        left_out += shares.pop()
    return shares
