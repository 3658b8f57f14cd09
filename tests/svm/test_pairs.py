"""Pair steps against LIBSVM, the optimality conditions and cases computed by hand; and the rows that they read."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.svm import SVC  # type: ignore[import-untyped]
from torch import Tensor

from torch_svm_seg import SVM
from torch_svm_seg.svm import kernel_rows, stages, working_sets
from torch_svm_seg.svm.kernel_rows import KernelRows
from torch_svm_seg.svm.kernels import gaussian_kernel
from torch_svm_seg.svm.line_search import best_intercept
from torch_svm_seg.svm.problem import Problem
from torch_svm_seg.svm.samples import GaussianSamples
from torch_svm_seg.svm.solver import solve
from torch_svm_seg.svm.working_sets import solve_by_pairs


def noisy(number: int, share: float, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Samples (number, 5) of two classes, a share of the labels flipped."""
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(number, 5, generator=generator, dtype=torch.float64)
    y = (x[:, 0] + x[:, 1] ** 2 > 0.7) ^ (torch.rand(number, generator=generator) < share)
    return x.to(dtype), y.long()


class Known(GaussianSamples):
    """Samples of a known kernel matrix (N, N)."""

    def __init__(self, kernel: Tensor) -> None:
        super().__init__(kernel[None], torch.ones(1, 1, 1))

    def kernel_blocks(self) -> Callable[[Tensor], Callable[[Tensor], Tensor]]:
        return lambda columns: lambda rows: self.x[0][rows][:, columns]

    def diagonal(self) -> Tensor:
        return self.x[0].diagonal()[None]


def rows_of(kernel: Tensor) -> KernelRows:
    return KernelRows(Known(kernel))


@pytest.mark.parametrize("share", [0.0, 0.2])
@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
def test_objectives_are_libsvms_with_wrong_labels(share: float, C: float, dtype: torch.dtype) -> None:
    x, y = noisy(600, share, dtype)
    svm = SVM(C=C, gamma=0.3, approximation=None).fit(x, y)
    reference = SVC(C=C, gamma=0.3, tol=1e-6).fit(x.numpy(), y.numpy())
    coefficients = torch.from_numpy(reference.dual_coef_[0])
    support = x.double()[torch.from_numpy(reference.support_).long()]
    kernel = gaussian_kernel(support[None], support[None], torch.tensor([[[0.3]]]).double())[0]
    dual = float(coefficients.abs().sum() - coefficients @ kernel @ coefficients / 2)
    assert dual * (1 - 1e-5) <= float(svm.objective_[0]) <= dual * (1 + 1.1e-3)
    assert 0 <= float(svm.duality_gap_[0]) <= 1e-3 * float(svm.objective_[0])


