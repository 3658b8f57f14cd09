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

import torch
from torch import Tensor

from torch_svm_seg.svm.intercept import balanced_intercept
from torch_svm_seg.svm.problem import Problem, Solution
from torch_svm_seg.svm.spaces import Space
from torch_svm_seg.tensors import first_true

# Width of the smoothing zone, in units of the margin: starts so wide that all samples are inside at w = 0, and narrows
# while the multipliers settle. It never needs to become small: the multipliers, not the width, make the solution exact.
FIRST_WIDTH, LAST_WIDTH, WIDTH_FACTOR = 2.0, 0.05, 0.5
SHORT_STEP = 0.1
# A step is good where the slope along it has fallen to this part of its start.
SLOPE_LEFT = 0.1
# A subproblem is solved well enough when its own gap is this part of the whole gap and of the multipliers' move.
SUBPROBLEM_TOLERANCE = 0.3


def zero(space: Space, problem: Problem) -> Solution:
    """Return the start of everything: w = 0."""
    theta = torch.zeros_like(problem.targets)
    zero = theta.sum(1)
    return Solution(space.combine(theta), zero[:, None], theta, zero, zero, zero.long())


def minimise(space: Space, problem: Problem, start: Solution, tol: float, max_iter: int) -> Solution:
    """Solve problems on their own samples alone, by the method of multipliers.

    Args:
        space: The space of the samples.
        problem: What to solve, in double precision.
        start: Where to start.
        tol: Relative duality gap to reach.
        max_iter: Steps at most, those of the start included.
    """
    targets, costs = problem.targets, problem.costs
    element, intercept, shift, iterations = start.element, start.intercept, start.theta, start.iterations
    width = torch.where((shift > 0).any(1, keepdim=True), LAST_WIDTH, FIRST_WIDTH).double()
    dual_element = space.combine(torch.zeros_like(shift))
    values, dual_values = space.evaluate(element), space.evaluate(dual_element)
    while True:
        intercept = balanced_intercept(problem, values, intercept, shift, width)
        margins = targets * (values + intercept)
        theta, slopes = problem.theta(margins, shift, width)
        before, dual_element = dual_element, space.combine(costs * theta * targets)
        dual_values = space.evaluate_near(dual_element, before, dual_values)
        objective = problem.primal(space.inner(element, element, values), margins)
        # A gap below 0 is rounding's, and says how much that is.
        gap = (objective - problem.dual(space.inner(dual_element, dual_element, dual_values), theta)).abs()
        running = gap > tol * objective
        if not bool(running.any()) or int(iterations.max()) >= max_iter:
            return Solution(element, intercept, theta, objective, gap, iterations)
        iterations = iterations + running
        residual, residual_values = element - dual_element, values - dual_values
        if not problem.squared:
            subproblem_gap = space.inner(residual, residual, residual_values) / 2
            # What the multipliers' last move was worth: moving them on the ground of a coarser solution can circle.
            move = (width / 2 * costs * (theta - shift).square()).sum(1)
            settled = running & (subproblem_gap <= SUBPROBLEM_TOLERANCE * torch.minimum(gap, move))
            shift = torch.where(settled[:, None], theta, shift)
            width = torch.where(settled[:, None], (width * WIDTH_FACTOR).clamp(min=LAST_WIDTH), width)
            running = running & ~settled
            if not bool(running.any()):
                continue
        rows, real = first_true((slopes > 0) & running[:, None])
        direction, change, turn = space.newton(rows, slopes.gather(1, rows) * real, residual, residual_values)
        slope, curvature = space.inner(element, direction, change), space.inner(direction, direction, change)
        step = _line_search(problem, margins, targets * (change + turn), slope, curvature, shift, width)
        # A short step: many samples outside the zone were about to enter it, and a wider one has to know of them.
        short = running & (step < SHORT_STEP)
        width = torch.where(short[:, None], (width / WIDTH_FACTOR).clamp(max=FIRST_WIDTH), width)
        step = torch.where(running, step, 0)[:, None]
        element, values, intercept = element + step * direction, values + step * change, intercept + step * turn


@torch.no_grad()
def _line_search(
    problem: Problem, margins: Tensor, change: Tensor, slope: Tensor, curvature: Tensor, shift: Tensor, width: Tensor
) -> Tensor:
    """Step (P,) in [0, 1] that nearly minimises the smoothed objective along the direction."""

    def derivative(step: Tensor) -> Tensor:
        theta, _ = problem.theta(margins + step[:, None] * change, shift, width)
        return slope + step * curvature - (problem.costs * theta * change).sum(1)

    low, high = torch.zeros_like(slope), torch.ones_like(slope)
    falling, rising = derivative(low), derivative(high)
    # Newton's step is nearly always good: only look for a shorter one where the objective rises again before it.
    start = falling.abs()
    too_long = rising > SLOPE_LEFT * start
    if not bool(too_long.any()):
        return high
    step, done = high, ~too_long
    for turn in range(16):
        # The secant's zero and the middle by turns: the one is quick, the other sure.
        share = (-falling / (rising - falling)).clamp(0.001, 0.999).nan_to_num(0.5) if turn % 2 == 0 else 0.5
        middle = low + share * (high - low)
        value = derivative(middle)
        step = torch.where(done, step, middle)
        done = done | (value.abs() <= SLOPE_LEFT * start)
        if bool(done.all()):
            break
        up = value > 0
        low, falling = torch.where(up, low, middle), torch.where(up, falling, value)
        high, rising = torch.where(up, middle, high), torch.where(up, value, rising)
    return step
