"""The minimum of smoothed problems along a line: the intercept that suits an element, and the length of Newton's step.

Along a line the margins are m_i + t d_i, so that theta_i is a ramp between two kinks, and the derivative

    g(t) = slope + t curvature - sum_i c_i d_i theta_i(t)

rises piecewise linearly. On a CPU, Newton's method in a bracket finds where it crosses 0 by a few evaluations. A GPU
would have to wait for each of them to know whether it was the last; there, sorting the kinks gives g at all of them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from torch_svm_seg.svm.problem import Problem
from torch_svm_seg.svm.smoothing import Smoothed
from torch_svm_seg.svm.spaces import quotient
from torch_svm_seg.tensors import on_cpu

# g is 0 up to this part of the sum of all |c_i d_i theta_i|: along an intercept, the dual variables balance so well.
ZERO = 1e-9
# What sums over sorted kinks may be off by, in units of the sum of all |c_i d_i|.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Line:
    """A line for each of P problems.

    Attributes:
        margins: Margins of the samples at t = 0, (P, n).
        change: Their change per unit of t, d, (P, n).
        slope: Derivative of |w|^2 / 2 at t = 0, (P, 1).
        curvature: Its second derivative, (P, 1), at least 0.

    Example:
        >>> targets = torch.tensor([[1.0, -1.0]]).double()
        >>> Line(margins=torch.zeros(1, 2), change=targets).slope  # the intercept's: w stands still
        0.0
    """

    margins: Tensor
    change: Tensor
    slope: Tensor | float = 0.0
    curvature: Tensor | float = 0.0


def minimum_along(line: Line, smoothed: Smoothed) -> Tensor:
    """Return where on a line smoothed problems are least, (P, 1).

    Example:
        >>> targets, costs = torch.tensor([[1.0, -1.0]]).double(), torch.tensor([[2.0, 1.0]]).double()
        >>> smoothed = Smoothed(Problem(targets, costs), shift=torch.zeros(1, 2), width=torch.ones(1, 1))
        >>> minimum_along(Line(torch.zeros(1, 2).double(), targets), smoothed)
        tensor([[0.5000]], dtype=torch.float64)
    """
    if on_cpu(line.margins):
        start = torch.zeros_like(line.margins[:, :1])
        return bracketed(line, smoothed, start, start - torch.inf, start + torch.inf, start)
    return between_kinks(line, smoothed)


def step_along(line: Line, smoothed: Smoothed, enough: Tensor) -> Tensor:
    """Return a step, from 0 to 1 (P, 1), that is good: on a CPU, where g has risen to ``-enough`` (P, 1) or above.

    Example:
        >>> targets, costs = torch.tensor([[1.0, -1.0]]).double(), torch.tensor([[4.0, 1.0]]).double()
        >>> smoothed = Smoothed(Problem(targets, costs), shift=torch.zeros(1, 2), width=torch.ones(1, 1))
        >>> step_along(Line(torch.zeros(1, 2).double(), targets), smoothed, enough=torch.zeros(1, 1))
        tensor([[0.7500]], dtype=torch.float64)
    """
    if on_cpu(line.margins):
        low = torch.zeros_like(line.margins[:, :1])
        return bracketed(line, smoothed, low + 1, low, low + 1, enough)
    return between_kinks(line, smoothed).clamp(0, 1)


def bracketed(line: Line, smoothed: Smoothed, t: Tensor, low: Tensor, high: Tensor, enough: Tensor) -> Tensor:
    """Return where from ``low`` to ``high`` (P, 1) the problems are least, by Newton's method from ``t`` (P, 1) on.

    A bracket open to one side is searched by doubling steps. It stops where g is within ``enough`` (P, 1) of 0.
    """
    end, stride, done = high, 1.0, torch.zeros_like(t, dtype=torch.bool)
    for _ in range(100):
        theta, slopes = smoothed.theta(line.margins + t * line.change)
        pulls = smoothed.problem.costs * theta * line.change
        value = line.slope + t * line.curvature - pulls.sum(1, keepdim=True)
        # At the end of the line, still falling is good.
        least = torch.maximum(enough, ZERO * pulls.abs().sum(1, keepdim=True))
        done = done | (value.abs() <= least) | (value <= 0) & (t == end)
        if bool(done.all()):
            break
        low, high = torch.where(value < 0, t, low), torch.where(value > 0, t, high)
        rise = line.curvature + (slopes * line.change.square()).sum(1, keepdim=True)
        newton = t - quotient(value, rise)
        inside = (newton > low) & (newton < high) & (rise > 0)
        middle = torch.where(low.isfinite() & high.isfinite(), (low + high) / 2, t - stride * value.sign())
        moved = torch.where(done, t, torch.where(inside, newton, middle))
        done, t, stride = done | (moved == t), moved, 2 * stride
    return t


def between_kinks(line: Line, smoothed: Smoothed) -> Tensor:
    """Return where the problems are least, (P, 1), or the middle of where they are, from g at all kinks."""
    kinks, bends, theta, rise = _kinks(line, smoothed)
    kinks, order = kinks.sort(1)
    # The slope of g before all kinks, and behind each; and g at each.
    before = rise + line.curvature
    slopes = torch.cat([before, before + bends.gather(1, order).cumsum(1)], 1)
    weights = smoothed.problem.costs * line.change
    at_first = line.slope + kinks[:, :1] * before - (weights * theta).sum(1, keepdim=True)
    heights = torch.cat([at_first, at_first + (slopes[:, 1:-1] * kinks.diff(dim=1)).cumsum(1)], 1)
    # Where g leaves 0 from below, and where it rises above it: the same, unless g is 0 between two kinks.
    zero = ROUNDING * weights.abs().sum(1, keepdim=True)
    passed = torch.stack([(heights < -zero).sum(1), (heights <= zero).sum(1)], 1)
    nearest = (passed - 1).clamp(min=0)
    crossings = kinks.gather(1, nearest) - quotient(heights.gather(1, nearest), slopes.gather(1, passed))
    return crossings.mean(1, keepdim=True)


def _kinks(line: Line, smoothed: Smoothed) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the kinks of g and how much its slope rises at each, (P, m); and the samples' part of g before them.

    The latter is -sum_i c_i d_i theta_i + rise t, theta (P, n) and rise (P, 1). A sample that does not move has its
    kinks at 0, where nothing rises.
    """
    change, width, to_margin = line.change, smoothed.width, 1 - line.margins
    moves, upward = change != 0, change > 0
    bend = smoothed.problem.costs * change * change.abs()
    if smoothed.problem.squared:  # theta = max(0, 2 (1 - m)): one kink, at m = 1; what moves up has a slope before it
        bend = -2 * bend
        kink = torch.where(moves, to_margin / change, 0)
        return kink, bend, 2 * to_margin * upward, -bend.clamp(max=0).sum(1, keepdim=True)
    # theta is 0 at the one kink and 1 at the other.
    bend = bend / width
    stretch = torch.where(moves, width / change, 0)
    empty = stretch * (smoothed.shift + to_margin / width)
    return torch.cat([empty, empty - stretch], 1), torch.cat([-bend, bend], 1), upward, torch.zeros_like(width)


