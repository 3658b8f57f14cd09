"""The path that a GPU takes, on a CPU: solutions of the same objective as those of the CPU's own path."""

from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.operations import path_of_a_gpu
from torch_svm_seg.svm.approximations import Fourier
from torch_svm_seg.svm.svm import SVM


def classes(number: int, kinds: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two images of overlapping classes, in single precision; the second has the first two classes alone."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, number, 4, generator=generator)
    noise = 0.4 * torch.randn(2, number, generator=generator)
    y = (x[..., 0] + x[..., 1] ** 2 + noise).mul(1.5).long().clamp(0, kinds - 1)
    y[1] = y[1].clamp(max=1)
    return x, y


@pytest.mark.parametrize("C", [0.1, 1.0, 100.0])
@pytest.mark.parametrize("loss", ["hinge", "squared_hinge"])
@pytest.mark.parametrize(
    ("settings", "number"),
    [({}, 300), ({}, 2300), ({"kernel": "linear"}, 2300), ({"approximation": Fourier(64)}, 700)],
    ids=["rbf", "rbf in working sets", "linear in working sets", "fourier"],
)
def test_the_solution_is_that_of_the_cpu(settings: dict[str, Any], number: int, loss: Any, C: float) -> None:
    x, y = classes(number, 3, seed=number)
    here = SVM(C=C, loss=loss, **settings).fit(x, y)
    with path_of_a_gpu():
        there = SVM(C=C, loss=loss, **settings).fit(x, y)
    known = ~here.objective_.isnan()
    assert (there.duality_gap_ <= 1e-3 * there.objective_)[known].all()
    torch.testing.assert_close(there.objective_, here.objective_, rtol=1e-3, atol=0, equal_nan=True)


@pytest.mark.parametrize("loss", ["hinge", "squared_hinge"])
def test_a_small_tolerance_is_reached(loss: Any) -> None:
    x, y = classes(400, 2, seed=1)
    settings: dict[str, Any] = {"loss": loss, "tol": 1e-8, "approximation": None}
    exact = SVM(**settings).fit(x.double(), y)
    with path_of_a_gpu():
        svm = SVM(**settings).fit(x.double(), y)
    torch.testing.assert_close(svm.objective_, exact.objective_, rtol=1e-8, atol=0)
    torch.testing.assert_close(svm.decision_function(x), exact.decision_function(x), rtol=0, atol=1e-2)


@pytest.mark.parametrize("gradient", ["implicit", "unrolled"])
def test_gradients_are_those_of_the_cpu(gradient: Any) -> None:
    x, y = classes(60, 2, seed=2)

    def slopes() -> Tensor:
        samples = x.double().requires_grad_()
        svm = SVM(loss="squared_hinge", tol=1e-10, gradient=gradient, gamma=0.3).fit(samples, y)
        (slopes,) = torch.autograd.grad(svm.decision_function(x[:, :9].double()).square().sum(), samples)
        return slopes

    here = slopes()
    with path_of_a_gpu():
        there = slopes()
    torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-5)


def test_weights_and_rare_classes() -> None:
    x, y = classes(500, 2, seed=3)
    y[:, 5:] = 0
    y[:, :5] = torch.tensor([1, 1, 0, 1, 0])
    weight = torch.rand(2, 500, generator=torch.Generator().manual_seed(4)) * (torch.arange(500) % 3 > 0)
    weight[:, 1] = 5
    here = SVM().fit(x, y, weight)
    with path_of_a_gpu():
        there = SVM().fit(x, y, weight)
    torch.testing.assert_close(there.objective_, here.objective_, rtol=1e-3, atol=0)
