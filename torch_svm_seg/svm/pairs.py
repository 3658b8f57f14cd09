"""Sequential minimal optimization: a dual problem solved two variables at a time, on the CPU.

With v_i = y_i alpha_i, a step moves v_i up and v_j down by the same amount, which keeps the sum of v, to the best point
between their bounds. The pair is chosen by second-order information (Fan, Chen and Lin, JMLR 2005): i has the steepest
slope, and j promises the largest gain together with i. A step reads two rows of the kernel matrix, where a Newton step
factors that of all samples near the margin: with wrong labels these are many, and which they are changes at each step.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torch_svm_seg.svm.kernel_rows import KernelRows
from torch_svm_seg.svm.line_search import best_intercept
from torch_svm_seg.svm.problem import Problem, Solution
from torch_svm_seg.svm.spaces import quotient

Array = NDArray[np.floating]

# Pair steps that count as one step of the solver: the gap is known after each such round.
ROUND = 500
# A problem gets at most this many times as many pair steps as it has samples: where they do not suffice, Newton's do.
SWEEPS = 30
# What is added to the curvature along a pair, in units of the kernel's diagonal: equal samples have none.
LEAST_CURVATURE = 1e-4


def solve_by_pairs(kernel: KernelRows, problem: Problem, tol: float, max_iter: int) -> Solution:
    """Solve a problem to a relative duality gap of ``tol``, or as far as a bounded number of pair steps leads.

    Args:
        kernel: Kernel matrix of all samples.
        problem: A single problem, P = 1, in double precision, on the CPU.
        tol: Relative duality gap to reach.
        max_iter: Steps at most, each of up to ``ROUND`` pairs.

    Returns:
        The solution, whose element is the samples' coefficients.

    Example:
        >>> kernel = KernelRows(lambda chosen: torch.eye(2)[chosen], diagonal=torch.ones(2))
        >>> problem = Problem(torch.tensor([[1.0, -1.0]]).double(), torch.full((1, 2), 10.0).double())
        >>> solve_by_pairs(kernel, problem, tol=1e-3, max_iter=10).element.tolist()
        [[1.0, -1.0]]
    """
    number = problem.targets.shape[1]
    size = min(ROUND, number)
    most = min(max_iter, SWEEPS * -(-number // size))
    pairs = _Pairs.of(kernel, problem, torch.zeros_like(problem.targets))
    found, moved, taken = pairs.solution(0), True, 0
    while moved and taken < most and bool(found.unfinished(tol)):
        moved, taken = pairs.take_steps(size), taken + 1
        found = pairs.solution(taken)
        if not moved or taken == most or not bool(found.unfinished(tol)):
            # The rounding of many small changes goes.
            pairs = _Pairs.of(kernel, problem, found.theta)
            found = pairs.solution(taken)
    return found


@dataclass
class _Pairs:
    """One problem's variables; numpy's operations on a few thousand numbers are quicker than tensors'.

    Attributes:
        kernel, problem: The problem.
        ridge: What the squared hinge adds to the kernel's diagonal, (N,); 0 for the hinge.
        lower, upper: Bounds of v, (N,).
        signed: v = y alpha, (N,).
        slopes: Those of the dual objective, y - (K + diag(ridge)) v, (N,).
    """

    kernel: KernelRows
    problem: Problem
    ridge: Array
    lower: Array
    upper: Array
    signed: Array
    slopes: Array

    @classmethod
    def of(cls, kernel: KernelRows, problem: Problem, theta: Tensor) -> "_Pairs":
        """Return the state at dual variables theta (1, N)."""
        targets, costs = problem.targets[0].numpy(), problem.costs[0].numpy()
        ridge, most = np.zeros_like(costs), costs
        if problem.squared:
            ridge, most = quotient((problem.costs > 0) / 2, problem.costs)[0].numpy(), np.where(costs > 0, np.inf, 0)
        lower, upper = np.where(targets > 0, 0, -most), np.where(targets > 0, most, 0)
        signed = targets * costs * theta[0].numpy()
        # Of the coefficients that are stored, whose gap is the one to know.
        slopes = targets - kernel.product(signed.astype(kernel.dtype).astype(np.float64)) - ridge * signed
        return cls(kernel, problem, ridge, lower, upper, signed, slopes)

    def solution(self, iterations: int) -> Solution:
        """Return the dual point, the primal point that it makes, as it is stored, and their gap."""
        problem, dtype = self.problem, self.kernel.dtype
        stored = self.signed.astype(dtype).astype(np.float64)
        values = problem.targets[0].numpy() - self.slopes - self.ridge * self.signed
        norm, rest = stored @ values, np.abs(self.signed - stored)
        # |w|^2 of v itself is at most that of what is stored and of the rest.
        dual_norm = norm + 2 * rest @ np.abs(values) + (rest @ np.sqrt(self.kernel.diagonal)) ** 2
        norms, dual_norms = (torch.tensor([value], dtype=torch.float64) for value in (norm, dual_norm))
        primal_values, element = torch.from_numpy(values)[None], torch.from_numpy(stored)[None]
        intercept = best_intercept(problem, primal_values).to(torch.from_numpy(self.kernel.diagonal).dtype).double()
        theta = quotient(problem.targets * torch.from_numpy(self.signed), problem.costs)
        objective = problem.primal(norms, problem.targets * (primal_values + intercept))
        gap = (objective - problem.dual(dual_norms, theta)).abs()  # below 0 it is rounding's, and says how much
        return Solution(element, intercept, theta, objective, gap, torch.tensor([iterations]))

    @np.errstate(all="ignore")  # numbers that overflow end in a gap that is no number, which is reported
    def take_steps(self, number: int) -> bool:
        """Move up to ``number`` pairs; return whether any was moved."""
        kernel, signed, slopes, dtype = self.kernel, self.signed, self.slopes, self.kernel.dtype
        half = ((kernel.diagonal + self.ridge + LEAST_CURVATURE * kernel.diagonal.mean()) / 2).astype(dtype)
        may_rise = np.where(signed < self.upper, 0, -np.inf).astype(dtype)
        may_fall = np.where(signed > self.lower, 0, np.inf).astype(dtype)
        # In the kernel's precision: sums of small changes are kept apart from what they change.
        before, (change, now, gain, curvature, zero) = slopes.astype(dtype), np.zeros((5, len(slopes)), dtype)
        for _ in range(number):
            np.add(before, change, out=now)
            i = int(np.add(now, may_rise, out=gain).argmax())
            first = kernel.fetch(i, gain)
            np.subtract(gain[i], np.add(now, may_fall, out=gain), out=gain)
            np.maximum(gain, zero, out=gain)
            np.subtract(half, first, out=curvature)
            curvature += half[i]
            j = int(np.divide(np.square(gain, out=gain), curvature, out=gain).argmax())
            if not gain[j] > 0:  # no pair promises any
                break
            second = kernel.fetch(j, gain)
            step = self._move(i, j, float(now[i] - now[j]) / (2 * float(curvature[j])))
            np.subtract(second, first, out=curvature)
            curvature *= dtype.type(step)
            change += curvature
            change[i] -= step * self.ridge[i]
            change[j] += step * self.ridge[j]
            for k in (i, j):
                may_rise[k] = 0 if signed[k] < self.upper[k] else -np.inf
                may_fall[k] = 0 if signed[k] > self.lower[k] else np.inf
        slopes += change
        return bool(change.any())

    def _move(self, i: int, j: int, step: float) -> float:
        """Move v_i up and v_j down by a step, or as far as their bounds allow; return how far."""
        rise, fall = self.upper[i] - self.signed[i], self.signed[j] - self.lower[j]
        step = min(step, rise, fall)
        self.signed[i] = self.upper[i] if step == rise else self.signed[i] + step
        self.signed[j] = self.lower[j] if step == fall else self.signed[j] - step
        return step
