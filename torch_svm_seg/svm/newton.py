"""Newton's steps: the smoothed primal problem of a working set, and the multipliers that make its solution exact.

The algorithm is a proximal method of multipliers whose subproblems are minimised by a semismooth Newton method (Li,
Sun and Toh, SIAM J. Optim. 2018; Yin and Li, 2019; for the squared hinge it reduces to the finite Newton method of
Keerthi and DeCoste, JMLR 2005, and Chapelle, Neural Computation 2007). With alpha_i = c_i theta_i, it iterates

    theta_i = clamp(shift_i + (1 - m_i) / width, 0, 1)                   (dual variables at the current margins m)
    w      <- w + step * Newton direction of the smoothed objective       (only samples with 0 < theta < 1 enter)
    shift  <- theta                                                       (once the subproblem is solved well enough)

A Newton system has the size of the set of samples inside the smoothing zone, and ``theta`` is a feasible dual point at
every step. Problems come in batches: P problems are solved at once, and one that is done stands still.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from torch_svm_seg.svm.line_search import Line, minimum_along, step_along
from torch_svm_seg.svm.problem import Problem, Solution
from torch_svm_seg.svm.smoothing import Smoothed
from torch_svm_seg.svm.spaces import Space
from torch_svm_seg.tensors import first_true, on_cpu

SHORT_STEP = 0.1
# A step is good where the slope along it has fallen to this part of its start.
SLOPE_LEFT = 0.1
# A subproblem is solved well enough when its own gap is this part of the whole gap and of the multipliers' move.
SUBPROBLEM_TOLERANCE = 0.3

# A step is fruitful that makes the gap so much smaller than the smallest before.
FRUITFUL = 0.9


def zero(space: Space, problem: Problem) -> Solution:
    """Return the start of everything: w = 0."""
    theta = torch.zeros_like(problem.targets)
    zero = theta.sum(1)
    return Solution(space.combine(theta), zero[:, None], theta, zero, zero, zero.long())


@dataclass(frozen=True)
class _Point:
    """An element of a space, (P, E), and its values at the samples, (P, n)."""

    element: Tensor
    values: Tensor

    def norm(self, space: Space) -> Tensor:
        """Return its squared norm, (P,)."""
        return space.inner(self.element, self.element, self.values)

    def moved(self, step: Tensor | float, direction: "_Point") -> "_Point":
        """Return the point a step (P, 1) further along a direction."""
        return _Point(self.element + step * direction.element, self.values + step * direction.values)


def minimise(
    space: Space, problem: Problem, start: Solution, tol: float, max_iter: int, patience: int | None = None
) -> Solution:
    """Solve problems on their own samples alone, by the method of multipliers.

    Args:
        space: The space of the samples.
        problem: What to solve, in double precision.
        start: Where to start.
        tol: Relative duality gap to reach.
        max_iter: Steps at most, those of the start included.
        patience: Steps in a row that may leave the gap as it is; as many as there are by default.
    """
    best, fruitless = torch.full_like(start.objective, torch.inf), torch.zeros_like(start.iterations)
    smoothed, intercept, iterations = Smoothed.around(problem, start.theta), start.intercept, start.iterations
    primal = _Point(start.element, space.evaluate(start.element))
    dual = _Point(torch.zeros_like(primal.element), torch.zeros_like(primal.values))
    while True:
        margins = problem.targets * (primal.values + intercept)
        balance = minimum_along(Line(margins, problem.targets), smoothed)
        intercept, margins = intercept + balance, problem.targets * (primal.values + intercept + balance)
        theta, slopes = smoothed.theta(margins)
        element = space.combine(problem.costs * theta * problem.targets)
        dual = _Point(element, space.evaluate_near(element, dual.element, dual.values))
        objective = problem.primal(primal.norm(space), margins)
        # A gap below 0 is rounding's, and says how much that is.
        gap = (objective - problem.dual(dual.norm(space), theta)).abs()
        running = gap > tol * objective
        fruitless = torch.where(gap < FRUITFUL * best, 0, fruitless + 1)
        best = torch.minimum(best, gap)
        stalled = fruitless >= (max_iter if patience is None else patience)
        if not bool((running & ~stalled).any() & (iterations < max_iter).all()):
            return Solution(primal.element, intercept, theta, objective, gap, iterations)
        iterations = iterations + running
        residual = primal.moved(-1, dual)
        if not problem.squared:
            settled = running & _is_solved(smoothed, theta, residual.norm(space) / 2, gap)
            smoothed, running = smoothed.moved(settled, theta), running & ~settled
            # A GPU rather takes a step of no length than waits for this.
            if on_cpu(running) and not bool(running.any()):
                continue
        direction, turn = _newton(space, slopes * running[:, None], residual)
        step = torch.where(running[:, None], _step(space, smoothed, margins, theta, primal, direction, turn), 0)
        # A short step: many samples outside the zone were about to enter it, and a wider one has to know of them.
        smoothed = smoothed.widened(running & (step[:, 0] < SHORT_STEP))
        primal, intercept = primal.moved(step, direction), intercept + step * turn


def _is_solved(smoothed: Smoothed, theta: Tensor, subproblem_gap: Tensor, gap: Tensor) -> Tensor:
    """Return which smoothed problems are solved well enough to move their multipliers to theta, bool (P,)."""
    # Moving them on the ground of a coarser solution can circle.
    return subproblem_gap <= SUBPROBLEM_TOLERANCE * torch.minimum(gap, smoothed.worth_of_move(theta))


def _newton(space: Space, slopes: Tensor, residual: _Point) -> tuple[_Point, Tensor]:
    """Return Newton's direction in the element and in the intercept (P, 1), from the slopes (P, n) of the samples."""
    rows, _ = first_true(slopes > 0)
    element, values, turn = space.newton(rows, slopes.gather(1, rows), residual.element, residual.values)
    return _Point(element, values), turn


def _step(
    space: Space, smoothed: Smoothed, margins: Tensor, theta: Tensor, primal: _Point, direction: _Point, turn: Tensor
) -> Tensor:
    """Return how far to go along Newton's direction, (P, 1)."""
    problem = smoothed.problem
    change = problem.targets * (direction.values + turn)
    slope = space.inner(primal.element, direction.element, direction.values)[:, None]
    falling = slope - (problem.costs * theta * change).sum(1, keepdim=True)
    line = Line(margins, change, slope, direction.norm(space)[:, None])
    return step_along(line, smoothed, SLOPE_LEFT * falling.abs())
