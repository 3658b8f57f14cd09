"""The batched SVM against scikit-learn, cases computed by hand, and properties that any SVM has."""

import copy
import doctest
import gc
import io
import re
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from conftest import normal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn import datasets  # type: ignore[import-untyped]
from sklearn.svm import SVC  # type: ignore[import-untyped]
from torch import Tensor

import torch_svm_seg.svm.svm
from torch_svm_seg.backbones.builder import load_backbone
from torch_svm_seg.data.embedded import embedded_sample
from torch_svm_seg.expansion.expander import z_score
from torch_svm_seg.expansion.interpolation import read_pixels
from torch_svm_seg.expansion.sampling import sample_pixels
from torch_svm_seg.svm.approximations import LOW_RANK, Fourier, Nystroem
from torch_svm_seg.svm.decisions import GaussianDecision
from torch_svm_seg.svm.samples import Samples
from torch_svm_seg.svm.spaces import KernelSpace
from torch_svm_seg.svm.stages import SINGLE_PRECISION_STEPS
from torch_svm_seg.svm.svm import SVM
from torch_svm_seg.tensors import spread_rows, take_rows

KERNELS: list[dict[str, Any]] = [
    {"kernel": "linear"},
    {"kernel": "rbf", "approximation": None},
    {"kernel": "rbf", "approximation": Nystroem(24)},
    {"kernel": "rbf", "approximation": Fourier(64)},
]
EXACT_KERNELS = KERNELS[:2]
# The same examples in every run, and none that is slow to shrink.
examples = settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@cache
def standardised(name: str) -> tuple[np.ndarray, np.ndarray]:
    """The start of one of scikit-learn's data sets, each channel with mean 0 and deviation 1; of the digits 0 to 2.

    Or pixels of the embedded image, 40 of each class, by the features of its fourth stage.
    """
    if name == "pixels":
        return sampled_pixels()
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    if name == "digits":
        x, y = x[y < 3][:80], y[y < 3][:80]
    if name == "breast_cancer":
        x, y = x[:200], y[:200]
    x = x - x.mean(0)
    deviation = x.std(0)
    return x / np.where(deviation > 0, deviation, 1), y


def sampled_pixels() -> tuple[np.ndarray, np.ndarray]:
    item = embedded_sample()[0]
    assert item.mask is not None
    with torch.inference_mode():
        features = z_score(load_backbone("efficientnet_lite0").stages(item.image[None], ["F4"])["F4"])
        sample = sample_pixels(item.mask[None], 40)
        x = read_pixels(features, sample.positions, (item.mask.shape[0], item.mask.shape[1]))
    return x[0].double().numpy(), np.unique(sample.classes[0].numpy(), return_inverse=True)[1]