def best_intercept(problem: Problem, values: Tensor) -> Tensor:
    """Return the intercept (P, 1) that minimises the primal objective at an element's values (P, n).

    The hinge's sum over the samples is piecewise linear in the intercept, and at its kinks y_i - f_i the slope rises by
    c_i. Where it is flat between two kinks, their middle is returned.

    Example:
        >>> values, targets = torch.tensor([[0.5, 0.0]]).double(), torch.tensor([[1.0, -1.0]]).double()
        >>> best_intercept(Problem(targets, torch.ones_like(targets)), values)
        tensor([[-0.2500]], dtype=torch.float64)
    """
    targets, costs = problem.targets, problem.costs
    if problem.squared:
        nothing = torch.zeros_like(values)
        return minimum_along(Line(targets * values, targets), Smoothed(problem, nothing, nothing[:, :1] + 1))
    # Samples of no cost have no kink: they move behind all others.
    kinks, order = torch.where(costs > 0, targets - values, torch.inf).sort(1)
    total = costs.sum(1, keepdim=True)
    slope = costs.gather(1, order).cumsum(1) - (costs * (targets > 0)).sum(1, keepdim=True)
    slack = ZERO * total
    # From the first kink behind which the slope is not negative, to the first behind which it is positive.
    first = (slope < -slack).sum(1, keepdim=True)
    last = (slope <= slack).sum(1, keepdim=True)
    most = (costs > 0).sum(1, keepdim=True) - 1
    low, high = (kinks.gather(1, torch.minimum(place, most).clamp(min=0)) for place in (first, last))
    return torch.where(total > 0, (low + high) / 2, 0)
