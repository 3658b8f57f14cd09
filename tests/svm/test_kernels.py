"""Kernels and their explicit feature maps against scikit-learn, and each decision function against its own formula."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from conftest import normal
from sklearn.metrics.pairwise import rbf_kernel  # type: ignore[import-untyped]

from torch_svm_seg.svm import kernels
from torch_svm_seg.svm.decisions import DecisionFunction, FourierDecision, GaussianDecision, LinearDecision
from torch_svm_seg.svm.feature_maps import FourierMap, LinearMap, NystroemMap
from torch_svm_seg.svm.kernels import gaussian_kernel, multiply_by_kernel

GAMMAS = torch.tensor([0.1, 1.0, 4.0]).double()[:, None, None]


def reference_kernel(x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """scikit-learn's, of each image with its own gamma."""
    images = [rbf_kernel(a.numpy(), b.numpy(), float(gamma)) for a, b, gamma in zip(x, z, GAMMAS, strict=True)]
    return torch.from_numpy(np.stack(images))


def all_valid(x: torch.Tensor) -> torch.Tensor:
    return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)


# The kernel


@pytest.mark.parametrize("shift", [0.0, 1000.0])
@pytest.mark.parametrize("channels", [1, 3, 40])
def test_gaussian_kernel_is_scikit_learns_anywhere(
    channels: int, shift: float, dtype: torch.dtype, device: str
) -> None:
    """Far from the origin too, where |x|^2 - 2 x.z + |z|^2 would cancel."""
    x = (normal(0, 3, 20, channels) + shift).to(dtype)
    z = (normal(1, 3, 30, channels) + shift).to(dtype)
    found = gaussian_kernel(x.to(device), z.to(device), GAMMAS.to(device, dtype))
    assert found.dtype == dtype
    # scikit-learn, whose own distances cancel, gets the same points, moved back without rounding.
    expected = reference_kernel(x.double() - shift, z.double() - shift)
    atol = 1e-5 if dtype == torch.float32 else 1e-11
    torch.testing.assert_close(found.cpu().double(), expected, rtol=0, atol=atol)


def test_gaussian_kernel_of_a_point_with_itself_is_one(dtype: torch.dtype, device: str) -> None:
    x = normal(0, 3, 20, 8).to(device, dtype)
    diagonal = gaussian_kernel(x, x, GAMMAS.to(x)).diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(diagonal, torch.ones_like(diagonal), rtol=0, atol=1e-4)


def test_gaussian_kernel_leaves_its_arguments_alone_and_has_gradients(device: str) -> None:
    x, z = normal(0, 3, 4, 2).to(device).requires_grad_(), normal(1, 3, 5, 2).to(device).requires_grad_()
    before = x.detach().clone()
    assert torch.autograd.gradcheck(lambda a, b: gaussian_kernel(a, b, GAMMAS.to(device)), (x, z))
    assert torch.equal(x, before)


@pytest.mark.parametrize("entries", [1, 90, 200, 10**9])
def test_products_in_blocks_equal_the_whole(
    entries: int, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, device: str
) -> None:
    x, z = (normal(seed, 3, 30 + seed, 4).to(device, dtype) for seed in (0, 1))
    coefficients, gamma = normal(2, 3, 31, 5).to(x), GAMMAS.to(x)
    whole = gaussian_kernel(x, z, gamma) @ coefficients
    monkeypatch.setattr(kernels, "block_entries", lambda tensor: entries)
    sizes = []
    plain = torch.Tensor.exp2_

    def watched(block: torch.Tensor) -> torch.Tensor:
        sizes.append(block.numel())
        return plain(block)

    monkeypatch.setattr(torch.Tensor, "exp2_", watched)
    parts = multiply_by_kernel(x, z, gamma, coefficients)
    torch.testing.assert_close(parts, whole)
    assert max(sizes) <= max(entries, 3 * 31), "a block holds one row of each image at least"
    assert (len(sizes) == 1) == (entries >= whole[..., 0].numel() * 31)


# Decision functions