def blobs(
    seed: int, samples: int = 40, channels: int = 3, classes: int = 3, spread: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Overlapping Gaussian blobs in double precision, one a class, and all classes present."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(samples) % classes
    centres = torch.randn(classes, channels, generator=generator, dtype=torch.float64)
    x = centres[y] + spread * torch.randn(samples, channels, generator=generator, dtype=torch.float64)
    return x, y


def batch_of_blobs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two images with the classes 2 and 5, and 0, 1 and 5, and weights of their 24 samples."""
    images = [blobs(seed, 24, 3, classes) for seed, classes in enumerate((2, 3))]
    ids = [torch.tensor([2, 5]), torch.tensor([0, 1, 5])]
    y = torch.stack([names[y] for (_, y), names in zip(images, ids, strict=True)])
    weights = torch.rand(2, 24, generator=torch.Generator().manual_seed(9), dtype=torch.float64) + 0.5
    return torch.stack([x for x, _ in images]), y, weights


def hyperplanes(svm: SVM) -> tuple[np.ndarray, np.ndarray]:
    """Weights (D, K) and intercepts (K,) of a single image's linear SVM."""
    weights, intercept = svm.decision.weights, svm.decision.intercept
    assert isinstance(weights, torch.Tensor)
    return weights[0].double().cpu().numpy(), intercept[0, 0].double().cpu().numpy()


def primal(
    weights: np.ndarray, intercept: float, x: np.ndarray, targets: np.ndarray, costs: float, squared: bool
) -> float:
    loss = np.maximum(0, 1 - targets * (x @ weights + intercept)) ** (2 if squared else 1)
    return float(weights @ weights / 2 + costs * loss.sum())


@cache
def smallest_primal(name: str, label: int, costs: float, squared: bool) -> tuple[float, float]:
    """Bounds of the optimum of one of a data set's one-vs-rest problems.

    LIBSVM's dual and primal objectives, which differ by a little since it keeps kernels in single precision. The
    squared hinge is the hinge that may not be violated, under a kernel with 1 / (2 C) added to its diagonal.
    """
    x, y = standardised(name)
    targets = np.where(y == label, 1.0, -1.0)
    kernel = x @ x.T + (np.eye(len(x)) / (2 * costs) if squared else 0)
    reference = SVC(kernel="precomputed", C=1e9 if squared else costs, tol=1e-9).fit(kernel, targets)
    signed_alpha, supports = reference.dual_coef_[0], reference.support_
    dual = abs(signed_alpha).sum() - signed_alpha @ kernel[np.ix_(supports, supports)] @ signed_alpha / 2
    weights = signed_alpha @ x[supports]
    return dual, primal(weights, reference.intercept_[0], x, targets, costs, squared)


@contextmanager
def deadline(seconds: int) -> Iterator[None]:
    """Ends what would go on for ever."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"still running after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# Against reference implementations


@pytest.mark.parametrize("costs", [0.01, 1, 100])
@pytest.mark.parametrize("name", ["iris", "breast_cancer", "digits", "pixels"])
@pytest.mark.parametrize("loss", ["hinge", "squared_hinge"])
def test_linear_svm_reaches_the_smallest_primal_objective(
    loss: Any, name: str, costs: float, dtype: torch.dtype, device: str
) -> None:
    """And its duality gap says so: objective - gap <= optimum <= objective."""
    x, y = standardised(name)
    squared = loss == "squared_hinge"
    svm = SVM(kernel="linear", C=costs, loss=loss)
    svm.fit(torch.as_tensor(x).to(device, dtype), torch.as_tensor(y, device=device))
    weights, intercept = hyperplanes(svm)
    rounding = 1e-6 if dtype == torch.float64 else 1e-3
    for label in range(len(svm.classes_)):
        targets = np.where(y == label, 1.0, -1.0)
        low, high = smallest_primal(name, label, costs, squared)
        objective = primal(weights[:, label], float(intercept[label]), x, targets, costs, squared)
        assert low * (1 - rounding) <= objective <= high * (1 + 1e-3)
        reported, gap = float(svm.objective_[label]), float(svm.duality_gap_[label])
        assert reported == pytest.approx(objective, rel=rounding)
        assert reported - gap <= high * (1 + rounding)
        assert -rounding * reported <= gap <= svm.tol * reported
    assert bool((svm.n_iter_ > 0).all())


@pytest.mark.parametrize(("name", "gamma"), [("breast_cancer", "scale"), ("digits", "scale"), ("digits", 0.05)])
def test_gaussian_svm_decides_as_libsvm(name: str, gamma: Any, dtype: torch.dtype, device: str) -> None:
    x, y = standardised(name)
    train, test = slice(None, None, 2), slice(1, None, 2)
    seen, unseen = (torch.as_tensor(x[part]).to(device, dtype) for part in (train, test))
    labels = torch.as_tensor(y[train], device=device)
    svm = SVM(gamma=gamma, approximation=None).fit(seen, labels)
    close = SVM(gamma=gamma, approximation=None, tol=1e-5).fit(seen, labels)
    references = [SVC(gamma=gamma, tol=1e-8).fit(x[train], np.where(y[train] == k, 1, -1)) for k in np.unique(y)]
    expected = np.stack([reference.decision_function(x[test]) for reference in references], 1)
    assert (svm.predict(unseen).cpu().numpy() == expected.argmax(1)).mean() >= 0.995
    values = close.decision_function(unseen).cpu().numpy()
    np.testing.assert_allclose(values, expected, atol=5e-3)
    alpha = sum(abs(reference.dual_coef_).sum() for reference in references)
    assert float(close.objective_.sum()) < len(references) * alpha  # a dual objective is at most the sum of alpha


def test_gamma_scale_is_scikit_learns(dtype: torch.dtype, device: str) -> None:
    x, y = blobs(0)
    x = 3 * x + 20
    svm = SVM(approximation=None).fit(x.to(device, dtype), y.to(device))
    reference = SVC(gamma="scale").fit(x.numpy(), y.numpy())
    assert isinstance(svm.decision, GaussianDecision)
    assert svm.decision.gamma.flatten().tolist() == pytest.approx([reference._gamma], rel=1e-4)


def test_gamma_scale_takes_each_images_own_samples(device: str) -> None:
    x, y, _ = batch_of_blobs()
    x = x * torch.tensor([0.1, 5.0])[:, None, None]
    y[1, 15:] = -1
    svm = SVM(approximation=None).fit(x.to(device), y.to(device))
    expected = [1 / (3 * x[0].numpy().var()), 1 / (3 * x[1, :15].numpy().var())]
    assert isinstance(svm.decision, GaussianDecision)
    assert svm.decision.gamma.flatten().tolist() == pytest.approx(expected, rel=1e-9)


# Objective, gap and stop rule


@pytest.mark.parametrize("options", KERNELS, ids=str)
@pytest.mark.parametrize("loss", ["hinge", "squared_hinge"])
def test_gap_is_within_tolerance_and_shrinks_with_it(
    options: dict[str, Any], loss: Any, dtype: torch.dtype, device: str
) -> None:
    x, y, weights = batch_of_blobs()
    arguments = x.to(device, dtype), y.to(device), weights.to(device)
    fits = [SVM(**options, loss=loss, C=10, tol=tol).fit(*arguments) for tol in (1e-1, 1e-4)]
    for svm in fits:
        present = ~svm.objective_.isnan()
        assert present.tolist() == (y[:, :, None] == torch.tensor([0, 1, 2, 5])).any(1).tolist()
        objective, gap = svm.objective_[present], svm.duality_gap_[present]
        assert bool((gap <= svm.tol * objective).all())
        assert bool((gap >= -1e-5 * objective).all())
        assert bool((svm.n_iter_[present] > 0).all())
        assert not svm.n_iter_[~present].any()
    rough, exact = (svm.objective_[present] for svm in fits)
    lower_bound = rough - fits[0].duality_gap_[present]
    assert bool((lower_bound <= exact * (1 + 1e-5)).all())
    assert bool((exact - fits[1].duality_gap_[present] <= rough * (1 + 1e-5)).all())


def test_stopping_early_warns_with_numbers(device: str) -> None:
    x, y = blobs(0, 60)
    with pytest.warns(UserWarning, match=r"3 of 3 problems stopped at max_iter=1 .* gap of up to \d\.\de[+-]\d\d"):
        svm = SVM(C=10, max_iter=1).fit(x.to(device), y.to(device))
    assert bool((svm.duality_gap_ > svm.tol * svm.objective_).all())
    exact = SVM(C=10).fit(x.to(device), y.to(device))
    assert bool((svm.objective_ - svm.duality_gap_ <= exact.objective_).all())


def test_a_fit_that_reaches_the_tolerance_does_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SVM().fit(*blobs(0))


@pytest.mark.parametrize(("loss", "costs"), [("hinge", 1), ("hinge", 100), ("squared_hinge", 100)])
@pytest.mark.parametrize("channels", [10, 1000])
def test_separable_classes_need_few_steps(
    channels: int, costs: float, loss: Any, dtype: torch.dtype, device: str
) -> None:
    """Of which the dual variables are tiny parts of C, in z-scored features as many as a network has."""
    x, y = blobs(0, 30, channels, 3, spread=0.1)
    x = (x - x.mean(0)) / x.std(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svm = SVM(kernel="linear", C=costs, loss=loss).fit(x.to(device, dtype), y.to(device))
    # Single precision may give up first, and leave it to double.
    assert int(svm.n_iter_.max()) < (100 if dtype == torch.float64 else SINGLE_PRECISION_STEPS + 100)
    assert bool((svm.duality_gap_ <= svm.tol * svm.objective_).all())


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_numbers_too_large_for_the_type_are_reported(kernel: Any) -> None:
    """Squares of 1e25 overflow single precision: an error or a warning, but neither silence nor an endless loop."""
    x, y = blobs(0)
    with deadline(3), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            SVM(kernel=kernel, approximation=None, max_iter=20).fit((x * 1e25).float(), y)
        except ValueError as error:
            assert str(error).startswith("x:")
            return
    assert caught


# Batches, padding, weights


@pytest.mark.parametrize("options", KERNELS, ids=str)
@pytest.mark.parametrize("loss", ["hinge", "squared_hinge"])
def test_batched_equals_looped(options: dict[str, Any], loss: Any, device: str) -> None:
    x, y, weights = (part.to(device) for part in batch_of_blobs())
    new = torch.randn(2, 20, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64).to(device)
    options = {**options, "loss": loss, "tol": 1e-8}
    together = SVM(**options).fit(x, y, weights)
    scores = together.decision_function(new)
    for image in range(2):
        alone = SVM(**options).fit(x[image], y[image], weights[image])
        planes = torch.isin(together.classes_, alone.classes_)
        torch.testing.assert_close(scores[image][:, planes], alone.decision_function(new[image]), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(together.objective_[image, planes], alone.objective_, rtol=1e-7, atol=0)
        assert bool((scores[image][:, ~planes] == -torch.inf).all())
        assert torch.equal(together.predict(new)[image], alone.predict(new[image]))


@pytest.mark.parametrize("options", KERNELS, ids=str)
def test_padding_changes_nothing(options: dict[str, Any], dtype: torch.dtype, device: str) -> None:
    """Whatever it holds, and between the samples as well as behind them."""
    x, y = blobs(1)
    new = torch.randn(20, 3, generator=torch.Generator().manual_seed(5)).to(device, dtype)
    place = torch.randperm(60, generator=torch.Generator().manual_seed(2))[:40].sort().values
    garbage = torch.tensor([torch.nan, torch.inf, 1e30, -1.0], dtype=torch.float64).repeat(15)
    padded, labels = garbage[:, None].repeat(1, 3), torch.full((60,), -1)
    padded[place], labels[place] = x, y
    weights = torch.where(labels < 0, garbage, 1.0)
    tol = 1e-7 if dtype == torch.float64 else 1e-4
    plain = SVM(**options, tol=tol).fit(x.to(device, dtype), y.to(device))
    svm = SVM(**options, tol=tol).fit(padded.to(device, dtype), labels.to(device), weights.to(device))
    assert torch.equal(svm.classes_, plain.classes_)
    atol = 1e-5 if dtype == torch.float64 else 1e-3
    torch.testing.assert_close(svm.decision_function(new), plain.decision_function(new), rtol=atol, atol=atol)


@pytest.mark.parametrize("approximation", [None, Nystroem(100)])
def test_padding_changes_nothing_far_from_the_origin(approximation: Any, device: str) -> None:
    """In single precision, where distances of samples near (1000, 1000, 1000) must not be taken from the origin."""
    x, y = blobs(1)
    x = x.float() + 1000
    new = x[:20].to(device) + 0.25
    padded, labels = torch.cat([x, torch.zeros(40, 3)]), torch.cat([y, torch.full((40,), -1)])
    other, names = blobs(2, 80)
    options: dict[str, Any] = {"approximation": approximation, "tol": 1e-4}
    plain = SVM(**options).fit(x.to(device), y.to(device)).decision_function(new)
    svm = SVM(**options).fit(torch.stack([padded, other.float()]).to(device), torch.stack([labels, names]).to(device))
    torch.testing.assert_close(svm.decision_function(torch.stack([new, new]))[0], plain, rtol=0, atol=0.01)


@examples
@given(
    seed=st.integers(0, 2**31),
    samples=st.integers(6, 30),
    classes=st.integers(2, 4),
    costs=st.sampled_from([0.1, 1.0, 10.0]),
    options=st.sampled_from(EXACT_KERNELS),
    loss=st.sampled_from(["hinge", "squared_hinge"]),
)
def test_weight_k_equals_k_copies_in_any_order_and_weight_0_none(
    seed: int, samples: int, classes: int, costs: float, options: dict[str, Any], loss: Any
) -> None:
    x, y = blobs(seed, samples, 2, classes)
    generator = torch.Generator().manual_seed(seed)
    copies = torch.randint(0, 4, (samples,), generator=generator)
    copies[:classes] = 1
    options = {**options, "C": costs, "loss": loss, "tol": 1e-10}
    weighted = SVM(**options).fit(x, y, copies.double())
    order = torch.randperm(int(copies.sum()), generator=generator)
    copied = SVM(**options).fit(x.repeat_interleave(copies, 0)[order], y.repeat_interleave(copies)[order])
    torch.testing.assert_close(weighted.objective_, copied.objective_, rtol=1e-8, atol=1e-8)
    new = torch.randn(20, 2, generator=generator, dtype=torch.float64)
    planes = [svm.decision_function(new) for svm in (weighted, copied)]
    planes = [plane - plane.mean(0) for plane in planes]  # the intercept alone need not be unique
    torch.testing.assert_close(*planes, rtol=1e-3, atol=1e-3)


@examples
@given(
    seed=st.integers(0, 2**31),
    samples=st.integers(2, 40),
    channels=st.integers(1, 5),
    scale=st.sampled_from([1e-3, 1.0, 1e2]),
    shift=st.sampled_from([0.0, 10.0]),
    costs=st.sampled_from([0.01, 1.0, 100.0]),
    loss=st.sampled_from(["hinge", "squared_hinge"]),
)
def test_gaussian_svm_does_not_depend_on_unit_or_origin(
    seed: int, samples: int, channels: int, scale: float, shift: float, costs: float, loss: Any
) -> None:
    """With gamma="scale", which measures distances in units of the samples' own spread."""
    x, y = blobs(seed, samples, channels, 2)
    options: dict[str, Any] = {"C": costs, "loss": loss, "tol": 1e-9, "approximation": None}
    plain, moved = SVM(**options).fit(x, y), SVM(**options).fit(scale * x + shift, y)
    torch.testing.assert_close(moved.objective_, plain.objective_, rtol=1e-6, atol=0)


def test_weights_of_one_are_the_default(device: str) -> None:
    x, y = (part.to(device) for part in blobs(3))
    plain, weighted = SVM().fit(x, y), SVM().fit(x, y, torch.ones(40, device=device))
    assert torch.equal(plain.decision_function(x), weighted.decision_function(x))


# Classes


def test_class_ids_are_arbitrary_and_an_absent_class_is_never_predicted(device: str) -> None:
    x, y, _ = batch_of_blobs()
    y = torch.tensor([7, 200, 31, 0, 0, 9])[y]  # ids 0, 1, 2, 5
    svm = SVM().fit(x.to(device), y.to(device))
    assert svm.classes_.tolist() == [7, 9, 31, 200]
    new = 3 * torch.randn(2, 500, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(device)
    scores, predicted = svm.decision_function(new), svm.predict(new)
    assert scores.shape == (2, 500, 4)
    assert not scores.isnan().any()
    for image in range(2):
        absent = ~torch.isin(svm.classes_, y[image].unique().to(device))
        assert bool((scores[image][:, absent] == -torch.inf).all())
        assert bool(scores[image][:, ~absent].isfinite().all())
        assert set(predicted[image].tolist()) == set(y[image].tolist())


@pytest.mark.parametrize("options", KERNELS, ids=str)
def test_two_classes_are_each_others_negatives(options: dict[str, Any], device: str) -> None:
    x, y, _ = batch_of_blobs()
    svm = SVM(**options).fit(x.to(device), y.to(device))
    first, second = svm.decision_function(x.to(device))[0][:, 2:].unbind(1)
    assert torch.equal(first, -second)
    assert svm.objective_[0, 2] == svm.objective_[0, 3]
    assert svm.n_iter_[0, 2] == svm.n_iter_[0, 3]


@pytest.mark.parametrize("options", KERNELS, ids=str)
def test_an_image_of_one_class_scores_it_the_same_everywhere(options: dict[str, Any], device: str) -> None:
    x, y, _ = batch_of_blobs()
    y[0] = 2
    svm = SVM(**options).fit(x.to(device), y.to(device))
    scores = svm.decision_function(x.to(device))[0]
    assert bool(scores[0, 2].isfinite()) and bool((scores[:, 2] == scores[0, 2]).all())
    assert svm.predict(x.to(device))[0].tolist() == [2] * 24
    assert svm.objective_[0].isnan().all(), "there is no problem, and so no objective"
    assert svm.duality_gap_[0].isnan().all()
    assert svm.n_iter_[0].tolist() == [0] * 4


@pytest.mark.parametrize("options", KERNELS, ids=str)
@pytest.mark.parametrize("samples", [1, 40])
def test_a_batch_of_one_class_only_predicts_it(options: dict[str, Any], samples: int, device: str) -> None:
    x = blobs(0)[0][:samples].to(device)
    svm = SVM(**options).fit(x, torch.full((samples,), 7, device=device))
    assert svm.classes_.tolist() == [7]
    assert svm.decision_function(x + 1).isfinite().all()
    assert svm.predict(x + 1).tolist() == [7] * samples


# Hand-computed cases


@pytest.mark.parametrize("costs", [0.1, 0.5, 3.0])
def test_two_points_give_the_widest_street(costs: float, dtype: torch.dtype, device: str) -> None:
    """At (+1, 0) and (-1, 0): w = (min(1, 2C), 0), b = 0."""
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=dtype, device=device)
    svm = SVM(kernel="linear", C=costs, tol=1e-5).fit(x, torch.tensor([1, 0], device=device))
    weights, intercept = hyperplanes(svm)
    width = min(1, 2 * costs)
    np.testing.assert_allclose(weights[:, 1], [width, 0], atol=1e-2)
    np.testing.assert_allclose(intercept, 0, atol=1e-2)
    assert svm.objective_.tolist() == pytest.approx([width**2 / 2 + 2 * costs * (1 - width)] * 2, rel=1e-4)


@pytest.mark.parametrize("options", KERNELS, ids=str)
@pytest.mark.parametrize("value", [0.0, 0.1, 123.456])
def test_constant_features_give_the_majority(
    options: dict[str, Any], value: float, dtype: torch.dtype, device: str
) -> None:
    """w = 0, and each of the 13 samples of the smaller class costs 2 C."""
    y = (torch.arange(40, device=device) < 13).long()
    x = torch.full((40, 3), value, dtype=dtype, device=device)
    svm = SVM(**options).fit(x, y)
    assert svm.objective_.tolist() == pytest.approx([26, 26], rel=1e-3)
    assert svm.predict(x[:3]).tolist() == [0, 0, 0]


@pytest.mark.parametrize("options", KERNELS, ids=str)
def test_points_that_have_both_labels_cost_2_C_a_pair(options: dict[str, Any], dtype: torch.dtype, device: str) -> None:
    x = blobs(0, 20)[0].to(device, dtype)
    y = torch.cat([torch.zeros(20), torch.ones(20)]).long().to(device)
    svm = SVM(**options, C=3).fit(torch.cat([x, x]), y)
    assert svm.objective_.tolist() == pytest.approx([2 * 3 * 20] * 2, rel=1e-3)
    assert bool((svm.decision_function(x).abs() <= 1.1).all())


# Approximations


@pytest.mark.parametrize("components", [60, 1024])
def test_nystroem_with_a_landmark_for_every_sample_is_exact(components: int, device: str) -> None:
    x, y = (part.to(device) for part in blobs(0, 60))
    new = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(device)
    exact = SVM(approximation=None, tol=1e-8).fit(x, y)
    mapped = SVM(approximation=Nystroem(components), tol=1e-8).fit(x, y)
    torch.testing.assert_close(mapped.objective_, exact.objective_, rtol=1e-4, atol=0)
    torch.testing.assert_close(mapped.decision_function(new), exact.decision_function(new), rtol=0, atol=1e-3)


@pytest.mark.parametrize("approximation", [Nystroem, Fourier])
def test_more_components_come_closer_to_exact(approximation: Any, device: str) -> None:
    x, y = (part.to(device) for part in blobs(0, 150))
    new = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(device)
    exact = SVM(approximation=None).fit(x, y).decision_function(new)

    def error(components: int) -> float:
        svms = [SVM(approximation=approximation(components, seed)) for seed in range(4)]
        fits = [svm.fit(x, y).decision_function(new) for svm in svms]
        return float((torch.stack(fits) - exact).abs().mean())

    few, some, many = error(6), error(30), error(150)
    assert few > 1.5 * some > 2.25 * many


def test_many_fourier_features_decide_roughly_as_the_exact_kernel(device: str) -> None:
    x, y = (part.to(device) for part in blobs(0, 150))
    new = torch.randn(300, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(device)
    exact = SVM(approximation=None).fit(x, y)
    mapped = SVM(approximation=Fourier(4000)).fit(x, y)
    assert float((mapped.predict(new) == exact.predict(new)).double().mean()) >= 0.95
    assert float((mapped.decision_function(new) - exact.decision_function(new)).abs().mean()) <= 0.1


@pytest.mark.parametrize("costs", [1, 30])
def test_auto_uses_the_low_rank_of_three_channels_and_decides_as_exact(
    costs: float, dtype: torch.dtype, device: str
) -> None:
    x, y = (part.to(device) for part in blobs(4, 2 * LOW_RANK))
    x = x.to(dtype)
    auto, exact = SVM(C=costs).fit(x, y), SVM(C=costs, approximation=None).fit(x, y)
    assert isinstance(auto.decision, GaussianDecision)
    assert auto.decision.centres.shape[1] == LOW_RANK
    new = 2 * torch.randn(2000, 3, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    assert float((auto.predict(new) == exact.predict(new)).double().mean()) >= 0.995


def test_auto_is_exact_where_the_rank_is_high(device: str) -> None:
    """In many channels, and for kernels too narrow for few landmarks."""
    wide = blobs(4, 2 * LOW_RANK, channels=5)
    narrow = blobs(4, 2 * LOW_RANK, channels=3)
    for (x, y), gamma in ((wide, "scale"), (narrow, 300.0)):
        options: dict[str, Any] = {"gamma": gamma, "tol": 1e-2}
        x, y = x.to(device), y.to(device)
        auto, exact = SVM(**options).fit(x, y), SVM(**options, approximation=None).fit(x, y)
        assert torch.equal(auto.decision_function(x), exact.decision_function(x))


@pytest.mark.parametrize("approximation", [Nystroem, Fourier])
def test_the_seed_chooses_the_approximation(approximation: Any, device: str) -> None:
    x, y = (part.to(device) for part in blobs(0))

    def scores(seed: int) -> torch.Tensor:
        return SVM(approximation=approximation(10, seed)).fit(x, y).decision_function(x)

    assert torch.equal(scores(1), scores(1))
    assert not torch.allclose(scores(1), scores(2), atol=1e-3)


# Samples of other kinds


@dataclass
class KnownProducts:
    """Samples that are known by a matrix of inner products about an origin."""

    origin: Tensor
    gram: Tensor

    @property
    def squared_norms(self) -> Tensor:
        return self.gram.diagonal(dim1=1, dim2=2)

    def samples(self, image: Tensor, gamma: Tensor | None) -> Samples:
        gram, norms = self.gram[image], self.squared_norms[image]
        if gamma is None:
            return GramSamples(gram)
        return GramSamples((-gamma * (norms[:, :, None] + norms[:, None, :] - 2 * gram)).exp())


@dataclass
class GramSamples:
    """Samples given by their kernel matrix (P, N, N)."""

    gram: Tensor

    @property
    def dtype(self) -> torch.dtype:
        return self.gram.dtype

    def double(self) -> "GramSamples":
        return GramSamples(self.gram.double())

    def space(self, rows: Tensor) -> KernelSpace:
        return KernelSpace(take_rows(take_rows(self.gram, rows).mT, rows))

    def evaluate(self, rows: Tensor, element: Tensor) -> Tensor:
        return (self.gram @ self.whole(rows, element)[..., None])[..., 0]

    def squared_norm(self, element: Tensor, values: Tensor) -> Tensor:
        return (element * values).sum(1)

    def whole(self, rows: Tensor, element: Tensor) -> Tensor:
        return spread_rows(element, rows, self.gram.shape[1])

    def part(self, rows: Tensor, element: Tensor) -> Tensor:
        return element.gather(1, rows)


@pytest.mark.parametrize("options", [{}, {"gamma": 0.3}, {"kernel": "linear"}])
def test_samples_may_be_known_by_their_inner_products_alone(
    options: dict[str, Any], device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_svm_seg.svm.svm, "MANY_CHANNELS", 0)
    x, y, weights = (part.to(device) for part in batch_of_blobs())
    origin = x.mean(1)
    products = KnownProducts(origin, (x - origin[:, None]) @ (x - origin[:, None]).mT)
    plain = SVM(**options, tol=1e-10).fit(x, y, weights)
    found = SVM(**options, tol=1e-10).fit(x, y, weights, lambda: products)
    torch.testing.assert_close(found.decision_function(x), plain.decision_function(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.objective_, plain.objective_, rtol=1e-8, atol=0, equal_nan=True)


# Errors


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kernel", "poly"),
        ("loss", "logistic"),
        ("approximation", "none"),
        ("C", 0),
        ("C", -1.0),
        ("C", float("nan")),
        ("C", float("inf")),
        ("gamma", float("inf")),
        ("gamma", 0.0),
        ("gamma", "auto"),
        ("tol", 0),
        ("max_iter", 0),
        ("max_iter", "many"),
        ("max_iter", 20.0),
    ],
)
def test_a_wrong_argument_is_named(name: str, value: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=f"^{name}: expected .* got {value!r}"):
        SVM(**{name: value})


@pytest.mark.parametrize("value", [0, -3, 10.5, 20.0, float("nan"), float("inf"), "many"])
@pytest.mark.parametrize("approximation", [Nystroem, Fourier])
def test_a_wrong_number_of_components_is_named(approximation: Any, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^components: expected .* got {value!r}"):
        approximation(value)


X, Y = torch.rand(2, 6, 3), torch.tensor([[0, 1, 0, 1, 0, -1], [0, 1, 2, 0, 1, 2]])
BAD_X = X.clone()
BAD_X[1, 3, 2] = torch.nan


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        (r"^x: .*\(6,\)", (X[0, :, 0], Y[0])),
        (r"^x: .*\(1, 2, 6, 3\)", (X[None], Y[None])),
        (r"^x: .*int64", (X.long(), Y)),
        (r"^x: .*at least one image.*\(0, 6, 3\)", (X[:0], Y[:0])),
        (r"^x: .*at least one .* channel.*\(2, 6, 0\)", (X[..., :0], Y)),
        (r"^x: .*nan or inf in image\(s\) \[1\]", (BAD_X, Y)),
        (r"^x: .*nan or inf in image\(s\) \[0\]", (BAD_X[1], Y[1])),
        (r"^y: .*\(2, 6\).*\(2, 5\)", (X, Y[:, :5])),
        (r"^y: .*\(6,\).*\(2, 6\)", (X[0], Y)),
        (r"^y: .*float32", (X, Y.float())),
        (r"^y: .*-7", (X, torch.where(Y == 2, -7, Y))),
        (r"^y: .*none in image\(s\) \[1\]", (X, torch.stack([Y[0], Y[1] * 0 - 1]))),
        (r"^y: .*none in image\(s\) \[0\]", (X, Y, torch.tensor([[0.0], [1.0]]).expand(2, 6))),
        (r"^(x|y): ", (X[:, :0], Y[:, :0])),
        (r"^sample_weight: .*\(2, 6\).*\(6,\)", (X, Y, torch.ones(6))),
        (r"^sample_weight: expected a tensor, got list", (X, Y, [[1.0] * 6] * 2)),
        (r"^x: expected a tensor, got list", ([[0.0], [1.0]], Y)),
        (r"^sample_weight: .*negative", (X, Y, -torch.ones(2, 6))),
        (r"^sample_weight: ", (X, Y, torch.full((2, 6), torch.nan))),
        (r"^sample_weight: ", (X, Y, torch.full((2, 6), torch.inf))),
    ],
)
def test_a_wrong_sample_is_named(message: str, arguments: tuple[Any, ...], device: str) -> None:
    with pytest.raises(ValueError, match=message):
        SVM().fit(*(one.to(device) if isinstance(one, torch.Tensor) else one for one in arguments))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.bool])
