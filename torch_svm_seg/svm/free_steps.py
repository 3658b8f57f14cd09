"""A step of all dual variables that are between their bounds at once, for pair steps to go on from.

Pair steps soon know which variables are at a bound, but need many steps to balance those that are between: where these
are few, one linear system does it. Its solution leaves the bounds; what leaves them stays there, and the others are
solved for again (block pivoting, Júdice and Pires 1994), until none does.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from torch_svm_seg.svm.distances import Distances
from torch_svm_seg.svm.pairs import Variables
from torch_svm_seg.svm.spaces import solve_gram, with_ones, without_border

Indices = NDArray[np.integer]

# The step is given up where more than this part of the variables leave their bounds at once: they are not settled.
MOST_LEAVING = 0.3


@np.errstate(all="ignore")  # numbers that overflow end in a gap that is no number, which is reported
def step_of_free(variables: Variables, distances: Distances, free: Indices) -> bool:
    """Move the variables ``free`` (m,), which are between their bounds; return whether any was moved.

    Examples:
        >>> from torch_svm_seg.svm.distances import DistancesOfAll
        >>> from torch_svm_seg.svm.kernel_rows import KernelRows
        >>> from torch_svm_seg.svm.samples import GaussianSamples
        >>> kernel = KernelRows(GaussianSamples(torch.tensor([[[0.0], [99.0]]]), torch.ones(1, 1, 1)))
        >>> signed, slopes = np.array([0.5, -0.5]), np.array([0.5, -0.5])
        >>> variables = Variables(signed, slopes, lower=np.array([0.0, -5]), upper=np.array([5.0, 0]))
        >>> step_of_free(variables, DistancesOfAll(kernel, np.zeros(2)), np.arange(2))
        True
        >>> variables.signed.round(2).tolist()
        [1.0, -1.0]
    """
    signed, slopes = variables.signed[free], variables.slopes[free]
    rows = np.stack([distances.row(int(one), variables.slopes) for one in free])
    half = distances.half[free]
    gram = half[:, None] + half + distances.least - rows[:, free]
    move = _stationary(
        gram, float(distances.least), slopes, variables.lower[free] - signed, variables.upper[free] - signed
    )
    if move is None:
        return False
    change = (move.astype(rows.dtype) @ rows).astype(np.float64)
    gain, curvature = slopes @ move, -(move @ change[free])
    if not gain > 0:
        return False
    # What was added to the diagonal made the move shorter than is best: it is stretched as far as the bounds are.
    room = np.where(move > 0, variables.upper[free] - signed, variables.lower[free] - signed) / move
    step = min(gain / max(curvature, np.finfo(float).tiny), max(1.0, float(np.nanmin(room))))
    variables.signed[free] = np.clip(signed + step * move, variables.lower[free], variables.upper[free])
    variables.slopes += step * change
    return True


def _stationary(
    gram: NDArray[np.floating],
    ridge: float,
    slopes: NDArray[np.floating],
    low: NDArray[np.floating],
    high: NDArray[np.floating],
) -> NDArray[np.floating] | None:
    """Return the move (m,) from ``low`` to ``high`` that balances the slopes, or None where it is not near."""
    matrix, right, inside = torch.from_numpy(gram)[None], torch.from_numpy(slopes), np.ones(len(slopes), bool)
    move = np.zeros(len(slopes))
    while inside.sum() > 1:
        valid = torch.from_numpy(inside)[None]
        left = (right - torch.from_numpy(gram @ move.astype(gram.dtype)))[None]
        diagonal = torch.full_like(left, ridge)
        found, _ = without_border(
            solve_gram(matrix, diagonal, valid, with_ones(left) * valid[..., None]), torch.tensor([[-move.sum()]])
        )
        wanted = np.where(inside, found[0].numpy(), move)
        leaving = (wanted < low) | (wanted > high)
        if not leaving.any():
            return wanted
        if leaving.sum() > MOST_LEAVING * inside.sum():
            return None
        move = np.where(leaving, np.clip(wanted, low, high), move * ~inside)
        inside &= ~leaving
    return None
