"""Gradients through the fit: against finite differences of our and of LIBSVM's solutions."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.svm import SVC  # type: ignore[import-untyped]
from torch import Tensor

from torch_svm_seg import SVM, SVMExpander
from torch_svm_seg.svm.approximations import Fourier, Nystroem

KERNELS: list[dict[str, Any]] = [
    {"kernel": "linear"},
    {"kernel": "rbf", "approximation": None},
    {"kernel": "rbf", "approximation": Nystroem(10)},
    {"kernel": "rbf", "approximation": Fourier(10)},
]


def problem(images: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Samples (B, 12, 2) of 3 overlapping classes, 2 in the last image; labels, weights, and queries (B, 5, 2)."""
    generator = torch.Generator().manual_seed(0)
    y = (torch.arange(12) % 3).repeat(images, 1)
    x = torch.randn(images, 12, 2, generator=generator, dtype=torch.float64) + 0.7 * y[..., None]
    y[-1] = torch.where(y[-1] == 2, -1, y[-1])
    weights = torch.rand(images, 12, generator=generator, dtype=torch.float64) + 0.5
    return x, y, weights, torch.randn(images, 5, 2, generator=generator, dtype=torch.float64)


def finite(scores: Tensor) -> Tensor:
    return scores[scores.isfinite()]


@pytest.mark.parametrize("gradient", ["implicit", "unrolled"])
@pytest.mark.parametrize("loss", ["hinge", "squared_hinge"])
@pytest.mark.parametrize("options", [*KERNELS, {**KERNELS[1], "gamma": 0.4}], ids=str)
def test_gradients_are_those_of_finite_differences(gradient: Any, loss: Any, options: dict[str, Any]) -> None:
    """With respect to samples, weights, queries, C and gamma."""
    x, y, weights, queries = problem()

    def scores(x: Tensor, weights: Tensor, queries: Tensor, C: Tensor, gamma: Tensor) -> Tensor:
        kernel = {"gamma": gamma} if "gamma" in options else {}
        svm = SVM(**{**options, **kernel}, loss=loss, C=C, tol=1e-9, gradient=gradient)
        return finite(svm.fit(x, y, weights).decision_function(queries))

    arguments = [x, weights, queries, *torch.tensor([1.3, 0.4]).double()]
    assert torch.autograd.gradcheck(
        scores, [argument.clone().requires_grad_() for argument in arguments], atol=1e-4, rtol=1e-3, fast_mode=True
    )


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_gradients_are_those_of_libsvm(kernel: Any) -> None:
    """By central differences of SVC's decision values along random directions of samples, weights and C."""
    x, y, weights, queries = (part[-1] for part in problem())
    x, weights, y = x[y >= 0], weights[y >= 0], y[y >= 0]
    generator = np.random.default_rng(0)
    C = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    svm = SVM(kernel=kernel, approximation=None, C=C, gamma=0.5, tol=1e-10, gradient="implicit")
    x, weights = x.requires_grad_(), weights.requires_grad_()
    mixed = torch.as_tensor(generator.normal(size=5))
    value = svm.fit(x, y, weights).decision_function(queries)[:, 1] @ mixed
    slopes = torch.autograd.grad(value, (x, weights, C))

    def reference(*moved: Any) -> float:
        samples, share, cost = moved
        fitted = SVC(kernel=kernel, C=cost, gamma=0.5, tol=1e-12).fit(samples, y.numpy(), sample_weight=share)
        return float(fitted.decision_function(queries.numpy()) @ mixed.numpy())

    start = [x.detach().numpy(), weights.detach().numpy(), C.item()]
    for place, slope in enumerate(slopes):
        direction = generator.normal(size=tuple(slope.shape))
        ahead, behind = ([*start], [*start])
        ahead[place], behind[place] = start[place] + 1e-3 * direction, start[place] - 1e-3 * direction
        expected = (reference(*ahead) - reference(*behind)) / 2e-3
        assert float((slope.numpy() * direction).sum()) == pytest.approx(expected, rel=1e-2, abs=1e-4)


@pytest.mark.parametrize("gradient", ["implicit", "unrolled"])
@pytest.mark.parametrize("loss", ["hinge", "squared_hinge"])
@pytest.mark.parametrize("options", KERNELS, ids=str)
def test_gradients_in_single_precision_are_close_to_those_in_double(
    gradient: Any, loss: Any, options: dict[str, Any]
) -> None:
    x, y, weights, queries = problem()
    found = []
    for dtype in (torch.float32, torch.float64):
        samples = x.to(dtype).requires_grad_()
        svm = SVM(**options, loss=loss, tol=1e-6, gradient=gradient)
        value = finite(svm.fit(samples, y, weights).decision_function(queries.to(dtype))).square().sum()
        found.append(torch.autograd.grad(value, samples)[0].double())
    torch.testing.assert_close(found[0], found[1], rtol=0.05, atol=0.02 * float(found[1].abs().max()))