def decisions(device: str, dtype: torch.dtype) -> dict[str, DecisionFunction]:
    """One of each kind for 3 images, 4 channels, 2 classes and 6 projections."""
    intercept = normal(9, 3, 1, 2)
    kinds: dict[str, DecisionFunction] = {
        "linear": LinearDecision(normal(5, 3, 4, 2), intercept),
        "gaussian": GaussianDecision(normal(0, 3, 6, 4), normal(1, 3, 6, 2), GAMMAS, intercept),
        "fourier": FourierDecision(normal(2, 3, 4, 6), normal(3, 3, 1, 6), normal(4, 3, 6, 2), intercept),
    }
    return {name: kind.to(device, dtype) for name, kind in kinds.items()}


@pytest.mark.parametrize("kind", ["linear", "gaussian", "fourier"])
def test_deciding_is_projecting_and_evaluating(kind: str, dtype: torch.dtype, device: str) -> None:
    decision = decisions(device, dtype)[kind]
    x = normal(6, 3, 20, 4).to(device, dtype)
    centred = decision.centre(x)
    projections = decision.project(centred)
    assert projections.shape == (3, 20, decision.num_projections)
    scores = decision(x)
    assert scores.shape == (3, 20, 2)
    rtol = 1e-4 if dtype == torch.float32 else 1e-9
    torch.testing.assert_close(decision.evaluate(projections, centred.square().sum(-1)), scores, rtol=rtol, atol=rtol)


def test_channels_may_be_centred_and_projected_in_parts(device: str) -> None:
    decision = decisions(device, torch.float64)["gaussian"]
    x = normal(6, 3, 20, 4).to(device)
    centred = decision.centre(x)
    parts = [slice(0, 1), slice(1, 4)]
    assert torch.equal(torch.cat([decision.centre(x[..., part], part) for part in parts], 2), centred)
    total = sum(decision.project(centred[..., part], part) for part in parts)
    torch.testing.assert_close(total, decision.project(centred))


