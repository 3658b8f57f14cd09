"""Sequential minimal optimization: pair steps, two dual variables at a time.

With v_i = y_i alpha_i, a step moves v_i up and v_j down by the same amount, which keeps the sum of v, to the best point
between their bounds. The pair is chosen by second-order information (Fan, Chen and Lin, JMLR 2005): i has the steepest
slope, and j promises the largest gain together with i. A step reads two rows of the kernel matrix, where a Newton step
factors that of all samples near the margin: with wrong labels these are many, and which they are changes at each step.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from torch_svm_seg.svm.distances import Distances

Array = NDArray[np.floating]


@dataclass
class Variables:
    """Dual variables of n samples; numpy's operations on a few thousand numbers are quicker than tensors'.

    Attributes:
        signed: v = y alpha, (n,).
        slopes: Slopes of the dual objective in v, up to a number that all share, (n,).
        lower, upper: Bounds of v, (n,).

    Examples:
        >>> zero = np.zeros(2)
        >>> Variables(zero, slopes=np.array([1.0, -1.0]), lower=zero - [0, 5], upper=zero + [5, 0]).movable()
        (array([  1., -inf]), array([inf, -1.]))
    """

    signed: Array
    slopes: Array
    lower: Array
    upper: Array

    def select(self, few: NDArray[np.integer]) -> "Variables":
        """Return those of a few samples, by their indices."""
        return Variables(self.signed[few], self.slopes[few], self.lower[few], self.upper[few])

    def movable(self) -> tuple[Array, Array]:
        """Return the slopes (n,) of what may rise, -inf for the others; and of what may fall, inf for the others."""
        rising = np.where(self.signed < self.upper, self.slopes, -np.inf)
        return rising, np.where(self.signed > self.lower, self.slopes, np.inf)

    def free(self) -> NDArray[np.integer]:
        """Return which are between their bounds, (m,)."""
        return ((self.signed > self.lower) & (self.signed < self.upper)).nonzero()[0]

    def violating(self, near: float) -> NDArray[np.bool_]:
        """Return which violate the optimality conditions, or miss that by ``near`` times the largest violation; (n,).

        Variables between their bounds always do, unless their slopes are the same.
        """
        rising, falling = self.movable()
        steepest, flattest = rising.max(), falling.min()
        middle, reach = (steepest + flattest) / 2, near * (steepest - flattest) / 2
        chosen: NDArray[np.bool_] = (rising > middle - reach) | (falling < middle + reach)
        return chosen


@np.errstate(all="ignore")  # numbers that overflow end in a gap that is no number, which is reported
def take_steps(variables: Variables, distances: Distances, number: int) -> bool:
    """Move up to ``number`` pairs; return whether any was moved.

    Examples:
        >>> import torch
        >>> from torch_svm_seg.svm.distances import DistancesOfAll
        >>> from torch_svm_seg.svm.kernel_rows import KernelRows
        >>> from torch_svm_seg.svm.samples import GaussianSamples
        >>> kernel = KernelRows(GaussianSamples(torch.tensor([[[0.0], [99.0]]]), torch.ones(1, 1, 1)))
        >>> zero, slopes = np.zeros(2), np.array([1.0, -1.0])
        >>> variables = Variables(zero, slopes, lower=zero - [0, 5], upper=zero + [5, 0])
        >>> take_steps(variables, DistancesOfAll(kernel, zero), 5), variables.signed.round(2).tolist()
        (True, [1.0, -1.0])
    """
    dtype, signed = distances.half.dtype, variables.signed.tolist()
    lower, upper = variables.lower.tolist(), variables.upper.tolist()
    # The slopes of all samples, and of those that may rise and that may fall: all change alike.
    state = np.stack([variables.slopes, *variables.movable()]).astype(dtype)
    slopes, rising, falling = state
    gain, change, zero = np.zeros((3, len(slopes)), dtype)
    for _ in range(number):
        i = int(rising.argmax())
        near = distances.row(i, rising)
        np.maximum(np.subtract(rising[i], falling, out=gain), zero, out=gain)
        j = int(np.divide(np.square(gain, out=gain), near, out=gain).argmax())
        if not gain[j] > 0:  # no pair promises any
            break
        room, floor = upper[i] - signed[i], signed[j] - lower[j]
        step = min(float(rising[i] - falling[j]) / (2 * float(near[j])), room, floor)
        signed[i] = upper[i] if step == room else signed[i] + step
        signed[j] = lower[j] if step == floor else signed[j] - step
        np.subtract(near, distances.row(j, gain), out=change)
        state += np.multiply(change, dtype.type(step), out=change)
        for k in (i, j):
            rising[k] = slopes[k] if signed[k] < upper[k] else -np.inf
            falling[k] = slopes[k] if signed[k] > lower[k] else np.inf
    moved: bool = signed != variables.signed.tolist()
    variables.signed, variables.slopes = np.array(signed), slopes.astype(np.float64)
    return moved
