"""The search along a line finds where the smoothed objective, written down as it is defined, is least."""

import pytest
import torch
from conftest import normal

from torch_svm_seg.svm.line_search import Bracketing, Line, LineSearch, Sampling, bracketed, line_search
from torch_svm_seg.svm.problem import Problem
from torch_svm_seg.svm.smoothing import Smoothed


def loss(smoothed: Smoothed, margins: torch.Tensor) -> torch.Tensor:
    """The sum of smoothed losses, (P,), as a maximum over many values of theta between 0 and 1."""
    if smoothed.problem.squared:
        return (smoothed.problem.costs * (1 - margins).clamp(min=0).square()).sum(1)
    theta = torch.linspace(0, 1, 20001, dtype=torch.float64)[:, None, None]
    losses = theta * (1 - margins) - smoothed.width / 2 * (theta - smoothed.shift).square()
    return (smoothed.problem.costs * losses.amax(0)).sum(1)


def example(squared: bool, seed: int, number: int = 12) -> tuple[Smoothed, torch.Tensor]:
    """Three problems and their margins; some samples have no cost."""
    targets = normal(seed, 3, number).sign()
    targets[:, 0], targets[:, 1] = 1, -1
    costs = normal(seed + 1, 3, number).abs()
    costs[:, 2:4] = 0
    problem, margins = Problem(targets, costs, squared), 2 * normal(seed + 3, 3, number)
    if squared:
        return Smoothed.around(problem, torch.zeros_like(margins)), margins
    shift, width = normal(seed + 2, 3, number).clamp(0, 1), normal(seed + 4, 3, 1).abs() + 0.1
    return Smoothed(problem, shift, width), margins


def a_line(ramp: torch.Tensor, seed: int) -> Line:
    """A line that falls at its start, along which one sample does not move."""
    change = normal(seed + 500, *ramp.shape)
    change[:, 5] = 0
    return Line(ramp, change, -100 + normal(seed + 501, 3, 1), 20 * normal(seed + 502, 3, 1).abs() + 1)


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_nothing_along_the_line_is_lower(squared: bool, seed: int) -> None:
    smoothed, margins = example(squared, 10 * seed)
    line, start = a_line(smoothed.ramp(margins), seed), torch.zeros(3, 1).double()
    best = bracketed(line, smoothed, start, start - torch.inf, start + torch.inf, start)

    def objective(t: torch.Tensor) -> torch.Tensor:
        norm = (line.slope * t + line.curvature / 2 * t.square())[:, 0]
        return norm + loss(smoothed, margins + t * line.change)

    for offset in (-1.0, -0.1, -0.01, 0.01, 0.1, 1.0):
        assert (objective(best + offset) >= objective(best) - 1e-6).all()


@pytest.mark.parametrize("search", [Bracketing(), Sampling(torch.zeros(1).double())])
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_the_intercept_balances_the_dual_variables(search: LineSearch, squared: bool, seed: int) -> None:
    smoothed, margins = example(squared, 10 * seed, number=200)
    problem, ramp = smoothed.problem, smoothed.ramp(margins)
    # What sampling finds is closer each time.
    for _ in range(1 if search.exact else 10):
        margins = margins + search.balance(ramp, smoothed) * problem.targets
        ramp = smoothed.ramp(margins)
    alpha = problem.costs * smoothed.theta(ramp)
    assert ((alpha * problem.targets).sum(1).abs() <= 1e-9 * alpha.sum(1)).all()


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_points_of_a_line_are_close_to_its_minimum(squared: bool, seed: int) -> None:
    smoothed, margins = example(squared, 10 * seed, number=200)
    ramp = smoothed.ramp(margins)
    rough, exact = Sampling(margins).balance(ramp, smoothed), Bracketing().balance(ramp, smoothed)
    assert ((rough - exact).abs() <= exact.abs()).all()  # points half as far, and twice
    line = a_line(ramp, seed)
    start = torch.zeros_like(exact)
    exact = bracketed(line, smoothed, start + 1, start, start + 1, start)
    torch.testing.assert_close(Sampling(margins).step(line, smoothed), exact, rtol=0.2, atol=1e-3)


@pytest.mark.parametrize("squared", [False, True])
def test_a_step_ends_where_the_line_does_or_where_it_is_good_enough(squared: bool, device: str) -> None:
    smoothed, margins = example(squared, 7)
    problem = Problem(smoothed.problem.targets.to(device), smoothed.problem.costs.to(device), squared)
    smoothed = Smoothed(problem, smoothed.shift.to(device), smoothed.width.to(device))
    ramp, change = smoothed.ramp(margins.to(device)), normal(1, 3, 12).to(device)
    curvature = torch.ones(3, 1, device=device).double()
    search = line_search(ramp)
    assert (search.step(Line(ramp, change, -1e6 * curvature, curvature), smoothed) == 1).all()  # falls far beyond it
    steep = search.step(Line(ramp, change, -1e4 * curvature, 2e4 * curvature), smoothed)
    assert ((steep > 0.4) & (steep < 0.6)).all()


@pytest.mark.parametrize("search", [Bracketing(), Sampling(torch.zeros(1).double())])
def test_problems_of_a_batch_do_not_touch_each_other(search: LineSearch) -> None:
    smoothed, margins = example(False, 3)
    together = search.balance(smoothed.ramp(margins), smoothed)
    for one in torch.arange(3).split(1):
        part = Smoothed(smoothed.problem.select(one), smoothed.shift[one], smoothed.width[one])
        alone = search.balance(part.ramp(margins[one]), part)
        torch.testing.assert_close(alone, together[one], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("squared", [False, True])
def test_balanced_dual_variables_satisfy_their_equality(squared: bool, device: str) -> None:
    smoothed, margins = example(squared, 5, number=50)
    problem = Problem(smoothed.problem.targets.to(device), smoothed.problem.costs.to(device), squared)
    theta = smoothed.theta(smoothed.ramp(margins)).to(device)
    balanced = problem.balanced(theta)
    assert ((balanced >= 0) & (balanced <= theta)).all()
    alpha, before = problem.costs * balanced, problem.costs * theta
    assert ((problem.targets * alpha).sum(1).abs() <= 1e-12 * alpha.sum(1)).all()
    # The lighter class keeps what it has, and one without weight leaves nothing to the other.
    lighter = torch.minimum(*((before * (problem.targets == sign)).sum(1) for sign in (1, -1)))
    torch.testing.assert_close(alpha.sum(1), 2 * lighter)
    assert not problem.balanced(theta * (problem.targets > 0)).any()
