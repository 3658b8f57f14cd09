"""A dual problem solved by pair steps, on the CPU, among the samples that can still move.

A working set holds the samples that violate the optimality conditions, all that are between their bounds, and those at
a bound that nearly violate them (as in SVMlight, Joachims 1999, and LIBSVM's shrinking): a pair step costs operations
on so many numbers. Once a set is solved for the most part, the slopes of all samples follow by one product with the
kernel matrix, and tell the gap, and which samples are next.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from torch_svm_seg.svm.distances import Distances, DistancesOfAll, DistancesOfFew
from torch_svm_seg.svm.free_steps import step_of_free
from torch_svm_seg.svm.kernel_rows import KernelRows
from torch_svm_seg.svm.line_search import best_intercept
from torch_svm_seg.svm.pairs import Variables, take_steps
from torch_svm_seg.svm.problem import Problem, Solution
from torch_svm_seg.svm.spaces import quotient
from torch_svm_seg.tensors import position_hash

Array = NDArray[np.floating]
Indices = NDArray[np.integer]

# Pair steps that count as one step of the solver.
ROUND = 250
# A problem gets at most this many times as many pair steps as it has samples: where they do not suffice, Newton's do.
SWEEPS = 30
# A working set is solved until this part of its own duality gap is left.
GAP_LEFT = 0.1
# How near samples at a bound are to violating the conditions, in units of the largest violation, to be in the set.
NEAR = 0.2
# Where all rows of the kernel matrix are kept: the largest set, in units of all samples, at first, and after as many
# pair steps as there are samples. Until so few can move, all take part: it is their rows that the product needs.
FIRST_SHARE, SHARE = 0.35, 0.5
# Where they are not: samples in the first set, scattered; in a set with samples that nearly violate the conditions, if
# those between their bounds are not more than half as many; and bytes of any set's kernel matrix.
FIRST_SET, SET, SET_BYTES = 1024, 2048, 64 * 2**20
# Sets in a row that may leave the gap as it is, before it counts as all that the precision allows.
PATIENCE = 10
# Free variables that are stepped at once at most, where all rows are kept: a system's cost grows with their cube.
MOST_FREE = 500


def solve_by_pairs(
    kernel: KernelRows,
    problem: Problem,
    tol: float,
    max_iter: int,
    start: Solution | None = None,
    stored: np.dtype[np.floating] | None = None,
) -> Solution:
    """Solve a problem to a relative duality gap of ``tol``, or as far as a bounded number of pair steps leads.

    Args:
        kernel: Kernel matrix of all samples.
        problem: A single problem, P = 1, in double precision, on the CPU.
        tol: Relative duality gap to reach.
        max_iter: Steps at most, each of up to ``ROUND`` pairs, those of the start included.
        start: A solution to go on from.
        stored: Type that coefficients and intercept are stored in; the kernel's by default.

    Returns:
        The solution, whose element is the samples' coefficients.

    Examples:
        >>> from torch_svm_seg.svm.samples import GaussianSamples
        >>> kernel = KernelRows(GaussianSamples(torch.tensor([[[0.0], [99.0]]]), torch.ones(1, 1, 1)))
        >>> problem = Problem(torch.tensor([[1.0, -1.0]]).double(), torch.full((1, 2), 10.0).double())
        >>> solve_by_pairs(kernel, problem, tol=1e-3, max_iter=10).element.round(decimals=3).tolist()
        [[1.0, -1.0]]
    """
    dual, number = _Dual.of(kernel, problem, stored or kernel.dtype), problem.targets.shape[1]
    size = min(ROUND, number)
    taken = 0 if start is None else dual.go_on(start)
    most = min(max_iter, taken + SWEEPS * -(-number // size))
    found, best, fruitless = dual.solution(taken), np.inf, 0
    while taken < most and fruitless < PATIENCE and bool(found.unfinished(tol)):
        taken += dual.improve(size, most - taken, tol / 2 * float(found.objective), taken * size > number)
        found = dual.solution(taken)
        fruitless = 0 if float(found.gap) < best else fruitless + 1
        best = min(best, float(found.gap))
    return found


@dataclass
class _Dual:
    """One problem's dual variables.

    Attributes:
        kernel, problem: The problem.
        precision: Type that coefficients and intercept are stored in.
        targets, costs: Its targets and costs, (N,).
        ridge: What the squared hinge adds to the kernel's diagonal, (N,); 0 for the hinge.
        all: v, and the slopes y - K v - ridge v of the dual objective at v as it is stored.
        pairs: Pair steps since all free variables were stepped at once.
        wait: How many there have to be for each free variable.
    """

    kernel: KernelRows
    problem: Problem
    precision: np.dtype[np.floating]
    targets: Array
    costs: Array
    ridge: Array
    all: Variables
    pairs: int = 0
    wait: int = 1

    @classmethod
    def of(cls, kernel: KernelRows, problem: Problem, precision: np.dtype[np.floating]) -> "_Dual":
        """Return the start, v = 0."""
        targets, costs = problem.targets[0].double().numpy(), problem.costs[0].numpy()
        ridge, most = np.zeros_like(costs), costs
        if problem.squared:
            ridge, most = quotient((problem.costs > 0) / 2, problem.costs)[0].numpy(), np.where(costs > 0, np.inf, 0)
        lower, upper = np.where(targets > 0, 0, -most), np.where(targets > 0, most, 0)
        variables = Variables(np.zeros_like(costs), targets.copy(), lower, upper)
        return cls(kernel, problem, precision, targets, costs, ridge, variables)

    def go_on(self, start: Solution) -> int:
        """Take the dual variables of a solution; return the steps that it took."""
        signed = self.targets * self.costs * start.theta[0].numpy()
        self._move(np.arange(len(signed)), np.clip(signed, self.all.lower, self.all.upper))
        return int(start.iterations)

    def solution(self, iterations: int) -> Solution:
        """Return the dual point, the primal point that it makes, as it is stored, and their gap."""
        problem, signed, stored = self.problem, self.all.signed, self._stored(self.all.signed)
        values = self.targets - self.all.slopes - self.ridge * signed
        squared_norm, rest = stored @ values, np.abs(signed - stored)
        # |w|^2 of v itself is at most that of what is stored and of the rest.
        dual_squared_norm = squared_norm + 2 * rest @ np.abs(values) + (rest @ np.sqrt(self.kernel.diagonal)) ** 2
        squared_norms, dual_squared_norms = (
            torch.tensor([value], dtype=torch.float64) for value in (squared_norm, dual_squared_norm)
        )
        primal_values, element = torch.from_numpy(values)[None], torch.from_numpy(stored)[None]
        intercept = torch.from_numpy(best_intercept(problem, primal_values).numpy().astype(self.precision)).double()
        theta = quotient(problem.targets * torch.from_numpy(signed), problem.costs)
        objective = problem.primal(squared_norms, problem.targets * (primal_values + intercept))
        gap = (objective - problem.dual(dual_squared_norms, theta)).abs()  # below 0 it is rounding's, and says how much
        return Solution(element, intercept, theta, objective, gap, torch.tensor([iterations]))

    def improve(self, size: int, most: int, enough: float, late: bool) -> int:
        """Solve a working set for the most part; return the rounds taken.

        Args:
            size: Pairs in a round.
            most: Rounds at most.
            enough: Duality gap of the set that need not be improved on.
            late: Whether as many pair steps as there are samples have been taken.
        """
        largest = int((SHARE if late else FIRST_SHARE) * len(self.costs))
        few = self._set_of_rows(largest) if self.kernel.whole else self._set_of_blocks()
        if not len(few):  # all slopes are the same: rounding alone keeps the gap open
            return 0
        variables, distances, everyone = self.all.select(few), self._distances(few), len(few) == len(self.costs)
        enough, taken = max(enough, GAP_LEFT * self._gap(few, variables)), 1
        while take_steps(variables, distances, size) and taken < most and self._gap(few, variables) > enough:
            if everyone and variables.violating(NEAR).sum() <= largest:
                break
            taken += 1
            self._step_of_free(variables, distances, size)
        self._move(few, variables.signed)
        return taken

    def _step_of_free(self, variables: Variables, distances: Distances, pairs: int) -> None:
        """Step all free variables at once where they are few, after ``pairs`` more pair steps: they cost as much."""
        self.pairs += pairs
        free = variables.free()
        if self.kernel.whole and 1 < len(free) <= min(MOST_FREE, self.pairs / self.wait):
            self.wait = 1 if step_of_free(variables, distances, free) else 2 * self.wait
            self.pairs = 0

    def _set_of_rows(self, largest: int) -> Indices:
        """Return a working set where all rows of the kernel matrix are kept: (n,), n at most ``largest``, or all."""
        near = self.all.violating(NEAR)
        return near.nonzero()[0] if near.sum() <= largest else np.arange(len(near))

    def _set_of_blocks(self) -> Indices:
        """Return a working set (n,) where they are not, for which a block of the matrix is to be computed."""
        rising, falling = self.all.movable()
        steepest = rising.argmax(), falling.argmin()
        if not self.all.signed.any():
            usable = torch.from_numpy(self.costs > 0)[None]
            first = position_hash(usable).argsort(1)[0, : min(FIRST_SET, int(usable.sum()))].numpy()
            return np.union1d(first, steepest)
        free = int((np.isfinite(rising) & np.isfinite(falling)).sum())
        most = int((SET_BYTES / self.kernel.dtype.itemsize) ** 0.5)
        for near, largest in ((NEAR, max(SET, 2 * free)), (0.0, most)):
            chosen = self.all.violating(near)
            if chosen.sum() <= min(largest, most):
                return chosen.nonzero()[0]
        sides = [np.argpartition(-side, most // 2)[: most // 2] for side in (rising, -falling)]
        return np.unique(np.concatenate([*sides, steepest]))

    def _distances(self, few: Indices) -> Distances:
        """Return the distances of a few samples (n,), or of all."""
        if len(few) == len(self.costs):
            return DistancesOfAll(self.kernel, self.ridge)
        return DistancesOfFew(self.kernel, few, self.ridge[few])

    def _gap(self, few: Indices, variables: Variables) -> float:
        """Return what a few samples add to the duality gap, with the intercept in the middle of their slopes."""
        rising, falling = variables.movable()
        signed, ridge = variables.signed, self.ridge[few]
        errors = variables.slopes + ridge * signed - (rising.max() + falling.min()) / 2
        losses = np.maximum(self.targets[few] * errors, 0)
        losses = np.square(losses) if self.problem.squared else losses
        return float((self.costs[few] * losses + ridge * np.square(signed) / 2 - signed * errors).sum())

    def _move(self, few: Indices, signed: Array) -> None:
        """Give a few samples new variables."""
        change = np.zeros_like(self.costs)
        change[few] = self._stored(signed) - self._stored(self.all.signed[few])
        self.all.slopes -= self.kernel.product(change)
        self.all.slopes[few] -= self.ridge[few] * (signed - self.all.signed[few])
        self.all.signed[few] = signed

    def _stored(self, signed: Array) -> Array:
        """Return variables as they are stored."""
        return signed.astype(self.precision).astype(np.float64)
