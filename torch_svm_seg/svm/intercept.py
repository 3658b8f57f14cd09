"""The intercept that suits an element best: of the hinge, and of its smoothed form."""

import torch
from torch import Tensor

from torch_svm_seg.svm.problem import Problem
from torch_svm_seg.svm.spaces import quotient

# An intercept balances the two sides' dual variables up to this part of their sum.
BALANCE_TOLERANCE = 1e-9


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
        return balanced_intercept(problem, values, nothing[:, :1], nothing, nothing[:, :1] + 1)
    # Samples of no cost have no kink: they move behind all others.
    kinks, order = torch.where(costs > 0, targets - values, torch.inf).sort(1)
    total = costs.sum(1, keepdim=True)
    slope = costs.gather(1, order).cumsum(1) - (costs * (targets > 0)).sum(1, keepdim=True)
    slack = BALANCE_TOLERANCE * total
    # From the first kink behind which the slope is not negative, to the first behind which it is positive.
    first = (slope < -slack).sum(1, keepdim=True)
    last = (slope <= slack).sum(1, keepdim=True)
    most = (costs > 0).sum(1, keepdim=True) - 1
    low, high = (kinks.gather(1, torch.minimum(place, most).clamp(min=0)) for place in (first, last))
    return torch.where(total > 0, (low + high) / 2, 0)


def balanced_intercept(problem: Problem, values: Tensor, intercept: Tensor, shift: Tensor, width: Tensor) -> Tensor:
    """Return the intercept (P, 1) that minimises the smoothed objective: where sum_i y_i alpha_i, falling, crosses 0.

    Newton's method inside a bracket; a bracket open to one side is searched by doubling steps.

    Args:
        problem: P problems.
        values: An element's values at the samples, (P, n).
        intercept: Where to start, (P, 1).
        shift: Multipliers that the smoothed objective is centred at, (P, n).
        width: Width of the smoothing zone, (P, 1).
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
