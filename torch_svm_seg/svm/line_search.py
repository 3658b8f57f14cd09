"""The minimum of smoothed problems along a line: the intercept that suits an element, and the length of Newton's step.

Along a line the margins are m_i + t d_i, so that theta_i is a clamped ramp, and the derivative

    g(t) = slope + t curvature - sum_i c_i d_i theta_i(t)

rises piecewise linearly. On a CPU, Newton's method in a bracket finds where it crosses 0 by a few evaluations. A GPU
would have to wait for each of them to know whether it was the last; there, g is computed at many points at once, and
taken to be straight between them. What that misses, the next step's search finds.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from torch_svm_seg.svm.problem import Problem
from torch_svm_seg.svm.smoothing import Smoothed
from torch_svm_seg.svm.spaces import quotient
from torch_svm_seg.tensors import on_cpu

# g is 0 up to this part of the sum of all |c_i d_i theta_i|: along an intercept, the dual variables balance so well.
ZERO = 1e-12
# What sums over sorted kinks may be off by, as a part of all costs.
ROUNDING = 1e-9
# A step is good where the slope along it has fallen to this part of its start.
SLOPE_LEFT = 0.1
# Points on each side of 0 where an intercept is looked for, each half as far as the one before; and along a step.
HALVINGS, STEPS = 40, 32


@dataclass(frozen=True)
class Line:
    """A line for each of P problems.

    Attributes:
        ramp: Dual variables of the samples at t = 0 before they are clamped, (P, n).
        change: Change of their margins per unit of t, d, (P, n).
        slope: Derivative of |w|^2 / 2 at t = 0, (P, 1).
        curvature: Its second derivative, (P, 1), at least 0.

    Examples:
        >>> targets = torch.tensor([[1.0, -1.0]]).double()
        >>> Line(ramp=torch.ones(1, 2), change=targets).slope  # the intercept's: w stands still
        0.0
    """

    ramp: Tensor
    change: Tensor
    slope: Tensor | float = 0.0
    curvature: Tensor | float = 0.0


class LineSearch(Protocol):
    """A way to find minima along lines.

    Attributes:
        exact: Whether dual variables with the intercept that it finds satisfy sum_i y_i alpha_i = 0.
    """

    exact: bool

    def balance(self, ramp: Tensor, smoothed: Smoothed) -> Tensor:
        """Return the change of the intercept, (P, 1), that minimises smoothed problems.

        Args:
            ramp: Dual variables before they are clamped, (P, n).
            smoothed: The problems.
        """

    def step(self, line: Line, smoothed: Smoothed) -> Tensor:
        """Return a good step along a line that falls at its start, from 0 to 1 (P, 1)."""


class Bracketing:
    """Newton's method in a bracket, for a CPU.

    Examples:
        >>> targets, costs = torch.tensor([[1.0, -1.0]]).double(), torch.tensor([[2.0, 1.0]]).double()
        >>> smoothed = Smoothed(Problem(targets, costs), shift=torch.zeros(1, 2), width=torch.ones(1, 1))
        >>> Bracketing().balance(torch.ones(1, 2).double(), smoothed)
        tensor([[0.5000]], dtype=torch.float64)
    """

    exact = True

    def balance(self, ramp: Tensor, smoothed: Smoothed) -> Tensor:
        """Return the change of the intercept, (P, 1), that minimises smoothed problems."""
        start = torch.zeros_like(ramp[:, :1])
        line = Line(ramp, smoothed.problem.targets)
        return bracketed(line, smoothed, start, start - torch.inf, start + torch.inf, start)

    def step(self, line: Line, smoothed: Smoothed) -> Tensor:
        """Return a step, from 0 to 1 (P, 1), where the slope along the line has fallen to a tenth or less."""
        pulls = smoothed.problem.costs * smoothed.theta(line.ramp) * line.change
        falling = line.slope - pulls.sum(1, keepdim=True)
        low = torch.zeros_like(falling)
        return bracketed(line, smoothed, low + 1, low, low + 1, SLOPE_LEFT * falling.abs())


class Sampling:
    """Values of g at many points at once, for a GPU.

    Args:
        like: A tensor of the type and on the device of the problems.

    Examples:
        >>> targets, costs = torch.tensor([[1.0, -1.0]]).double(), torch.tensor([[2.0, 1.0]]).double()
        >>> smoothed = Smoothed(Problem(targets, costs), shift=torch.zeros(1, 2), width=torch.ones(1, 1))
        >>> Sampling(targets).balance(torch.ones(1, 2).double(), smoothed)
        tensor([[0.5000]], dtype=torch.float64)
    """

    exact = False

    def __init__(self, like: Tensor) -> None:
        halves = torch.arange(-HALVINGS, 1, dtype=like.dtype, device=like.device).exp2()
        fractions = torch.linspace(0, 1, STEPS + 1, dtype=like.dtype, device=like.device)
        # Densest at 0, as what is looked for comes closer to it from step to step.
        self.around, self.ahead = torch.cat([-halves.flip(0), halves]), fractions.pow(3)
        self.gaps_around, self.gaps_ahead = self.around.diff(), self.ahead.diff()

    def balance(self, ramp: Tensor, smoothed: Smoothed) -> Tensor:
        """Return a change of the intercept, (P, 1), that brings smoothed problems close to their minimum."""
        # All theta are clamped at the ends.
        reach: Tensor = (torch.linalg.vector_norm(ramp, torch.inf, dim=1, keepdim=True) + 1) * smoothed.width
        problem, points = smoothed.problem, reach * self.around
        falling = _pulls(Line(ramp, problem.targets), smoothed, points, problem.signed_costs)
        return reach * torch.addmv(self.around[0], _before_zero(falling), self.gaps_around)[:, None]

    def step(self, line: Line, smoothed: Smoothed) -> Tensor:
        """Return a step along a line that falls at its start, from 0 to 1 (P, 1)."""
        pulls = _pulls(line, smoothed, self.ahead, smoothed.problem.costs * line.change)
        falling = pulls - (line.slope + self.ahead * line.curvature)
        return (_before_zero(falling) @ self.gaps_ahead)[:, None]


def line_search(like: Tensor) -> LineSearch:
    """Return how to search along lines of problems on the device of a tensor.

    Examples:
        >>> type(line_search(torch.zeros(1))).__name__
        'Bracketing'
    """
    return Bracketing() if on_cpu(like) else Sampling(like)


def _pulls(line: Line, smoothed: Smoothed, points: Tensor, weights: Tensor) -> Tensor:
    """Return the samples' part of -g, (P, T), at points (T,) or (P, T) of lines; ``weights`` are c_i d_i, (P, n)."""
    rate = line.change / smoothed.width
    theta = smoothed.theta(torch.addcmul(line.ramp[:, None], points[..., None], rate[:, None], value=-1))
    return torch.bmm(theta, weights[..., None])[..., 0]