def test_labels_may_be_any_integers(dtype: torch.dtype, device: str) -> None:
    x, y = (part.to(device) for part in blobs(0, classes=2))
    assert torch.equal(SVM().fit(x, y.to(dtype)).predict(x), SVM().fit(x, y).predict(x))


def test_deciding_before_fit_says_so() -> None:
    for decide in (SVM().decision_function, SVM().predict, SVM()):
        with pytest.raises(RuntimeError, match=r"^SVM: call fit first"):
            decide(X)


def test_a_gamma_of_another_word_names_the_one_there_is() -> None:
    with pytest.raises(ValueError, match=r"^gamma: expected a finite number > 0 or 'scale', got 'auto'"):
        SVM(gamma="auto")  # type: ignore[arg-type]


@pytest.mark.parametrize("approximation", [Nystroem(5), Fourier(5)])
def test_an_approximation_of_the_linear_kernel_is_refused(approximation: Any) -> None:
    with pytest.raises(ValueError, match=r"^approximation: expected 'auto' or None with kernel='linear', got .*ents=5"):
        SVM(kernel="linear", approximation=approximation)


@pytest.mark.parametrize("options", KERNELS, ids=str)
def test_a_state_that_is_no_fit_is_refused(options: dict[str, Any]) -> None:
    state = SVM(**options).fit(X, Y).state_dict()
    foreign = {"decision.foo": X}
    with pytest.raises(RuntimeError, match=r"Unexpected key\(s\) in state_dict: \"decision.foo\""):
        SVM(**options).load_state_dict(foreign)
    for missing in state:
        part = {name: tensor for name, tensor in state.items() if name != missing}
        svm = SVM(**options)
        with pytest.raises((RuntimeError, ValueError), match=r"Unexpected key\(s\)|^decision: expected the tensors of"):
            svm.load_state_dict(part)
        with pytest.raises(RuntimeError, match="call fit first"):
            svm.predict(X)


