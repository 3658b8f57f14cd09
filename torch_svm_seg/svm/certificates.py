"""What is known of a solution as it is stored: coefficients in the samples' precision, kernel values exact."""

from dataclasses import replace

import torch
from torch import Tensor

from torch_svm_seg.svm.decisions import DecisionFunction, LinearDecision
from torch_svm_seg.svm.line_search import best_intercept
from torch_svm_seg.svm.one_vs_rest import OneVsRest
from torch_svm_seg.svm.problem import Problem, Solution
from torch_svm_seg.svm.samples import KernelSamples, Samples

# By how much elements are stretched.
STRETCHES = (2**-19, 2**-16, 2**-13)
# Samples that are looked at in double precision at once.
ROWS = 1024


def is_imprecise(samples: Samples, problem: Problem, found: Solution, tol: float) -> Tensor:
    """Return whether the rounding of kernel values may matter to an objective known to ``tol``, bool (P,).

    Values of the solution are off by about the length of its coefficients times the rounding of one kernel value; where
    a sample is on its margin, that costs as much as a loss. Explicit features need no such care: their norms are small.

    Examples:
        >>> from torch_svm_seg.svm.samples import FeatureSamples
        >>> zero = torch.zeros(1, 2)
        >>> found = Solution(zero, zero[:, :1], zero, torch.ones(1), zero[0, :1], torch.ones(1, dtype=torch.long))
        >>> is_imprecise(FeatureSamples(torch.ones(1, 2, 2)), Problem(zero + 1, zero + 1), found, tol=1e-3)
        tensor([False])
    """
    if not isinstance(samples, KernelSamples):
        return torch.zeros_like(found.gap, dtype=torch.bool)
    alpha, free = problem.costs * found.theta, (found.theta > 0) & (found.theta < 1)
    costs = alpha if problem.squared else problem.costs * free
    rounding = torch.finfo(samples.dtype).eps / 2 * samples.diagonal().amax(1)
    off: Tensor = rounding * torch.linalg.vector_norm(alpha, dim=1)
    return off * costs.sum(1) > tol * found.objective


def as_stored(samples: Samples, problem: Problem, found: Solution, dtype: torch.dtype, tol: float) -> Solution:
    """Return a solution with its element and intercept rounded to a type, and the objective and gap that these have.

    Rounding moves half of the samples on the margin inside it, which costs much where C is large. An element a little
    longer, of about the same norm, moves them out again; it is taken where the gap is above ``tol`` and it lowers it.

    Args:
        samples: The samples in double precision.
        problem: The problem.
        found: Its solution in double precision.
        dtype: Type that the element and the intercept are stored in.
        tol: Relative duality gap to reach.

    Examples:
        >>> from torch_svm_seg.svm.samples import FeatureSamples
        >>> from torch_svm_seg.svm.solver import solve
        >>> samples = FeatureSamples(torch.tensor([[[1.0], [-1.0]]]).double())
        >>> problem = Problem(samples.features[..., 0], torch.ones(1, 2).double())
        >>> as_stored(samples, problem, solve(samples, problem), torch.float32, tol=1e-3).objective.round(decimals=3)
        tensor([0.5000], dtype=torch.float64)
    """
    best = _rounded(samples, problem, found, found.element.to(dtype))
    for stretch in STRETCHES:
        if not bool(best.unfinished(tol).any()):
            break
        other = _rounded(samples, problem, found, (found.element * (1 + stretch)).to(dtype))
        better = (other.gap < best.gap).nonzero()[:, 0]
        best.replace(better, other.select(better))
    return best


def _rounded(samples: Samples, problem: Problem, found: Solution, stored: Tensor) -> Solution:
    """Return a solution whose element is ``stored`` (P, E), with the best intercept of the same type."""
    element, dtype = stored.double(), stored.dtype
    everyone = torch.arange(problem.targets.shape[1], device=element.device).expand_as(problem.targets)
    values = samples.evaluate(everyone, element)
    intercept = best_intercept(problem, values).to(dtype).double()
    objective = problem.primal(samples.squared_norm(element, values), problem.targets * (values + intercept))
    gap = (objective - (found.objective - found.gap)).abs()
    return replace(found, element=element, intercept=intercept, objective=objective, gap=gap)


@torch.no_grad()
def as_decided(
    decision: DecisionFunction, x: Tensor, solution: Solution, problem: Problem, problems: OneVsRest
) -> Solution:
    """Return solutions with the objectives and gaps of the decision function that was made of them.

    Args:
        decision: Decision function of explicit features, of B images.
        x: Samples (B, N, D).
        solution: Solutions of P problems, whose elements are the features' weights unless the decision has its own.
        problem: The problems.
        problems: The images and classes of the problems.

    Examples:
        >>> x = torch.tensor([[[1.0], [-1.0]]])
        >>> problems = OneVsRest.of(torch.tensor([[True, True]]))
        >>> problem, zero = Problem(x[..., 0].double(), torch.ones(1, 2).double()), torch.zeros(1, 1).double()
        >>> rough = Solution(zero + 1, zero, zero, zero[0], zero[0], zero[0].long())
        >>> decision = LinearDecision(torch.tensor([[[0.5, -0.5]]]), torch.zeros(1, 1, 2))
        >>> as_decided(decision, x, rough, problem, problems).objective
        tensor([1.1250], dtype=torch.float64)
    """
    fitted = {name: tensor.detach().double() for name, tensor in decision.named_buffers()}
    exact, chosen = DecisionFunction.of_state(fitted), (problems.image, problems.index)
    for name, tensor in fitted.items():
        setattr(exact, name, tensor)
    scores = torch.cat([exact(rows.double()) for rows in x.split(ROWS, dim=1)], 1).mT[chosen]
    weights = exact.weights.mT[chosen] if isinstance(exact, LinearDecision) else solution.element.to(x.dtype).double()
    objective = problem.primal(weights.square().sum(1), problem.targets * scores)
    gap = (objective - (solution.objective - solution.gap)).abs()
    return replace(solution, objective=objective, gap=gap)
