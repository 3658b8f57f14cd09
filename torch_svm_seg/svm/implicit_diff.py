r"""Gradient through the fit of a support vector machine, by the implicit function theorem.

A solution's samples fall into three parts, which small changes of the data leave as they are: those outside the margin
carry nothing, those that violate it carry all their cost (hinge), and the *free* ones F lie where

    r_i = sum_j K_ij beta_j + b + ridge_i beta_i - y_i = 0    for i in F,      sum_j beta_j = 0,

beta_j = y_j alpha_j; ridge is 0 for the hinge, whose free samples lie on the margin, and 1 / (2 c_i) for the squared
hinge, all of whose violating samples are free. So (beta_F, b) solves a linear system, and its derivative is

    d (beta_F, b) = -J^-1 d (r, sum beta),      J = [K_FF + ridge, 1; 1', 0],

the derivative of one Newton step at the solution (Bolte, Pauwels and Vaiter, NeurIPS 2023). Amos and Kolter (ICML 2017)
do the same for general quadratic programs; here the system is as small as the number of free samples.
"""

from dataclasses import replace

import torch
from torch import Tensor

from torch_svm_seg.svm.problem import Problem, Solution
from torch_svm_seg.svm.samples import DifferentiableSamples
from torch_svm_seg.svm.spaces import with_ones, without_border
from torch_svm_seg.tensors import first_true, spread_rows

# More free samples than dimensions, as rounding may leave, have a singular system.
RIDGE = 1e-10


def with_gradient(solution: Solution, samples: DifferentiableSamples, problem: Problem) -> Solution:
    """Return the solution with a graph to the samples and the costs: values unchanged, derivatives as above.

    Args:
        solution: Solution of the problem, without a graph; the closer to the optimum, the truer the gradient.
        samples: The mapped samples (P, N), which may have a graph.
        problem: Problem, whose costs may have a graph.

    Examples:
        >>> from torch_svm_seg import SVM
        >>> x = torch.tensor([[-1.0], [1.0], [2.0]], requires_grad=True)
        >>> svm = SVM(kernel="linear", C=9.0, gradient="implicit").fit(x, torch.tensor([0, 1, 1]))
        >>> svm.decision_function(torch.zeros(1, 1))[0, 1].backward()
        >>> x.grad.abs().flatten() > 0.1
        tensor([ True,  True, False])
    """
    costs, targets, theta = problem.costs.double(), problem.targets.double(), solution.theta
    free = (theta > 0) & (problem.squared | (theta < 1))
    beta = targets * theta * torch.where(free, costs.detach(), costs)
    rows, valid = first_true(free)
    ridge = 1 / (2 * torch.where(valid, costs.gather(1, rows), 1)) if problem.squared else torch.zeros_like(rows)
    values = samples.evaluate_at(rows, samples.combine(beta))
    residual = valid * (values + solution.intercept + ridge * beta.gather(1, rows) - targets.gather(1, rows))
    diagonal = (ridge + RIDGE).detach()
    solutions = samples.detach().solve(rows, diagonal, valid, with_ones(residual) * valid[..., None])
    step, turn = without_border(solutions, beta.sum(1, keepdim=True))
    element = samples.combine(beta - spread_rows(step, rows, beta.shape[1]))
    return replace(
        solution,
        element=solution.element + _derivative_of(element),
        intercept=solution.intercept - _derivative_of(turn),
    )


def _derivative_of(values: Tensor) -> Tensor:
    """0 with the values' derivative."""
    return values - values.detach()
