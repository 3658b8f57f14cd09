r"""Solves batches of binary support vector machines to a certified duality gap.

The problem, with targets y in {+1, -1} and costs c_i = C s_i:

    minimise over w, b:   1/2 |w|^2  +  sum_i c_i loss(y_i (w . phi(x_i) + b)),

loss(m) = max(0, 1 - m) (hinge) or max(0, 1 - m)^2 (squared hinge); the intercept b is not penalised.

The algorithm is a proximal method of multipliers whose subproblems are minimised by a semismooth Newton method (Li,
Sun and Toh, SIAM J. Optim. 2018; Yin and Li, 2019; for the squared hinge it reduces to the finite Newton method of
Keerthi and DeCoste, JMLR 2005, and Chapelle, Neural Computation 2007). With alpha_i = c_i theta_i, it iterates

    theta_i = clamp(shift_i + (1 - m_i) / width, 0, 1)                   (dual variables at the current margins m)
    w      <- w + step * Newton direction of the smoothed objective       (only samples with 0 < theta < 1 enter)
    shift  <- theta                                                       (once the subproblem is solved well enough)

A Newton system has the size of the set of samples inside the smoothing zone, typically a few hundred, so that a
solution takes 10 to 40 cheap steps, and ``theta`` is a feasible dual point at every one of them: the duality gap is
known, and is what the solver stops by. ``solve`` runs this on a growing working set of samples (Joachims, 1999):
only samples that can carry weight in the solution ever meet each other in a kernel matrix.

The derivation, a table of symbols and the sources: ``docs/solver.md``.

Problems come in batches: P problems with N samples each are solved at once, and one that is done stands still.
"""

from collections.abc import Callable
from dataclasses import fields, replace

import torch
from torch import Tensor

from torch_svm_seg.svm.problem import Problem, Solution
from torch_svm_seg.svm.samples import Samples
from torch_svm_seg.svm.spaces import Space, quotient
from torch_svm_seg.tensors import first_true, position_hash, spread_rows

# Width of the smoothing zone, in units of the margin: starts so wide that all samples are inside at w = 0, and narrows
# while the multipliers settle. It never needs to become small: the multipliers, not the width, make the solution exact.
FIRST_WIDTH, LAST_WIDTH, WIDTH_FACTOR = 2.0, 0.05, 0.5
SHORT_STEP = 0.1
# A step is good where the slope along it has fallen to this part of its start.
SLOPE_LEFT = 0.1
# A subproblem is solved well enough when its own gap is this part of the whole gap and of the multipliers' move.
SUBPROBLEM_TOLERANCE = 0.3
# An intercept balances the two sides' dual variables up to this part of their sum.
BALANCE_TOLERANCE = 1e-9
# Samples in the first working set.
FIRST_WORKING_SET = 1024
ROUGH_TOLERANCE = 0.1
# What single precision has not solved after so many steps is solved in double precision.
SINGLE_PRECISION_STEPS = 200
# Entries of the kernel matrices that problems solved at once may have on a GPU, where that is 1 GB in single precision,
# and the solution takes some seven times as much; and on a CPU.
KERNEL_ENTRIES, CACHED_KERNEL_ENTRIES = 2**28, 2**18


