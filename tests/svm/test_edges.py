"""Where single precision stalls, and where costs are so small or large that rounding decides."""

from typing import Any

import pytest
import torch
from sklearn.svm import SVC
from torch import Tensor

from torch_svm_seg import SVM
from torch_svm_seg.svm import stages
from torch_svm_seg.svm.problem import Solution
from torch_svm_seg.svm.solver import solve

THREE = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 1, 1])


def overlapping(number: int, offset: float = 0.0) -> tuple[Tensor, Tensor]:
    """Single precision samples, away from the origin, of two classes; a tenth of the labels are wrong."""
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(number, 4, generator=generator)
    y = (x[:, 0] + x[:, 1] ** 2 > 0.7) ^ (torch.rand(number, generator=generator) < 0.1)
    return x + offset, y.long()


@pytest.mark.parametrize(
    "settings",
    [
        {"C": 2e4, "gamma": 0.05, "approximation": None},
        {"C": 1e4, "approximation": None, "loss": "squared_hinge"},
        {"C": 1e4, "gamma": 0.01, "approximation": None},
    ],
)
@pytest.mark.parametrize("number", [200, 700], ids=["by Newton", "by pairs"])
def test_what_single_precision_cannot_solve_goes_on_in_double_soon(
    number: int, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From where it stands: the objective is double precision's, and steps are few in both."""
    steps: list[tuple[torch.dtype, int]] = []

    def counted(samples: Any, *arguments: Any, **options: Any) -> Solution:
        found = solve(samples, *arguments, **options)
        steps.append((samples.dtype, int(found.iterations.max())))
        return found

    monkeypatch.setattr(stages, "solve", counted)
    x, y = overlapping(number)
    found = SVM(**settings).fit(x, y)
    in_single = max((taken for dtype, taken in steps if dtype == torch.float32), default=0)
    expected = SVM(**settings).fit(x.double(), y)
    assert float(found.duality_gap_[0]) <= 1e-3 * float(found.objective_[0])
    assert float(found.objective_[0]) == pytest.approx(float(expected.objective_[0]), rel=1e-3)
    assert in_single < stages.SINGLE_PRECISION_STEPS
    assert int(found.n_iter_[0]) <= in_single + 2 * int(expected.n_iter_[0]) + stages.PATIENCE


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_three_points_at_a_tiny_cost_take_few_steps_to_a_tight_tolerance(kernel: Any, dtype: torch.dtype) -> None:
    """By hand: the one sample of its class carries its cost in full, and so do the two others together."""
    x, y = THREE[0].to(dtype), THREE[1]
    svm = SVM(kernel=kernel, C=1e-5, gamma=0.5, approximation=None, tol=1e-5).fit(x, y)
    assert int(svm.n_iter_[0]) < 10
    assert 0 <= float(svm.duality_gap_[0]) <= 1e-5 * float(svm.objective_[0])
    # sum alpha = 2 C, and |w|^2 / 2 is of the order of C^2.
    assert float(svm.objective_[0]) == pytest.approx(2e-5, rel=2e-5)


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_the_middle_of_the_optimal_intercepts_is_libsvms(kernel: Any, dtype: torch.dtype) -> None:
    """Classes of the same size at so small a cost that all samples carry it in full."""
    x, _ = overlapping(60)
    y = (torch.arange(60) % 2).long()
    x[:, 0] += 2 * y
    ours = SVM(kernel=kernel, C=1e-4, gamma=0.1, approximation=None, tol=1e-6).fit(x.to(dtype), y)
    theirs = SVC(kernel=kernel, C=1e-4, gamma=0.1, tol=1e-9).fit(x.numpy(), y.numpy())
    values = ours.decision_function(x.to(dtype))[:, 1].double()
    torch.testing.assert_close(values, torch.from_numpy(theirs.decision_function(x.numpy())), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("settings", [{"kernel": "linear"}, {"gamma": 0.3, "approximation": None}])
@pytest.mark.parametrize("C", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("rounded", [False, True])
def test_a_gap_is_never_below_zero(rounded: bool, C: float, settings: dict[str, Any], dtype: torch.dtype) -> None:
    """On separable samples; rounded ones coincide."""
    x, _ = overlapping(300)
    x = (2 * x).round() / 2 if rounded else x
    y = (x[:, 0] > 0).long()
    x[:, 0] += y
    svm = SVM(C=C, **settings).fit(x.to(dtype), y)
    assert 0 <= float(svm.duality_gap_[0]) <= 1e-3 * float(svm.objective_[0])
