r"""Solves batches of binary support vector machines to a certified duality gap.

The problem, with targets y in {+1, -1} and costs c_i = C s_i:

    minimise over w, b:   1/2 |w|^2  +  sum_i c_i loss(y_i (w . phi(x_i) + b)),

loss(m) = max(0, 1 - m) (hinge) or max(0, 1 - m)^2 (squared hinge); the intercept b is not penalised.

Two methods keep a feasible dual point at every step, so that the duality gap is known, and is what they stop by: steps
of pairs of dual variables (``torch_svm_seg.svm.pairs``), and Newton's (``torch_svm_seg.svm.newton``).
``solve_in_stages`` uses both; ``solve`` takes Newton's, on a growing working set of samples (Joachims, 1999): only
samples that can carry weight in the solution ever meet each other in a kernel matrix.

The derivation, a table of symbols and the sources: ``docs/solver.md``.
"""

from dataclasses import replace

import torch
from torch import Tensor

from torch_svm_seg.svm.line_search import best_intercept
from torch_svm_seg.svm.newton import minimise, zero
from torch_svm_seg.svm.problem import Problem, Solution
from torch_svm_seg.svm.samples import Samples
from torch_svm_seg.tensors import first_true, position_hash, spread_rows

# Samples in the first working set, and the relative gap that it is solved to.
FIRST_WORKING_SET, ROUGH_TOLERANCE = 1024, 0.1
# Margin beyond 1 that a sample may have by a rough solution to be part of the next working set.
ROOM = 0.5


def solve(
    samples: Samples,
    problem: Problem,
    tol: float = 1e-3,
    max_iter: int = 1000,
    start: Solution | None = None,
    patience: int | None = None,
) -> Solution:
    """Solve a batch of problems until primal - dual <= tol * primal in each.

    Args:
        samples: The mapped samples.
        problem: What to solve.
        tol: Relative duality gap to reach.
        max_iter: Steps at most, those of the start included; the solution's gap tells whether they sufficed.
        start: A rough solution to go on from.
        patience: Steps in a row that may leave the gap of a working set as it is, before it is given up; or any.
    """
    problem = Problem(problem.targets.double(), problem.costs.double(), problem.squared)
    usable = problem.costs > 0
    kept, whole = _first_working_set(usable) if start is None else (_carrying(samples, problem, start), True)
    rows, valid = first_true(kept)
    part, space = problem.restrict(rows, valid), samples.space(rows)
    found = zero(space, part) if start is None else _restrict(start, samples, rows, valid)
    while True:
        # Until all samples have been checked, more than a rough solution is wasted.
        enough = tol / 2 if whole else max(tol, ROUGH_TOLERANCE)
        found = minimise(space, part, found, enough, max_iter, patience)
        stalled = patience is not None and bool(found.unfinished(enough).any())
        theta = spread_rows(found.theta * valid, rows, usable.shape[1])
        values = samples.evaluate(rows, found.element)
        # Samples outside the working set add to the primal objective alone: their dual variables are 0.
        margins = problem.targets * (values + found.intercept)
        needed = (margins < 1 + (0 if whole else ROOM)) & usable
        intercept = best_intercept(problem, values)
        change = problem.total_loss(problem.targets * (values + intercept)) - problem.total_loss(margins, kept)
        element, objective = samples.whole(rows, found.element), found.objective + change
        gap = (found.gap + change).abs()
        found = Solution(element, intercept, theta, objective, gap, found.iterations)
        # A gap that is no number stays so.
        if stalled or not bool((gap > tol * objective).any()) or int(found.iterations.max()) >= max_iter:
            return found
        kept, whole = needed | (kept if whole else theta > 0), True
        rows, valid = first_true(kept)
        del space  # its matrix makes room for the next one's
        part, space = problem.restrict(rows, valid), samples.space(rows)
        found = _restrict(found, samples, rows, valid)


def _first_working_set(usable: Tensor) -> tuple[Tensor, bool]:
    """Return a scattered part of the samples, bool (P, N), and whether that is all that are usable, (P, N)."""
    if bool((usable.sum(1) <= 2 * FIRST_WORKING_SET).all()):
        return usable, True
    rank = position_hash(usable).argsort(1).argsort(1)
    return usable & (rank < FIRST_WORKING_SET), False


def _carrying(samples: Samples, problem: Problem, solution: Solution) -> Tensor:
    """Return which samples carry weight in a solution, or would in a better one, bool (P, N)."""
    everyone = torch.arange(problem.targets.shape[1], device=problem.targets.device).expand_as(problem.targets)
    margins = problem.targets * (samples.evaluate(everyone, solution.element) + solution.intercept)
    return (margins < 1) & (problem.costs > 0) | (solution.theta > 0)


def _restrict(solution: Solution, samples: Samples, rows: Tensor, valid: Tensor) -> Solution:
    """Return a solution of all samples as one of the working set ``rows`` (P, n)."""
    theta = solution.theta.gather(1, rows) * valid
    return replace(solution, element=samples.part(rows, solution.element), theta=theta)