@pytest.mark.parametrize(("kernel", "C", "gamma"), [("linear", 1e37, "scale"), ("rbf", 1.0, 1e30)])
def test_numbers_that_are_too_large_are_one_error(kernel: Any, C: float, gamma: Any, device: str) -> None:
    x, y = normal(0, 200, 5).float().to(device), (torch.arange(200) % 2).to(device)
    with pytest.raises(torch.linalg.LinAlgError, match="too large"):
        SVM(kernel=kernel, C=C, gamma=gamma).fit(x, y)


@pytest.mark.parametrize("approximation", [None, Nystroem(20), Fourier(20)])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1)])
def test_numbers_may_be_tensors_of_one(shape: tuple[int, ...], approximation: Any, device: str) -> None:
    """Of any shape, and of another type and on another device than the samples."""
    x, y = (part.to(device) for part in blobs(0))
    one = SVM(C=2.0, gamma=0.5, approximation=approximation).fit(x.float(), y)
    C, gamma = torch.full(shape, 2.0, dtype=torch.float64), torch.full(shape, 0.5, dtype=torch.float64)
    other = SVM(C=C, gamma=gamma, approximation=approximation).fit(x.float(), y)
    assert torch.equal(one.decision_function(x), other.decision_function(x))
    assert torch.equal(SVM(C=np.float32(2)).fit(x, y).predict(x), SVM(C=2).fit(x, y).predict(x))


