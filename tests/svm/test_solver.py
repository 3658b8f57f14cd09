"""The solver against the optimality conditions, linear systems solved densely, and problems solved by hand."""

from dataclasses import dataclass, fields
from typing import Any

import pytest
import torch
from sklearn import datasets  # type: ignore[import-untyped]
from sklearn.svm import SVC  # type: ignore[import-untyped]
from torch import Tensor

from torch_svm_seg import SVM
from torch_svm_seg.svm import smoothing, solver, spaces
from torch_svm_seg.svm.kernels import gaussian_kernel
from torch_svm_seg.svm.problem import Problem, Solution
from torch_svm_seg.svm.samples import FeatureSamples, GaussianSamples, Samples
from torch_svm_seg.svm.solver import solve
from torch_svm_seg.svm.spaces import FeatureSpace, KernelSpace, Space
from torch_svm_seg.svm.stages import solve_in_stages
from torch_svm_seg.tensors import first_true, spread_rows, take_rows


@pytest.fixture(params=[False, True], ids=["hinge", "squared"])
def squared(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@dataclass
class KernelSamples:
    """Samples of which only the kernel matrix (P, N, N) is known."""

    kernel: Tensor

    def space(self, rows: Tensor) -> KernelSpace:
        columns = take_rows(self.kernel, rows)
        return KernelSpace(take_rows(columns.mT, rows).mT)

    def evaluate(self, rows: Tensor, element: Tensor) -> Tensor:
        return (take_rows(self.kernel, rows).mT @ element[..., None])[..., 0]

    def squared_norm(self, element: Tensor, values: Tensor) -> Tensor:
        return (element * values).sum(1)

    def whole(self, rows: Tensor, element: Tensor) -> Tensor:
        return spread_rows(element, rows, self.kernel.shape[1])

    def part(self, rows: Tensor, element: Tensor) -> Tensor:
        return element.gather(1, rows)


def random_problem(
    device: str,
    squared: bool,
    dtype: torch.dtype = torch.float64,
    problems: int = 3,
    number: int = 40,
    channels: int = 4,
) -> tuple[Tensor, Problem]:
    """Noisy, partly overlapping classes (P, N, D), with costs between 0.5 and 1.5 times 0.1, 1, 10; some are 0."""
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(problems, number, channels, generator=generator, dtype=torch.float64)
    noise = torch.randn(problems, number, generator=generator, dtype=torch.float64)
    targets = torch.where(x[..., 0] + x[..., 1] ** 2 + noise > 1, 1.0, -1.0).double()
    costs = torch.rand(problems, number, generator=generator, dtype=torch.float64) + 0.5
    costs = costs * 10.0 ** (torch.arange(problems) % 3 - 1.0)[:, None]
    costs[:, -3:] = 0
    return x.to(device, dtype), Problem(targets.to(device, dtype), costs.to(device, dtype), squared)


def assert_optimal(features: Tensor, problem: Problem, found: Solution, tol: float) -> None:
    """The Karush-Kuhn-Tucker conditions of problems given by features (P, N, E), to a relative tolerance."""
    weights = found.element
    margins = problem.targets * ((features @ weights[..., None])[..., 0] + found.intercept)
    alpha = problem.costs * found.theta
    # Dual feasibility: the box, and the balance that comes of the free intercept.
    assert bool((found.theta >= 0).all())
    if not problem.squared:
        assert bool((found.theta <= 1).all())
    assert bool(((alpha * problem.targets).sum(1).abs() <= 1e-9 * alpha.sum(1)).all())
    # Stationarity: |w - sum alpha y phi|^2 / 2 is a part of the gap.
    expansion = ((alpha * problem.targets)[..., None] * features).sum(1)
    allowed = tol * found.objective
    assert bool(((weights - expansion).square().sum(1) / 2 <= allowed + 1e-12).all())
    # Complementary slackness: the other parts of the gap, none of them negative.
    lack = (1 - margins).clamp(min=0)
    if problem.squared:
        slackness = problem.costs * (lack.square() - found.theta * (1 - margins) + found.theta.square() / 4)
    else:
        slackness = problem.costs * (lack - found.theta * (1 - margins))
    assert bool((slackness >= -1e-12).all())
    assert bool((slackness <= allowed[:, None] + 1e-12).all())
    # What the solution says of itself.
    loss = lack.square() if problem.squared else lack
    objective = weights.square().sum(1) / 2 + (problem.costs * loss).sum(1)
    torch.testing.assert_close(found.objective, objective, rtol=1e-9, atol=0)
    gain = found.theta - found.theta.square() / 4 if problem.squared else found.theta
    dual = (problem.costs * gain).sum(1) - expansion.square().sum(1) / 2
    torch.testing.assert_close(found.gap, objective - dual, rtol=1e-6, atol=1e-9)
    assert bool((found.gap <= allowed).all())


def features_of(kernel: Tensor) -> Tensor:
    """Features whose inner products are a kernel matrix (P, N, N)."""
    values, vectors = torch.linalg.eigh(kernel)
    features: Tensor = vectors * values.clamp(min=0).sqrt()[:, None]
    return features


# Optimality


@pytest.mark.parametrize("channels", [1, 4, 60])
@pytest.mark.parametrize("tol", [1e-2, 1e-6, 1e-10])
def test_solutions_meet_the_optimality_conditions(tol: float, channels: int, squared: bool, device: str) -> None:
    """In features fewer and more than samples."""
    features, problem = random_problem(device, squared, channels=max(channels, 2))
    features = features[..., :channels]
    assert_optimal(features, problem, solve(FeatureSamples(features), problem, tol), tol)


@pytest.mark.parametrize("tol", [1e-2, 1e-8])
def test_solutions_under_the_gaussian_kernel_meet_the_optimality_conditions(
    tol: float, squared: bool, device: str
) -> None:
    x, problem = random_problem(device, squared)
    gamma = torch.tensor([0.1, 0.5, 2.0], dtype=x.dtype, device=device)[:, None, None]
    found = solve(GaussianSamples(x, gamma), problem, tol)
    features = features_of(gaussian_kernel(x, x, gamma))
    weights = (features.mT @ found.element[..., None])[..., 0]
    as_weights = Solution(weights, *(getattr(found, field.name) for field in fields(Solution)[1:]))
    assert_optimal(features, problem, as_weights, tol)


@pytest.mark.parametrize("costs", [0.1, 0.5, 3.0, 1000.0])
def test_two_points_at_distance_two(costs: float, squared: bool, dtype: torch.dtype, device: str) -> None:
    """1/2 w^2 + 2 C loss(w) is least at w = min(1, 2 C), for the squared hinge at w = 4 C / (1 + 4 C)."""
    features = torch.tensor([[[1.0], [-1.0]]], dtype=dtype, device=device)
    problem = Problem(features[..., 0], torch.full_like(features[..., 0], costs), squared)
    found = solve(FeatureSamples(features), problem, tol=1e-6)
    # At a cost of 1000, single precision's rounding of a margin of 1 costs as much.
    precision = 5e-3 if dtype == torch.float32 else 1e-3
    weight = 4 * costs / (1 + 4 * costs) if squared else min(1, 2 * costs)
    assert float(found.element) == pytest.approx(weight, rel=1e-3)
    assert float(found.intercept) == pytest.approx(0, abs=1e-3)
    assert float(found.objective) == pytest.approx(
        weight**2 / 2 + 2 * costs * max(0, 1 - weight) ** (2 if squared else 1), rel=precision
    )
    alpha = costs * found.theta[0]
    assert alpha.tolist() == pytest.approx([weight / 2] * 2, rel=1e-3)


@pytest.mark.parametrize("tol", [1e-1, 1e-5])
def test_single_precision_finds_the_objective_of_double(tol: float, squared: bool, device: str) -> None:
    features, problem = random_problem(device, squared, torch.float32, number=100)
    found = solve(FeatureSamples(features), problem, tol)
    in_double = Problem(problem.targets.double(), problem.costs.double(), squared)
    exact = solve(FeatureSamples(features.double()), in_double, 1e-10)
    assert bool((found.objective <= exact.objective * (1 + tol + 1e-6)).all())
    assert bool((found.objective - found.gap <= exact.objective * (1 + 1e-5)).all())


@pytest.mark.parametrize("first", [15, 1024])
def test_the_gap_bounds_the_error_whenever_it_stops(
    first: int, squared: bool, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """objective - gap <= optimum <= objective, from the first step, with some samples as with all."""
    monkeypatch.setattr(solver, "FIRST_WORKING_SET", first)
    features, problem = random_problem(device, squared, number=100)
    exact = solve(FeatureSamples(features), problem, 1e-10)
    for max_iter in (1, 2, 3, 5, 8, 13):
        found = solve(FeatureSamples(features), problem, 1e-10, max_iter)
        assert int(found.iterations.max()) <= max_iter
        assert bool((found.objective >= exact.objective * (1 - 1e-12)).all())
        assert bool((found.objective - found.gap <= exact.objective * (1 + 1e-12)).all())


# Working sets


@pytest.mark.parametrize("kind", ["features", "gaussian"])
def test_growing_working_sets_reach_the_solution_of_all_samples(
    kind: str, squared: bool, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, problem = random_problem(device, squared, number=200)
    gamma = torch.full((3, 1, 1), 0.3, dtype=x.dtype, device=device)
    samples: Samples = FeatureSamples(x) if kind == "features" else GaussianSamples(x, gamma)
    at_once = solve(samples, problem, 1e-8)
    monkeypatch.setattr(solver, "FIRST_WORKING_SET", 10)
    chosen, whole = solver._first_working_set(problem.costs > 0)
    assert not whole and int(chosen.sum(1).max()) < 100
    assert bool((problem.costs[chosen] > 0).all())
    grown = solve(samples, problem, 1e-8)
    torch.testing.assert_close(grown.objective, at_once.objective, rtol=1e-7, atol=0)
    torch.testing.assert_close(grown.element, at_once.element, rtol=1e-2, atol=1e-2)
    assert bool((grown.gap <= 1e-8 * grown.objective).all())
    features = x if kind == "features" else features_of(gaussian_kernel(x, x, gamma))
    weights = grown.element if kind == "features" else (features.mT @ grown.element[..., None])[..., 0]
    as_weights = Solution(weights, *(getattr(grown, field.name) for field in fields(Solution)[1:]))
    assert_optimal(features, problem, as_weights, 1e-8)


def test_a_class_that_the_first_working_set_misses_is_found(
    squared: bool, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sample of 400 with the target +1, wherever it is."""
    monkeypatch.setattr(solver, "FIRST_WORKING_SET", 10)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 3, generator=generator, dtype=torch.float64)
    places = torch.arange(0, 400, 57)
    targets = torch.full((len(places), 400), -1.0, dtype=torch.float64)
    targets[torch.arange(len(places)), places] = 1
    problem = Problem(targets.to(device), torch.full_like(targets, 2.0).to(device), squared)
    chosen, _ = solver._first_working_set(problem.costs > 0)
    in_first = chosen[torch.arange(len(places)), places.to(device)]
    assert bool((~in_first).any())
    features = x.to(device).expand(len(places), -1, -1)
    assert_optimal(features, problem, solve(FeatureSamples(features), problem, 1e-6), 1e-6)


def test_samples_of_cost_zero_take_no_part(squared: bool, device: str) -> None:
    """Nor does the problem grow by them: they may hold anything finite."""
    features, problem = random_problem(device, squared)
    costs = problem.costs.clone()
    costs[:, ::3] = 0
    spoilt = torch.where((costs == 0)[..., None], 1e3, features)
    found = solve(FeatureSamples(spoilt), Problem(problem.targets, costs, squared), 1e-10)
    kept = torch.arange(40, device=device) % 3 != 0
    fewer = Problem(problem.targets[:, kept], costs[:, kept], squared)
    expected = solve(FeatureSamples(features[:, kept]), fewer, 1e-10)
    torch.testing.assert_close(found.objective, expected.objective, rtol=1e-9, atol=0)
    torch.testing.assert_close(found.element, expected.element, rtol=1e-4, atol=1e-4)
    assert not found.theta[:, ::3].any()


# Spaces


def test_kernel_and_features_give_the_same_solution(squared: bool, device: str) -> None:
    features, problem = random_problem(device, squared)
    by_features = solve(FeatureSamples(features), problem, 1e-10)
    by_kernel = solve(KernelSamples(features @ features.mT), problem, 1e-10)
    weights = (features.mT @ by_kernel.element[..., None])[..., 0]
    torch.testing.assert_close(weights, by_features.element, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(by_kernel.intercept, by_features.intercept, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(by_kernel.objective, by_features.objective, rtol=1e-9, atol=0)


def test_gaussian_samples_give_the_solution_of_their_kernel_matrix(squared: bool, device: str) -> None:
    x, problem = random_problem(device, squared)
    gamma = torch.tensor([0.1, 0.5, 2.0], dtype=x.dtype, device=device)[:, None, None]
    by_samples = solve(GaussianSamples(x, gamma), problem, 1e-10)
    by_kernel = solve(KernelSamples(gaussian_kernel(x, x, gamma)), problem, 1e-10)
    torch.testing.assert_close(by_samples.objective, by_kernel.objective, rtol=1e-9, atol=0)
    torch.testing.assert_close(by_samples.theta, by_kernel.theta, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("active", [1, 4, 6, 20])
@pytest.mark.parametrize("kind", ["features", "kernel"])
def test_newton_direction_solves_the_newton_system(kind: str, active: int, device: str) -> None:
    """[I + Phi' S Phi, Phi' s; s' Phi, sum s] (direction, turn) = (-gradient, 0), by samples and by 5 features."""
    generator = torch.Generator().manual_seed(active)
    features = torch.randn(3, 25, 5, generator=generator, dtype=torch.float64).to(device)
    rows = torch.stack([torch.randperm(25, generator=generator)[:active] for _ in range(3)]).to(device)
    slopes = torch.rand(3, active, generator=generator, dtype=torch.float64).to(device) * 10 + 0.1
    slopes[1, active // 2 + 1 :] = 0  # padding
    coefficients = torch.randn(3, 25, generator=generator, dtype=torch.float64).to(device)
    residual = (features.mT @ coefficients[..., None])[..., 0]
    space: Space
    if kind == "features":
        space = FeatureSpace(features)
        direction, values, turn = space.newton(rows, slopes, residual, space.evaluate(residual))
    else:
        space = KernelSpace(features @ features.mT)
        expansion, values, turn = space.newton(rows, slopes, coefficients, space.evaluate(coefficients))
        direction = (features.mT @ expansion[..., None])[..., 0]
    torch.testing.assert_close(values, (features @ direction[..., None])[..., 0])
    for problem in range(3):
        phi = torch.cat([features[problem, rows[problem]], torch.ones(active, 1, device=device)], 1).double()
        system = phi.T @ (slopes[problem, :, None] * phi)
        system += torch.diag(torch.tensor([1.0] * 5 + [0.0])).to(system)
        expected = torch.linalg.solve(system, -torch.cat([residual[problem], residual.new_zeros(1)]))
        torch.testing.assert_close(torch.cat([direction[problem], turn[problem]]), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", ["features", "kernel"])
def test_newton_without_active_samples_follows_the_gradient(kind: str, device: str) -> None:
    features = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(device)
    space: Space = FeatureSpace(features) if kind == "features" else KernelSpace(features @ features.mT)
    rows, none = torch.zeros(2, 1, dtype=torch.long, device=device), torch.zeros(2, 1, device=device).double()
    residual = space.combine(torch.ones(2, 6, dtype=torch.float64, device=device))
    direction, values, turn = space.newton(rows, none, residual, space.evaluate(residual))
    torch.testing.assert_close(direction, -residual)
    torch.testing.assert_close(values, -space.evaluate(residual))
    assert not turn.any()


@pytest.mark.parametrize("kind", ["features", "kernel"])
def test_spaces_have_the_same_geometry(kind: str, device: str) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(3, 25, 5, generator=generator, dtype=torch.float64).to(device)
    first, second = (torch.randn(3, 25, generator=generator, dtype=torch.float64).to(device) for _ in range(2))
    space: Space = FeatureSpace(features) if kind == "features" else KernelSpace(features @ features.mT)
    a, b = space.combine(first), space.combine(second)
    points = (features.mT @ torch.stack([first, second], -1)).unbind(-1)
    torch.testing.assert_close(space.evaluate(a), (features @ points[0][..., None])[..., 0])
    torch.testing.assert_close(space.inner(a, b, space.evaluate(b)), (points[0] * points[1]).sum(1))
    for change in (first, torch.eye(25, dtype=torch.float64, device=device)[:3]):
        near = space.combine(first + change)
        torch.testing.assert_close(space.evaluate_near(near, a, space.evaluate(a)), space.evaluate(near))


def test_systems_that_rounding_made_indefinite_are_solved() -> None:
    """Rank 1 in single precision, where the factorisation fails without a ridge."""
    column = torch.linspace(0.1, 1, 40)[:, None]
    system = (column @ column.T - 1e-6 * torch.eye(40))[None]
    assert int(torch.linalg.cholesky_ex(system).info) > 0
    right = (system @ torch.ones(1, 40, 1)).clone()
    found = spaces.solve_positive(system.clone(), right)
    torch.testing.assert_close(column.T @ found[0].float(), column.T @ torch.ones(40, 1), rtol=0.05, atol=0.05)


# Batches


@pytest.mark.parametrize("kind", ["features", "gaussian"])
def test_problems_solved_together_in_parts_and_alone_are_the_same(kind: str, squared: bool, device: str) -> None:
    x, problem = random_problem(device, squared, problems=4)
    gamma = torch.full((4, 1, 1), 0.3, dtype=x.dtype, device=device)

    def samples(part: Any) -> Samples:
        return FeatureSamples(x[part]) if kind == "features" else GaussianSamples(x[part], gamma[part])

    together = solve(samples(slice(None)), problem, 1e-10)
    in_parts = solve_in_stages(samples, torch.arange(4, device=device), problem, 1e-10)
    assert [getattr(in_parts, field.name).shape for field in fields(Solution)] == [
        getattr(together, field.name).shape for field in fields(Solution)
    ]
    alone = []
    for one in range(4):
        few = Problem(problem.targets[one : one + 1], problem.costs[one : one + 1], squared)
        alone.append(solve(samples(slice(one, one + 1)), few, 1e-10))
    for other in (in_parts, Solution(*(torch.cat([getattr(s, f.name) for s in alone]) for f in fields(Solution)))):
        torch.testing.assert_close(other.objective, together.objective, rtol=1e-9, atol=0)
        torch.testing.assert_close(other.element, together.element, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(other.theta, together.theta, rtol=1e-3, atol=1e-3)


def test_an_easy_problem_stands_still_while_a_hard_one_goes_on(squared: bool, device: str) -> None:
    x, problem = random_problem(device, squared, problems=2, number=60)
    easy = torch.zeros_like(x[0])
    easy[:, 0] = 5 * problem.targets[0]
    features = torch.stack([easy, x[1]])
    together = solve(FeatureSamples(features), problem, 1e-10)
    few = Problem(problem.targets[:1], problem.costs[:1], squared)
    alone = solve(FeatureSamples(features[:1]), few, 1e-10)
    assert int(together.iterations[0]) == int(alone.iterations[0]) < int(together.iterations[1])


# The tensor operations underneath


def test_first_true_lists_true_entries_in_order(device: str) -> None:
    mask = torch.rand(3, 4, 50, generator=torch.Generator().manual_seed(0)) < 0.3
    mask[1, 2] = False
    indices, valid = first_true(mask.to(device))
    assert indices.shape == valid.shape == (3, 4, int(mask.sum(-1).max()))
    for image in range(3):
        for row in range(4):
            listed = indices[image, row][valid[image, row]].tolist()
            assert listed == mask[image, row].nonzero()[:, 0].tolist()
            padding = indices[image, row][~valid[image, row]].cpu()
            assert not mask[image, row][padding].any()
    indices, valid = first_true(torch.zeros(2, 5, dtype=torch.bool, device=device))
    assert indices.shape == (2, 1) and not valid.any()


def test_spread_rows_adds_where_places_repeat(device: str) -> None:
    values = torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]], device=device)
    rows = torch.tensor([[0, 3, 3], [2, 1, 0]], device=device)
    assert spread_rows(values, rows, 5).tolist() == [[1, 0, 0, 6, 0], [32, 16, 8, 0, 0]]


def test_take_rows_takes_each_images_own(device: str) -> None:
    values = torch.arange(24.0, device=device).view(2, 4, 3)
    taken = take_rows(values, torch.tensor([[3, 0], [1, 1]], device=device))
    assert taken.tolist() == [[[9, 10, 11], [0, 1, 2]], [[15, 16, 17], [15, 16, 17]]]


@pytest.mark.parametrize("last_width", [1e-3, 0.05, 1.0])
@pytest.mark.parametrize("deviation", [0.1, 3.0])
def test_a_narrow_smoothing_zone_does_not_stall_the_solver(
    last_width: float, deviation: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A warm start far from the solution leaves few samples in a narrow zone, and Newton's steps next to nothing."""
    monkeypatch.setattr(smoothing, "LAST_WIDTH", last_width)
    monkeypatch.setattr(solver, "FIRST_WORKING_SET", 20)
    generator = torch.Generator().manual_seed(0)
    features = deviation * torch.randn(2, 300, 30, generator=generator)
    targets = torch.where(features[..., :3].sum(2) + torch.randn(2, 300, generator=generator) > 0, 1.0, -1.0)
    found = solve(FeatureSamples(features), Problem(targets, torch.ones(2, 300)), tol=1e-3, max_iter=400)
    assert bool((found.gap <= 1e-3 * found.objective).all())


def test_of_many_best_intercepts_the_middle_one_separates(dtype: torch.dtype) -> None:
    """So weak a cost that all samples carry it in full: LIBSVM takes the middle of the intercepts, too."""
    x, y = datasets.load_iris(return_X_y=True)
    x, y = torch.from_numpy(x[:100]), torch.from_numpy(y[:100])
    ours = SVM(kernel="linear", C=1e-4).fit(x.to(dtype), y)
    theirs = SVC(kernel="linear", C=1e-4).fit(x.numpy(), y.numpy())
    assert float((ours.predict(x.to(dtype)) == y).double().mean()) == theirs.score(x.numpy(), y.numpy()) == 1
    values = ours.decision_function(x.to(dtype))[:, 1].double()
    torch.testing.assert_close(values, torch.from_numpy(theirs.decision_function(x.numpy())), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
@pytest.mark.parametrize("C", [1e-8, 1e-5, 1e4, 1e6])
def test_extreme_costs_end_in_few_steps(kernel: Any, C: float, dtype: torch.dtype) -> None:
    """Three points, and classes that a line separates, of rounded coordinates."""
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]], dtype=dtype), torch.tensor([0, 1, 1])
    x = (2 * torch.randn(400, 3, generator=torch.Generator().manual_seed(0))).round() / 2
    y = (x[:, 0] > 0).long()
    x[:, 0] += y
    for samples, labels in (points, (x.to(dtype), y)):
        svm = SVM(kernel=kernel, C=C, approximation=None).fit(samples, labels)
        assert 0 <= float(svm.duality_gap_[0]) <= 1e-3 * float(svm.objective_[0])
        assert int(svm.n_iter_[0]) < 500
        if C > 1:
            assert torch.equal(svm.predict(samples), labels)


@pytest.mark.parametrize("scale", [1e-6, 1e3, 1e6])
def test_large_and_small_samples_are_as_easy_as_others(scale: float, dtype: torch.dtype) -> None:
    x = torch.randn(400, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = (x[:, 0] + 0.3 * torch.randn(400, generator=torch.Generator().manual_seed(1)) > 0).long()
    usual = SVM(kernel="linear", C=1.0, tol=1e-5).fit(x, y)
    scaled = SVM(kernel="linear", C=scale**-2, tol=1e-5).fit((scale * x).to(dtype), y)
    assert bool((scaled.duality_gap_ <= 1e-5 * scaled.objective_).all())
    torch.testing.assert_close(scale**2 * scaled.objective_, usual.objective_, rtol=1e-4, atol=0)
    wide = SVM(kernel="linear", C=1.0).fit((scale * x).to(dtype), y)
    assert 0 <= float(wide.duality_gap_[0]) <= 1e-3 * float(wide.objective_[0])
