"""Newton's steps: the smoothed primal problem of a working set, and the multipliers that make its solution exact.

The algorithm is a proximal method of multipliers whose subproblems are minimised by a semismooth Newton method (Li,
Sun and Toh, SIAM J. Optim. 2018; Yin and Li, 2019; for the squared hinge it reduces to the finite Newton method of
Keerthi and DeCoste, JMLR 2005, and Chapelle, Neural Computation 2007). With alpha_i = c_i theta_i, it iterates

    theta_i = clamp(shift_i + (1 - m_i) / width, 0, 1)                   (dual variables at the current margins m)
    w      <- w + step * Newton direction of the smoothed objective       (only samples with 0 < theta < 1 enter)
    shift  <- theta                                                       (once the subproblem is solved well enough)

A Newton system has the size of the set of samples inside the smoothing zone, and ``theta``, its heavier class made
smaller where the intercept is not exact, is a feasible dual point at every step. Problems come in batches: P problems
are solved at once, and one that is done stands still.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torch_svm_seg.svm.line_search import Line, LineSearch, line_search
from torch_svm_seg.svm.problem import Problem, Solution
from torch_svm_seg.svm.smoothing import Smoothed
from torch_svm_seg.svm.spaces import Space
from torch_svm_seg.tensors import column, on_host

SHORT_STEP = 0.1
# A subproblem is solved well enough when its own gap is this part of the whole gap and of the multipliers' move.
SUBPROBLEM_TOLERANCE = 0.3

# A step is fruitful that makes the gap so much smaller than the smallest before.
FRUITFUL = 0.9


def zero(space: Space, problem: Problem) -> Solution:
    """Return the start of everything: w = 0."""
    theta = torch.zeros_like(problem.targets)
    none = theta.sum(1)
    return Solution(space.combine(theta), none[:, None], theta, none, none, none.long())


@dataclass(frozen=True)
class _Point:
    """An element of a space, (P, E), and its values at the samples, (P, n)."""

    element: Tensor
    values: Tensor

    def squared_norm(self, space: Space) -> Tensor:
        """Return its squared norm, (P,)."""
        return space.inner(self.element, self.element, self.values)

    def moved(self, step: Tensor, direction: "_Point") -> "_Point":
        """Return the point a step (P, 1) further along a direction."""
        return _Point(
            torch.addcmul(self.element, step, direction.element), torch.addcmul(self.values, step, direction.values)
        )


@dataclass(frozen=True)
class _State:
    """A primal and a dual point of P smoothed problems, and what is known of them.

    Attributes:
        primal: w, and its values at the samples.
        intercept: The intercept (P, 1) that is best for it.
        dual: The combination of the samples by the dual variables.
        residual: Their difference, the gradient of the smoothed problems in w.
        ramp: Dual variables before they are clamped, (P, n).
        theta: Dual variables alpha / cost, (P, n).
        slopes: Their slopes -d alpha / d margin, (P, n).
        objective: Primal objective, (P,).
        gap: Duality gap, (P,).
    """

    primal: _Point
    intercept: Tensor
    dual: _Point
    residual: _Point
    ramp: Tensor
    theta: Tensor
    slopes: Tensor
    objective: Tensor
    gap: Tensor


class _Progress:
    """What the host knows of P problems, and decides by: NumPy's arrays, for which no device is waited."""

    def __init__(self, start: Solution, tol: float, max_iter: int, patience: int | None) -> None:
        self.tol, self.max_iter = tol, max_iter
        self.patience = max_iter if patience is None else patience
        self.iterations = start.iterations.cpu().numpy()
        self.best, self.fruitless = np.full(len(self.iterations), np.inf), np.zeros_like(self.iterations)

    def running(self, objective: NDArray[np.float64], gap: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which problems have to go on from here, bool (P,); none, where nothing more is to be gained."""
        running = gap > self.tol * objective
        self.fruitless = np.where(gap < FRUITFUL * self.best, 0, self.fruitless + 1)
        self.best = np.fmin(self.best, gap)
        fruitful = self.fruitless < self.patience
        if not (running & fruitful).any() or (self.iterations >= self.max_iter).any():
            return np.zeros_like(running)
        self.iterations = self.iterations + running
        return running


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
    progress, search = _Progress(start, tol, max_iter, patience), line_search(problem.costs)
    smoothed, intercept = Smoothed.around(problem, start.theta), start.intercept
    primal = _Point(start.element, space.evaluate(start.element))
    dual = _Point(torch.zeros_like(primal.element), torch.zeros_like(primal.values))
    while True:
        now = _state(space, search, smoothed, primal, intercept, dual)
        intercept, dual = now.intercept, now.dual
        worth, zone = smoothed.worth_of_move(now.theta), torch.linalg.vector_norm(now.slopes, 0, dim=1)
        facts = on_host(now.objective, now.gap, now.residual.squared_norm(space), worth, zone)
        running = progress.running(facts[0], facts[1])
        if not running.any():
            iterations = torch.from_numpy(progress.iterations).to(intercept.device)
            return Solution(primal.element, intercept, now.theta, now.objective, now.gap, iterations)
        # Moving multipliers on the ground of a coarser solution can circle.
        solved = facts[2] / 2 <= SUBPROBLEM_TOLERANCE * np.minimum(facts[1], facts[3] / 2)
        settled = running & solved & (not problem.squared)
        if settled.any():
            smoothed, running = smoothed.moved(column(settled, intercept), now.theta), running & ~settled
        if running.any():
            most = int(facts[4][running].max())
            smoothed, primal, intercept = _step(space, search, smoothed, now, column(running, intercept), max(most, 1))


def _state(
    space: Space, search: LineSearch, smoothed: Smoothed, primal: _Point, intercept: Tensor, near: _Point
) -> _State:
    """Return the state of a primal point (with the best intercept), whose dual point is near ``near``."""
    problem = smoothed.problem
    balance = search.balance(smoothed.ramp(problem.targets * (primal.values + intercept)), smoothed)
    intercept = intercept + balance
    margins = problem.targets * (primal.values + intercept)
    ramp = smoothed.ramp(margins)
    theta = smoothed.theta(ramp)
    balanced = theta if search.exact else problem.balanced(theta)
    element = space.combine(problem.signed_costs * balanced)
    dual = _Point(element, space.evaluate_near(element, near.element, near.values))
    objective = problem.primal(primal.squared_norm(space), margins)
    # A gap below 0 is rounding's, and says how much that is.
    gap = (objective - problem.dual(dual.squared_norm(space), balanced)).abs()
    residual = _Point(primal.element - dual.element, primal.values - dual.values)
    return _State(primal, intercept, dual, residual, ramp, theta, smoothed.slopes(ramp, theta), objective, gap)


def _step(
    space: Space, search: LineSearch, smoothed: Smoothed, now: _State, running: Tensor, zone: int
) -> tuple[Smoothed, _Point, Tensor]:
    """Take a step of Newton's method.

    Args:
        space: The space of the samples.
        search: Finds how far to go.
        smoothed: The problems.
        now: Where they are.
        running: Which of them take the step, bool (P, 1).
        zone: The largest number of samples whose slope is not 0.

    Returns:
        The problems, with a wider zone where the step was short; the element; and the intercept (P, 1).
    """
    slopes, rows = now.slopes.topk(zone, sorted=False)
    element, values, turn = space.newton(rows, slopes, now.residual.element, now.residual.values)
    direction = _Point(element, values)
    change = smoothed.problem.targets * (values + turn)
    slope = space.inner(now.primal.element, element, values)[:, None]
    step = search.step(Line(now.ramp, change, slope, direction.squared_norm(space)[:, None]), smoothed)
    # A short step: many samples outside the zone were about to enter it, and a wider one has to know of them.
    wider, step = smoothed.widened(running & (step < SHORT_STEP)), step * running
    return wider, now.primal.moved(step, direction), torch.addcmul(now.intercept, step, turn)