@pytest.mark.parametrize("shape", [(2, 6, 2), (1, 6, 3), (3, 6, 3)])
def test_deciding_on_other_images_or_channels_than_fitted_names_x(shape: tuple[int, ...], device: str) -> None:
    svm = SVM().fit(X.to(device), Y.to(device))
    with pytest.raises(ValueError, match=r"^x: expected \(2, M, 3\) as in fit, got " + re.escape(str(shape))):
        svm.decision_function(torch.zeros(shape, device=device))


def test_deciding_on_another_rank_than_fitted_names_x(device: str) -> None:
    x, y = X.to(device), Y.to(device)
    with pytest.raises(ValueError, match=r"^x: expected a tensor, got list"):
        SVM().fit(x, y).predict([[0.0, 1.0, 2.0]])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^x: .*\(6, 3\)"):
        SVM().fit(x, y).decision_function(x[0])
    with pytest.raises(ValueError, match=r"^x: .*\(2, 6, 3\)"):
        SVM().fit(x[0], y[0]).decision_function(x)


# Types, devices, autograd, memory


@pytest.mark.parametrize("options", KERNELS, ids=str)
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(options: dict[str, Any], half: torch.dtype, device: str) -> None:
    x, y = blobs(0)
    x, y = x.to(device, half), y.to(device)
    scores = SVM(**options).fit(x, y).decision_function(x)
    assert scores.dtype == torch.float32
    expected = SVM(**options).fit(x.float(), y).decision_function(x.float())
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", KERNELS, ids=str)
def test_results_have_the_samples_type_and_device(options: dict[str, Any], dtype: torch.dtype, device: str) -> None:
    x, y = blobs(0)
    svm = SVM(**options).fit(x.to(device, dtype), y.to(device))
    scores = svm.decision_function(x.to(device, dtype))
    assert (scores.dtype, scores.device.type, scores.shape) == (dtype, device, (40, 3))
    assert svm.predict(x.to(device, dtype)).device.type == device
    assert svm.objective_.shape == svm.duality_gap_.shape == svm.n_iter_.shape == (3,)
    assert torch.equal(svm(x.to(device, dtype)), scores)