@pytest.mark.parametrize("kind", ["linear", "gaussian", "fourier"])
def test_projections_are_linear(kind: str, device: str) -> None:
    decision = decisions(device, torch.float64)[kind]
    x, z = (normal(seed, 3, 20, 4).to(device) for seed in (6, 7))
    torch.testing.assert_close(
        decision.project(0.3 * x - 2 * z), 0.3 * decision.project(x) - 2 * decision.project(z), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("kind", ["linear", "gaussian", "fourier"])
def test_decisions_are_their_formulas(kind: str, device: str) -> None:
    """Summed up one row, class and component at a time."""
    decision = decisions(device, torch.float64)[kind]
    x = normal(6, 3, 5, 4)
    found = decision(x.to(device)).cpu()
    parts = {name: part.cpu() for name, part in decision.named_buffers()}
    for image in range(3):
        for row in range(5):
            for label in range(2):
                point, total = x[image, row], float(parts["intercept"][image, 0, label])
                if kind == "linear":
                    total += float(point @ parts["weights"][image, :, label])
                for place in range(6 if kind != "linear" else 0):
                    coefficient = float(parts["coefficients"][image, place, label])
                    if kind == "gaussian":
                        distance = float((point - parts["centres"][image, place]).square().sum())
                        total += coefficient * math.exp(-float(GAMMAS[image]) * distance)
                    else:
                        frequency = parts["frequencies"][image, :, place]
                        total += coefficient * math.cos(float(point @ frequency + parts["phases"][image, 0, place]))
                assert float(found[image, row, label]) == pytest.approx(total, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("kind", ["linear", "gaussian", "fourier"])
def test_deciding_leaves_its_arguments_alone(kind: str, device: str) -> None:
    decision = decisions(device, torch.float64)[kind]
    x = normal(6, 3, 20, 4).to(device)
    centred = decision.centre(x)
    projections, norms = decision.project(centred), centred.square().sum(-1)
    before = [part.clone() for part in (x, projections, norms, *decision.buffers())]
    first, second = decision(x), decision.evaluate(projections, norms)
    assert torch.equal(first, decision(x)) and torch.equal(second, decision.evaluate(projections, norms))
    assert all(torch.equal(*pair) for pair in zip((x, projections, norms, *decision.buffers()), before, strict=True))


@pytest.mark.parametrize("kind", ["linear", "gaussian", "fourier"])
def test_a_class_without_intercept_scores_minus_infinity(kind: str, dtype: torch.dtype, device: str) -> None:
    decision = decisions(device, dtype)[kind]
    decision.intercept[1, 0, 1] = -torch.inf
    scores = decision(normal(6, 3, 20, 4).to(device, dtype))
    assert bool((scores[1, :, 1] == -torch.inf).all())
    assert int(scores.isfinite().sum()) == 3 * 20 * 2 - 20


# Feature maps


def feature_maps(x: torch.Tensor, valid: torch.Tensor) -> dict[str, Any]:
    gamma = GAMMAS.to(x)
    nystroem, fourier = NystroemMap(x, valid, gamma, 12), FourierMap(x, gamma, 12)
    return {"linear": LinearMap(), "nystroem": nystroem, "fourier": fourier}


@pytest.mark.parametrize("kind", ["linear", "nystroem", "fourier"])
def test_a_maps_decision_is_linear_in_its_features(kind: str, dtype: torch.dtype, device: str) -> None:
    x, new = (normal(seed, 3, 40, 4).to(device, dtype) for seed in (0, 1))
    feature_map = feature_maps(x, all_valid(x))[kind]
    features = feature_map.features(new)
    weights, intercept = normal(2, 3, features.shape[2], 5).to(x), normal(3, 3, 1, 5).to(x)
    tolerance = 1e-3 if dtype == torch.float32 else 1e-9
    found = feature_map.decision(weights, intercept)(new)
    torch.testing.assert_close(found, features @ weights + intercept, rtol=tolerance, atol=tolerance)


def test_linear_features_are_the_samples(device: str) -> None:
    x = normal(0, 3, 40, 4).to(device)
    assert torch.equal(LinearMap().features(x), x)


@pytest.mark.parametrize("components", [1, 2, 7, 40, 100])
def test_nystroem_features_reproduce_the_kernel_on_landmarks(components: int, device: str) -> None:
    x = normal(0, 3, 40, 4).to(device)
    feature_map = NystroemMap(x, all_valid(x), GAMMAS.to(device), components)
    landmarks = feature_map.landmarks
    assert landmarks.shape == (3, min(components, 40), 4)
    features = feature_map.features(landmarks)
    expected = gaussian_kernel(landmarks, landmarks, GAMMAS.to(device))
    torch.testing.assert_close(features @ features.mT, expected, rtol=0, atol=1e-5)
    # And products with any other point, not only with landmarks.
    new = normal(1, 3, 10, 4).to(device)
    expected = gaussian_kernel(new, landmarks, GAMMAS.to(device))
    torch.testing.assert_close(feature_map.features(new) @ features.mT, expected, rtol=0, atol=1e-4)


def test_nystroem_landmarks_are_different_samples(device: str) -> None:
    x = normal(0, 3, 40, 4)
    landmarks = NystroemMap(x.to(device), all_valid(x).to(device), GAMMAS.to(device), 15).landmarks.cpu()
    for image in range(3):
        rows = {tuple(row) for row in x[image].tolist()}
        chosen = [tuple(row) for row in landmarks[image].tolist()]
        assert len(set(chosen)) == 15
        assert set(chosen) <= rows


def test_nystroem_residual_is_a_part_of_one_and_falls_with_components(dtype: torch.dtype, device: str) -> None:
    x = normal(0, 3, 200, 3).to(device, dtype)
    new = normal(1, 3, 50, 3).to(device, dtype)
    means = []
    for components in (4, 20, 100):
        residual = NystroemMap(x, all_valid(x), GAMMAS.to(x), components).residual(new)
        assert residual.shape == (3, 50)
        assert bool((residual >= -1e-3).all() and (residual <= 1).all())
        means.append(residual.mean(1))
    assert bool((means[0] > means[1]).all() and (means[1] > means[2]).all())


def test_nystroem_residual_is_the_distance_from_the_landmarks_span(device: str) -> None:
    """By least squares in the kernel's own space: 1 - k' K^-1 k."""
    x, new = normal(0, 3, 40, 4).to(device), normal(1, 3, 10, 4).to(device)
    feature_map = NystroemMap(x, all_valid(x), GAMMAS.to(device), 8)
    gram = gaussian_kernel(feature_map.landmarks, feature_map.landmarks, GAMMAS.to(device))
    across = gaussian_kernel(new, feature_map.landmarks, GAMMAS.to(device))
    expected = 1 - (across * torch.linalg.solve(gram, across.mT).mT).sum(-1)
    torch.testing.assert_close(feature_map.residual(new), expected, rtol=0, atol=1e-4)


def test_nystroem_takes_the_samples_along_that_are_represented_worst(device: str) -> None:
    """16 of 60 samples, among them in each of 8 tries the one far away: by chance once in 40,000 times."""
    x = normal(0, 1, 60, 2)
    x[0, 37] += 30
    x = x.to(device)
    for seed in range(8):
        landmarks = NystroemMap(x, all_valid(x), GAMMAS[:1].to(device), 16, seed).landmarks
        assert bool((landmarks > 15).any())


def test_nystroem_ignores_padding_whatever_its_number(dtype: torch.dtype, device: str) -> None:
    """Few valid samples among many, fewer than components or more: no landmark is padding."""
    x = normal(0, 3, 60, 4).to(device, dtype)
    valid = torch.zeros(3, 60, dtype=torch.bool, device=device)
    valid[0, :5], valid[1, 20:50], valid[2] = True, True, True
    new = normal(1, 3, 10, 4).to(device, dtype)
    padded = NystroemMap(torch.where(valid[..., None], x, 0), valid, GAMMAS.to(x), 40)
    features = padded.features(new)
    atol = 1e-4 if dtype == torch.float64 else 1e-2
    for image in range(2):
        alone = x[image, valid[image]][None]
        gamma = GAMMAS[image, None].to(x)
        plain = NystroemMap(alone, all_valid(alone), gamma, 40).features(new[image, None])
        torch.testing.assert_close(features[image] @ features[image].mT, (plain @ plain.mT)[0], rtol=0, atol=atol)


def test_nystroem_landmarks_are_the_same_with_padding_and_without(device: str) -> None:
    """Even if what stands in the padding is represented worst of all."""
    x = normal(0, 3, 90, 4).to(device)
    valid = torch.rand(3, 90, generator=torch.Generator().manual_seed(1)).to(device) < 0.6
    padded = NystroemMap(torch.where(valid[..., None], x, 50.0), valid, GAMMAS.to(x), 20)
    for image in range(3):
        alone = x[image, valid[image]][None]
        plain = NystroemMap(alone, all_valid(alone), GAMMAS[image, None].to(x), 20)
        assert {*map(tuple, padded.landmarks[image].tolist())} == {*map(tuple, plain.landmarks[0].tolist())}


def test_nystroem_bears_samples_that_repeat(dtype: torch.dtype, device: str) -> None:
    """Whose kernel matrix is singular."""
    x = normal(0, 3, 4, 2).to(device, dtype).repeat(1, 10, 1)
    features = NystroemMap(x, all_valid(x), GAMMAS.to(x), 40).features(x)
    assert bool(features.isfinite().all())
    expected = gaussian_kernel(x, x, GAMMAS.to(x))
    torch.testing.assert_close(features @ features.mT, expected, rtol=0, atol=2e-2)


def test_fourier_features_approximate_the_kernel(dtype: torch.dtype, device: str) -> None:
    """To 5 standard deviations of a mean over 20,000 draws, each of variance 1 at most."""
    x = normal(0, 3, 25, 4).to(device, dtype)
    features = FourierMap(x, GAMMAS.to(x), 20_000).features(x)
    assert features.dtype == dtype
    error = features @ features.mT - gaussian_kernel(x, x, GAMMAS.to(x))
    assert float(error.abs().max()) < 5 * math.sqrt(1 / 20_000)


def test_fourier_features_are_chosen_by_the_seed(dtype: torch.dtype, device: str) -> None:
    x = normal(0, 3, 25, 4).to(device, dtype)
    torch.manual_seed(0)
    first = FourierMap(x, GAMMAS.to(x), 30, seed=3).features(x)
    state = torch.get_rng_state()
    again = FourierMap(x, GAMMAS.to(x), 30, seed=3).features(x)
    other = FourierMap(x, GAMMAS.to(x), 30, seed=4).features(x)
    assert torch.equal(first, again)
    assert float((first - other).abs().mean()) > 0.01
    assert torch.equal(torch.get_rng_state(), state), "the global generator is left alone"


def test_fourier_features_do_not_depend_on_the_type(device: str) -> None:
    """The same frequencies in single and double precision."""
    x = normal(0, 3, 25, 4).to(device)
    double = FourierMap(x, GAMMAS.to(x), 30).features(x)
    single = FourierMap(x.float(), GAMMAS.to(x.float()), 30).features(x.float())
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-4)