def solve_in_parts(
    samples: Callable[[Tensor], Samples], problem: Problem, tol: float = 1e-3, max_iter: int = 1000
) -> Solution:
    """``solve`` for a few problems at a time, as many as the device gains by; ``samples`` gives those of any few.

    A CPU takes as many as their kernel matrices would fit its cache even if every sample carried weight, and a GPU
    as many as would fit its memory.
    """
    number, size = problem.targets.shape
    entries = CACHED_KERNEL_ENTRIES if problem.targets.device.type == "cpu" else KERNEL_ENTRIES
    at_once = max(entries // size**2, 1)
    solutions = []
    for part in torch.arange(number, device=problem.targets.device).split(at_once):
        chosen = samples(part)
        steps = max_iter if chosen.dtype == torch.float64 else min(max_iter, SINGLE_PRECISION_STEPS)
        solution = solve(chosen, problem.of(part), tol, steps)
        hard = solution.unfinished(tol).nonzero()[:, 0]
        if len(hard) and steps < max_iter:
            again = part[hard]
            solution.replace(hard, solve(samples(again).double(), problem.of(again), tol, max_iter - steps))
        solutions.append(solution)
    return Solution(*(torch.cat([getattr(one, field.name) for one in solutions]) for field in fields(Solution)))


def solve(samples: Samples, problem: Problem, tol: float = 1e-3, max_iter: int = 1000) -> Solution:
    """Solve a batch of problems until primal - dual <= tol * primal in each.

    Args:
        samples: The mapped samples.
        problem: What to solve.
        tol: Relative duality gap to reach.
        max_iter: Steps at most; the solution's gap tells whether they sufficed.
    """
    problem = Problem(problem.targets.double(), problem.costs.double(), problem.squared)
    number = problem.targets.shape[1]
    kept, whole = _first_working_set(problem.costs)
    rows, real = first_true(kept)
    part, space = problem.restrict(rows, real), samples.space(rows)
    found = _zero(space, part)
    while True:
        # Until all samples have had their say, more than a rough solution is wasted.
        found = _minimise(space, part, found, tol / 2 if whole else max(tol, ROUGH_TOLERANCE), max_iter)
        theta = spread_rows(found.theta * real, rows, number)
        margins = problem.targets * (samples.evaluate(rows, found.element) + found.intercept)
        # Samples outside the working set add to the primal objective alone: their dual variables are 0.
        outside = (problem.costs * problem.loss(margins) * ~kept).sum(1)
        objective, gap = found.objective + outside, found.gap + outside
        element = samples.whole(rows, found.element)
        unfinished = gap > tol * objective
        if not bool(unfinished.any()) or int(found.iterations.max()) >= max_iter:
            break
        kept, whole = (margins < 1) & (problem.costs > 0) | (kept if whole else theta > 0), True
        rows, real = first_true(kept)
        del space  # its matrix makes room for the next one's
        part, space = problem.restrict(rows, real), samples.space(rows)
        found = replace(found, element=samples.part(rows, element), theta=theta.gather(1, rows) * real)
    return Solution(element, found.intercept, theta, objective, gap, found.iterations)


def _first_working_set(costs: Tensor) -> tuple[Tensor, bool]:
    """A scattered part of the samples, bool (P, N), and whether that is all of them."""
    usable = costs > 0
    number = usable.sum(1, keepdim=True)
    if bool((number <= 2 * FIRST_WORKING_SET).all()):
        return usable, True
    rank = position_hash(usable).argsort(1).argsort(1)
    return usable & (rank < FIRST_WORKING_SET), False


def _zero(space: Space, problem: Problem) -> Solution:
    """The start of everything: w = 0."""
    theta = torch.zeros_like(problem.targets)
    zero = theta.sum(1)
    return Solution(space.combine(theta), zero[:, None], theta, zero, zero, zero.long())


def _minimise(space: Space, problem: Problem, start: Solution, tol: float, max_iter: int) -> Solution:
    """The method of multipliers on one working set."""
    targets, costs = problem.targets, problem.costs
    element, intercept, shift, iterations = start.element, start.intercept, start.theta, start.iterations
    width = torch.where((shift > 0).any(1, keepdim=True), LAST_WIDTH, FIRST_WIDTH).double()
    dual_element = space.combine(torch.zeros_like(shift))
    values, dual_values = space.evaluate(element), space.evaluate(dual_element)
    while True:
        intercept = _best_intercept(problem, values, intercept, shift, width)
        margins = targets * (values + intercept)
        theta, slopes = problem.theta(margins, shift, width)
        before, dual_element = dual_element, space.combine(costs * theta * targets)
        dual_values = space.evaluate_near(dual_element, before, dual_values)
        objective = problem.primal(space.inner(element, element, values), margins)
        gap = objective - problem.dual(space.inner(dual_element, dual_element, dual_values), theta)
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


def _best_intercept(problem: Problem, values: Tensor, intercept: Tensor, shift: Tensor, width: Tensor) -> Tensor:
    """Intercept (P, 1) that minimises the smoothed objective: where sum_i y_i alpha_i, which falls, crosses 0.

    Newton's method inside a bracket; a bracket open to one side is searched by doubling steps.
    """
    targets, costs = problem.targets, problem.costs
    low, high = torch.full_like(intercept, -torch.inf), torch.full_like(intercept, torch.inf)
    stride = torch.ones_like(intercept)
    done = torch.zeros_like(intercept, dtype=torch.bool)
    for _ in range(100):
        theta, slopes = problem.theta(targets * (values + intercept), shift, width)
        alpha = costs * theta
        balance = (alpha * targets).sum(1, keepdim=True)
        done = done | (balance.abs() <= BALANCE_TOLERANCE * alpha.sum(1, keepdim=True))
        low = torch.where(balance > 0, intercept, low)
        high = torch.where(balance < 0, intercept, high)
        total = slopes.sum(1, keepdim=True)
        newton = intercept + quotient(balance, total)
        inside = (newton > low) & (newton < high) & (total > 0)
        closed = low.isfinite() & high.isfinite()
        fallback = torch.where(closed, (low + high) / 2, intercept + stride * balance.sign())
        stride = torch.where(closed | inside, stride, 2 * stride)
        moved = torch.where(done, intercept, torch.where(inside, newton, fallback))
        done = done | (moved == intercept)
        if bool(done.all()):
            break
        intercept = moved
    return intercept