@pytest.mark.parametrize("options", KERNELS, ids=str)
def test_autocast_changes_nothing(options: dict[str, Any], device: str) -> None:
    x, y = blobs(0)
    x, y = x.float().to(device), y.to(device)
    expected = SVM(**options).fit(x, y).decision_function(x)
    with torch.autocast(device, dtype=torch.bfloat16):
        svm = SVM(**options).fit(x, y)
    torch.testing.assert_close(svm.decision_function(x), expected)
    with torch.autocast(device, dtype=torch.bfloat16):
        scores = svm.decision_function(x)
    torch.testing.assert_close(scores, expected)


@pytest.mark.parametrize("options", KERNELS, ids=str)
def test_fit_keeps_no_graph_and_decisions_have_gradients(options: dict[str, Any], device: str) -> None:
    x, y = (part.to(device) for part in blobs(0))
    svm = SVM(**options).fit(x.requires_grad_(), y)
    kept = [*svm.decision.buffers(), svm.objective_, svm.duality_gap_]
    assert kept and not any(tensor.requires_grad for tensor in kept)
    new = torch.rand(5, 3, dtype=torch.float64, device=device, requires_grad=True)
    assert torch.autograd.gradcheck(svm.decision_function, (new,))


def test_a_hundred_fits_hold_no_more_tensors_than_two() -> None:
    x, y = blobs(0, 12, classes=2)
    x.requires_grad_()
    svms = [SVM(**options, tol=0.5) for options in EXACT_KERNELS]

    def tensors_after(fits: int) -> int:
        for _ in range(fits):
            svms[0].fit(x, y)
            svms[1].fit(x, y)
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    before = tensors_after(1)
    assert tensors_after(50) == before