@pytest.mark.parametrize("squared", [False, True])
def test_pair_steps_and_newtons_find_the_same(squared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples of unequal costs, some of them 0, and one given four times."""
    x, y = noisy(200, 0.1)
    x[1:4], y[1:4] = x[0], torch.tensor([0, 1, 1])
    costs = torch.linspace(0, 3, 200, dtype=torch.float64)[None].flip(1).clone()
    costs[0, 50:60] = 0
    problem = Problem(2.0 * y[None] - 1, costs, squared)
    gamma = torch.full((1, 1, 1), 0.5).double()
    monkeypatch.setattr(working_sets, "SWEEPS", 1000)
    found = solve_by_pairs(rows_of(gaussian_kernel(x[None], x[None], gamma)[0]), problem, 1e-9, 10000)
    expected = solve(GaussianSamples(x[None], gamma), problem, 1e-11)
    assert not bool(found.unfinished(1e-9).any())
    torch.testing.assert_close(found.objective, expected.objective, rtol=1e-8, atol=0)
    torch.testing.assert_close(found.intercept, expected.intercept, rtol=1e-3, atol=1e-3)
    assert float((problem.targets * problem.costs * found.theta).sum().abs()) < 1e-10
    assert bool((found.theta >= 0).all()) and (squared or bool((found.theta <= 1).all()))
    assert not bool(found.theta[costs == 0].any())


@pytest.mark.parametrize("max_iter", [1, 2, 3])
def test_the_gap_bounds_the_error_wherever_pair_steps_stop(max_iter: int) -> None:
    x, y = noisy(150, 0.2)
    problem = Problem(2.0 * y[None] - 1, torch.ones(1, 150).double())
    kernel = gaussian_kernel(x[None], x[None], torch.ones(1, 1, 1).double())[0]
    best = solve(GaussianSamples(x[None], torch.ones(1, 1, 1).double()), problem, 1e-10).objective
    found = solve_by_pairs(rows_of(kernel), problem, 1e-12, max_iter)
    assert int(found.iterations) == max_iter
    assert float(found.objective - found.gap) <= float(best) * (1 + 1e-9) <= float(found.objective) * (1 + 2e-9)


def test_newtons_steps_finish_what_pair_steps_have_not(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = noisy(500, 0.2)
    whole = SVM(approximation=None, tol=1e-7).fit(x, y)
    monkeypatch.setattr(working_sets, "SWEEPS", 1)
    begun = SVM(approximation=None, tol=1e-7).fit(x, y)
    assert float(begun.duality_gap_[0] / begun.objective_[0]) <= 1e-7
    assert int(begun.n_iter_[0]) > 1
    torch.testing.assert_close(begun.objective_, whole.objective_, rtol=2e-7, atol=0)


def test_problems_of_a_batch_of_images_are_solved_as_alone() -> None:
    """Several classes, whose problems share their image's rows, and other images' do not."""
    x, y = noisy(800, 0.1)
    y = y + 2 * (x[:, 2] > 0)
    images, classes = x.view(2, 400, 5), y.view(2, 400)
    together = SVM(approximation=None, gamma=0.3).fit(images, classes)
    alone = [SVM(approximation=None, gamma=0.3).fit(images[i], classes[i]) for i in range(2)]
    torch.testing.assert_close(together.objective_, torch.stack([svm.objective_ for svm in alone]))


def test_more_rows_than_memory_holds_are_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = noisy(500, 0.2)
    expected = SVM(approximation=None).fit(x, y)
    monkeypatch.setattr(kernel_rows, "KEPT_BYTES", 1)
    monkeypatch.setattr(kernel_rows, "BLOCK", 8)
    found = SVM(approximation=None).fit(x, y)
    assert bool((found.duality_gap_ <= 1e-3 * found.objective_).all())
    torch.testing.assert_close(found.objective_, expected.objective_, rtol=1e-3, atol=0)


def test_rows_are_the_matrixs_while_others_take_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_rows, "KEPT_BYTES", 1)
    monkeypatch.setattr(kernel_rows, "BLOCK", 3)
    matrix = torch.randn(40, 40, generator=torch.Generator().manual_seed(0))
    rows, generator = rows_of(matrix), np.random.default_rng(0)
    for sample in generator.integers(0, 40, 300):
        first = rows.fetch(int(sample), generator.random(40))
        other = int(generator.integers(40))
        second = rows.fetch(other, generator.random(40))
        assert np.array_equal(second, matrix[other].numpy())
        assert np.array_equal(first, matrix[sample].numpy()), "the row needed last stays"
    coefficients = generator.random(40) * (generator.random(40) < 0.5)
    assert rows.product(coefficients) == pytest.approx(coefficients @ matrix.double().numpy())


@pytest.mark.parametrize("seed", range(5))
def test_the_best_intercept_is_the_best_of_all_kinks(seed: int, squared: bool = False) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(3, 30, generator=generator, dtype=torch.float64)
    targets = torch.randn(3, 30, generator=generator).double().sign()
    costs = torch.rand(3, 30, generator=generator, dtype=torch.float64) * (torch.rand(3, 30, generator=generator) < 0.8)
    problem = Problem(targets, costs, squared)

    def objective(intercept: Tensor) -> Tensor:
        return problem.primal(torch.zeros(3).double(), targets * (values + intercept))

    found = objective(best_intercept(problem, values))
    every = torch.stack([objective((targets - values)[:, place, None]) for place in range(30)])
    torch.testing.assert_close(found, every.amin(0))


def test_of_many_best_intercepts_the_middle_is_taken() -> None:
    """As many samples on either side, all inside the margin: the objective is flat between -0.5 and 0.7."""
    targets = torch.tensor([[1.0, 1.0, -1.0, -1.0]]).double()
    values = torch.tensor([[0.1, 0.3, -0.5, -0.2]]).double()
    kinks = (targets - values).sort(1).values
    assert float(best_intercept(Problem(targets, torch.ones_like(targets)), values)) == pytest.approx(
        float(kinks[0, 1:3].mean())
    )


def test_tiny_problems_are_left_to_newton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "_solve_by_pairs", lambda *_: pytest.fail("too small"))
    x, y = noisy(100, 0.1)
    assert float(SVM(approximation=None).fit(x, y).objective_[0]) > 0