def _before_zero(falling: Tensor) -> Tensor:
    """Return how much of each gap between two of T points lies before -g, straight between them, is 0; (P, T - 1)."""
    start = falling[:, :-1]
    # Where it stays as it is, it crosses 0 nowhere: all of the gap lies before, or nothing.
    falls = (start - falling[:, 1:]).clamp(min=torch.finfo(falling.dtype).tiny)
    return (start / falls).clamp(0, 1)


def bracketed(line: Line, smoothed: Smoothed, t: Tensor, low: Tensor, high: Tensor, enough: Tensor) -> Tensor:
    """Return where from ``low`` to ``high`` (P, 1) the problems are least, by Newton's method from ``t`` (P, 1) on.

    A bracket open to one side is searched by doubling steps. It stops where g is within ``enough`` (P, 1) of 0.
    """
    end, stride, done = high, 1.0, torch.zeros_like(t, dtype=torch.bool)
    rate, weights = line.change / smoothed.width, smoothed.problem.costs * line.change
    for _ in range(100):
        ramp = line.ramp - t * rate
        theta = smoothed.theta(ramp)
        pulls = weights * theta
        value = line.slope + t * line.curvature - pulls.sum(1, keepdim=True)
        # At the end of the line, still falling is good.
        least = torch.maximum(enough, ZERO * pulls.abs().sum(1, keepdim=True))
        done = done | (value.abs() <= least) | (value <= 0) & (t == end)
        if bool(done.all()):
            break
        low, high = torch.where(value < 0, t, low), torch.where(value > 0, t, high)
        rise = line.curvature + (weights * rate * (ramp == theta)).sum(1, keepdim=True)
        newton = t - quotient(value, rise)
        inside = (newton > low) & (newton < high) & (rise > 0)
        middle = torch.where(low.isfinite() & high.isfinite(), (low + high) / 2, t - stride * value.sign())
        moved = torch.where(done, t, torch.where(inside, newton, middle))
        done, t, stride = done | (moved == t), moved, 2 * stride
    return t


def best_intercept(problem: Problem, values: Tensor) -> Tensor:
    """Return the intercept (P, 1) that minimises the primal objective at an element's values (P, n).

    The hinge's sum over the samples is piecewise linear in the intercept, and at its kinks y_i - f_i the slope rises by
    c_i. Where it is flat between two kinks, their middle is returned.

    Examples:
        >>> values, targets = torch.tensor([[0.5, 0.0]]).double(), torch.tensor([[1.0, -1.0]]).double()
        >>> best_intercept(Problem(targets, torch.ones_like(targets)), values)
        tensor([[-0.2500]], dtype=torch.float64)
    """
    targets, costs = problem.targets, problem.costs
    if problem.squared:
        smoothed = Smoothed.around(problem, torch.zeros_like(values))
        return Bracketing().balance(smoothed.ramp(targets * values), smoothed)
    # Samples of no cost have no kink: they move behind all others.
    kinks, order = torch.where(costs > 0, targets - values, torch.inf).sort(1)
    total = costs.sum(1, keepdim=True)
    slope = costs.gather(1, order).cumsum(1) - (costs * (targets > 0)).sum(1, keepdim=True)
    slack = ROUNDING * total
    # From the first kink behind which the slope is not negative, to the first behind which it is positive.
    first = (slope < -slack).sum(1, keepdim=True)
    last = (slope <= slack).sum(1, keepdim=True)
    most = (costs > 0).sum(1, keepdim=True) - 1
    low, high = (kinks.gather(1, torch.minimum(place, most).clamp(min=0)) for place in (first, last))
    return torch.where(total > 0, (low + high) / 2, 0)