def test_fitting_again_forgets_the_first_fit(device: str) -> None:
    (x, y), (other, names) = blobs(0), blobs(1, 30, 5, 2)
    svm = SVM().fit(x.to(device), y.to(device)).fit(other[None].to(device), names[None].to(device))
    fresh = SVM().fit(other[None].to(device), names[None].to(device))
    new = other[None, :7].to(device) + 0.1
    assert torch.equal(svm.decision_function(new), fresh.decision_function(new))
    assert svm.classes_.tolist() == [0, 1]


def test_fit_leaves_its_arguments_alone(device: str) -> None:
    x, y, weights = (part.to(device) for part in batch_of_blobs())
    y[0, :5] = -1
    before = [part.clone() for part in (x, y, weights)]
    SVM().fit(x, y, weights)
    assert all(torch.equal(*pair) for pair in zip((x, y, weights), before, strict=True))


@pytest.mark.parametrize("options", KERNELS, ids=str)
def test_a_fitted_svm_moves_to_another_type(options: dict[str, Any], device: str) -> None:
    x, y = (part.to(device) for part in blobs(0))
    svm = SVM(**options).fit(x.float(), y)
    before, predicted = svm.decision_function(x.float()), svm.predict(x.float())
    svm.double()
    after = svm.decision_function(x)
    assert torch.equal(svm.predict(x), predicted)
    assert after.dtype == torch.float64
    torch.testing.assert_close(after.float(), before, rtol=1e-4, atol=1e-4)