@pytest.mark.parametrize("gradient", ["implicit", "unrolled"])
@pytest.mark.parametrize("options", KERNELS, ids=str)
def test_a_gradient_changes_no_decision(gradient: Any, options: dict[str, Any]) -> None:
    x, y, weights, queries = problem()
    plain = SVM(**options).fit(x, y, weights).decision_function(queries)
    tracked = SVM(**options, gradient=gradient).fit(x.requires_grad_(), y, weights).decision_function(queries)
    assert tracked.requires_grad and not plain.requires_grad
    torch.testing.assert_close(tracked.detach(), plain, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("gradient", ["implicit", "unrolled"])
def test_what_has_no_weight_has_no_gradient(gradient: Any) -> None:
    """Padding, whatever it holds, and samples of weight 0."""
    x, y, weights, queries = problem()
    weights[0, :2] = 0
    unused = (y < 0) | (weights == 0)
    x = torch.where((y < 0)[..., None], torch.nan, x).requires_grad_()
    scores = SVM(approximation=None, gradient=gradient).fit(x, y, weights).decision_function(queries)
    (slope,) = torch.autograd.grad(finite(scores).sum(), x)
    assert bool(slope.isfinite().all()) and not slope[unused].any() and bool(slope[~unused].any())


@pytest.mark.parametrize("gradient", ["implicit", "unrolled"])
@pytest.mark.parametrize(
    "shape", [{"classes": 1}, {"classes": 2, "copies": 5}, {"classes": 2, "constant": True}], ids=str
)
def test_degenerate_images_have_finite_gradients(gradient: Any, shape: dict[str, Any]) -> None:
    """Of one class, of duplicate points, of constant features."""
    x, y, _, queries = problem(1)
    y = (y >= 0).long().cumsum(1) % shape["classes"]
    x = torch.zeros_like(x) if shape.get("constant") else x.repeat(1, shape.get("copies", 1), 1)
    y = y.repeat(1, shape.get("copies", 1))
    C = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    x = x.requires_grad_()
    scores = SVM(approximation=None, C=C, gradient=gradient).fit(x, y).decision_function(queries.requires_grad_())
    slopes = torch.autograd.grad(scores.sum(), (x, C, queries), allow_unused=True)
    assert all(slope is None or bool(slope.isfinite().all()) for slope in slopes)


def test_no_graph_is_made_under_no_grad() -> None:
    x, y, weights, queries = problem()
    with torch.no_grad():
        svm = SVM(gradient="implicit").fit(x.requires_grad_(), y, weights)
    assert not svm.decision_function(queries).requires_grad


def test_descending_the_gradient_trains_what_makes_the_samples() -> None:
    """A projection that hides the classes learns to show them to SVMs of half of the points."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(80) % 2
    noise = torch.randn(80, 4, generator=generator, dtype=torch.float64)
    points = torch.cat([noise * 3, 2 * y[:, None] - 1 + 0.3 * noise[:, :1]], 1)
    projection = torch.full((5, 1), 0.5, dtype=torch.float64)
    projection[4] = 0.05
    projection.requires_grad_()
    optimiser = torch.optim.Adam([projection], 0.05)
    losses = []
    for _ in range(30):
        samples = points @ projection
        svm = SVM(kernel="linear", loss="squared_hinge", gradient="implicit").fit(samples[:40], y[:40])
        scores = svm.decision_function(samples[40:])
        loss = torch.nn.functional.cross_entropy(scores, y[40:])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_the_expander_is_a_layer() -> None:
    """Its scores' gradient with respect to the feature maps and the weights of labels is that of finite differences."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    labels = (torch.arange(8)[:, None] + torch.arange(10)) // 5 % 3
    features = features + labels[::2, ::2]
    weights = torch.rand(2, 8, 10, generator=generator, dtype=torch.float64) + 0.5
    expander = SVMExpander(
        SVM(loss="squared_hinge", tol=1e-10, gradient="implicit"), samples_per_class=10, every_pixel=True
    )

    def scores(features: Tensor, weights: Tensor) -> Tensor:
        found: Tensor = expander(features, labels.expand(2, -1, -1), weights).scores
        return found

    assert torch.autograd.gradcheck(
        scores, (features.requires_grad_(), weights.requires_grad_()), atol=1e-4, rtol=1e-3, fast_mode=True
    )
