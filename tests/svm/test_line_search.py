"""The search along a line finds where the smoothed objective, written down as it is defined, is least."""

import pytest
import torch
from conftest import normal

from torch_svm_seg.svm.line_search import Line, between_kinks, bracketed, minimum_along, step_along
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
    shift, width = normal(seed + 2, 3, number).clamp(0, 1), normal(seed + 4, 3, 1).abs() + 0.1
    return Smoothed(Problem(targets, costs, squared), shift, width), 2 * normal(seed + 3, 3, number)


def a_line(margins: torch.Tensor, seed: int) -> Line:
    """A line that falls at its start, along which one sample does not move."""
    change = normal(seed + 500, *margins.shape)
    change[:, 5] = 0
    return Line(margins, change, -100 + normal(seed + 501, 3, 1), 20 * normal(seed + 502, 3, 1).abs() + 1)


def everywhere(line: Line, smoothed: Smoothed) -> torch.Tensor:
    """The minimum on the whole line, by Newton's method in a bracket."""
    start = torch.zeros_like(line.margins[:, :1])
    return bracketed(line, smoothed, start, start - torch.inf, start + torch.inf, start)


@pytest.mark.parametrize("search", [everywhere, between_kinks])
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_nothing_along_the_line_is_lower(search, squared, seed):
    smoothed, margins = example(squared, 10 * seed)
    line = a_line(margins, seed)
    best = search(line, smoothed)

    def objective(t: torch.Tensor) -> torch.Tensor:
        norm = (line.slope * t + line.curvature / 2 * t.square())[:, 0]
        return norm + loss(smoothed, margins + t * line.change)

    for offset in (-1.0, -0.1, -0.01, 0.01, 0.1, 1.0):
        assert (objective(best + offset) >= objective(best) - 1e-6).all()


@pytest.mark.parametrize("search", [everywhere, between_kinks])
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_the_best_intercept_balances_the_dual_variables(search, squared, seed):
    smoothed, margins = example(squared, 10 * seed, number=200)
    targets = smoothed.problem.targets
    theta, _ = smoothed.theta(margins + search(Line(margins, targets), smoothed) * targets)
    alpha = smoothed.problem.costs * theta
    assert ((alpha * targets).sum(1).abs() <= 1e-9 * alpha.sum(1)).all()


@pytest.mark.parametrize("squared", [False, True])
def test_a_step_ends_where_the_line_does_or_where_it_is_good_enough(squared: bool, device: str) -> None:
    smoothed, margins = example(squared, 7)
    smoothed = Smoothed(
        Problem(smoothed.problem.targets.to(device), smoothed.problem.costs.to(device), squared),
        smoothed.shift.to(device),
        smoothed.width.to(device),
    )
    change, curvature = normal(1, 3, 12).to(device), torch.ones(3, 1, device=device).double()
    flat = Line(margins.to(device), change, -1e6 * curvature, curvature)
    nothing = torch.zeros(3, 1, device=device).double()
    assert (step_along(flat, smoothed, nothing) == 1).all()  # falls far beyond it
    steep = Line(margins.to(device), change, -1e4 * curvature, 2e4 * curvature)
    exact = minimum_along(steep, smoothed)
    assert ((exact > 0.4) & (exact < 0.6)).all()
    torch.testing.assert_close(step_along(steep, smoothed, nothing), exact)
    assert ((step_along(steep, smoothed, nothing + 1e3) - exact).abs() < 0.1).all()


def test_a_flat_minimum_gives_its_middle() -> None:
    """Two samples lose nothing where their margins, t and 4 - t, are at least 1: from t = 1 to t = 3."""
    targets = torch.tensor([[1.0, -1.0]]).double()
    problem = Problem(targets, torch.tensor([[2.0, 7.0]]).double())
    margins = torch.tensor([[0.0, 4.0]]).double()
    smoothed = Smoothed(problem, torch.zeros_like(margins), torch.full((1, 1), 0.25).double())
    torch.testing.assert_close(between_kinks(Line(margins, targets), smoothed), torch.tensor([[2.0]]).double())


@pytest.mark.parametrize("search", [everywhere, between_kinks])
def test_problems_of_a_batch_do_not_touch_each_other(search):
    smoothed, margins = example(False, 3)
    together = search(Line(margins, smoothed.problem.targets), smoothed)
    for one in torch.arange(3).split(1):
        part = Smoothed(smoothed.problem.of(one), smoothed.shift[one], smoothed.width[one])
        alone = search(Line(margins[one], part.problem.targets), part)
        torch.testing.assert_close(alone, together[one], rtol=1e-9, atol=1e-9)