def test_a_fitted_svm_moves_to_another_device_with_its_class_ids() -> None:
    """The meta device, which every machine has."""
    x, y = blobs(0)
    svm = SVM().fit(x, y).to("meta")
    assert {buffer.device.type for buffer in svm.decision.buffers()} == {"meta"}
    assert svm.classes_.device.type == "meta"


@pytest.mark.parametrize("options", KERNELS, ids=str)
def test_copies_and_saved_svms_decide_alike(options: dict[str, Any], device: str) -> None:
    x, y = (part.to(device) for part in blobs(0))
    svm = SVM(**options).fit(x, torch.tensor([7, 200, 3], device=device)[y])
    file = io.BytesIO()
    torch.save(svm, file)
    file.seek(0)
    for twin in (copy.deepcopy(svm), torch.load(file, weights_only=False)):
        assert torch.equal(twin.decision_function(x), svm.decision_function(x))
        assert torch.equal(twin.predict(x), svm.predict(x))
        assert torch.equal(twin.duality_gap_, svm.duality_gap_)


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("options", KERNELS, ids=str)
def test_the_state_of_a_fitted_svm_is_loaded_into_a_new_one(options: dict[str, Any], single: bool, device: str) -> None:
    """Tensors alone, each in a piece of memory of its own, as safetensors asks for."""
    x, y, weights = (part[0] if single else part for part in (one.to(device) for one in batch_of_blobs()))
    svm = SVM(**options, gamma=0.5).fit(x, y, weights)
    state = svm.state_dict()
    assert all(tensor.is_contiguous() for tensor in state.values())
    assert len({tensor.untyped_storage().data_ptr() for tensor in state.values()}) == len(state)
    for other in (SVM(**options, gamma=0.5), SVM(**options, gamma=0.5).fit(x[..., :1], y)):
        other.load_state_dict(state)
        torch.testing.assert_close(other.decision_function(x), svm.decision_function(x))
        assert torch.equal(other.predict(x), svm.predict(x)) and torch.equal(other.n_iter_, svm.n_iter_)


def test_a_state_that_is_not_fitted_says_so() -> None:
    assert SVM().state_dict() == {}
    with pytest.raises(RuntimeError, match="Missing key"):
        SVM().fit(X, Y).load_state_dict({})


def test_the_example_in_the_documentation_runs() -> None:
    result = doctest.testmod(torch_svm_seg.svm.svm)
    assert result.attempted > 0 and result.failed == 0
