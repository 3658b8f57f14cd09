"""The expansion of labels by per-image SVMs: shapes, classes, weights, invariances, errors, and toy images."""

import copy
import doctest
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from conftest import normal
from torch import Tensor
from torch.nn import functional as F

import torch_svm_seg
import torch_svm_seg.expansion.expander
from torch_svm_seg import Expansion, SVMExpander
from torch_svm_seg.data.constants import VOID
from torch_svm_seg.expansion.expander import z_score
from torch_svm_seg.expansion.sampling import sample_pixels
from torch_svm_seg.svm.approximations import Fourier, Nystroem
from torch_svm_seg.svm.svm import SVM

OPTIONS: list[dict[str, Any]] = [
    {"kernel": "linear"},
    {"kernel": "rbf"},
    {"kernel": "rbf", "approximation": Nystroem(32)},
    {"kernel": "rbf", "approximation": Fourier(128)},
    {"kernel": "rbf", "loss": "squared_hinge"},
]


def toy_batch(device: str, channels: int = 6, noise: float = 0.3) -> tuple[Tensor, Tensor, Tensor]:
    """Features (3, C, 9, 12) and truth (3, 36, 48) of images with 2, 3 and 2 regions, and labels of few pixels.

    The classes are 0 with 4, 0 with 4 and 9, and 9 with 11. Borders run where interpolated features are half and half.
    """
    rows, columns = torch.arange(9)[:, None], torch.arange(12)
    disc = ((rows - 4) ** 2 + (columns - 4) ** 2 < 9).long()
    stripe = (columns + 0 * rows > 8).long()
    cells = torch.stack([4 * disc, 4 * disc + 9 * stripe, 9 + 2 * stripe])
    planes = F.one_hot(cells).permute(0, 3, 1, 2).double()
    truth = F.interpolate(planes, (36, 48), mode="bilinear", align_corners=False).argmax(1)
    centres = 2 * normal(0, 12, channels)
    features = centres[cells].permute(0, 3, 1, 2) + noise * normal(1, 3, channels, 9, 12)
    labels = truth.clone()
    labels[torch.rand(3, 36, 48, generator=torch.Generator().manual_seed(2)) < 0.7] = VOID
    return features.to(device), labels.to(device), truth.to(device)


def iou(mask: Tensor, truth: Tensor) -> float:
    """The smallest over the classes of the truth."""
    return min(
        float(((mask == label) & (truth == label)).sum() / ((mask == label) | (truth == label)).sum())
        for label in truth.unique()
    )


# Results


@pytest.mark.parametrize("channels", [6, 200])
def test_features_far_from_the_origin_are_scored_as_well(channels: int, device: str) -> None:
    """In single precision, where a squared norm of 1e8 would hide the distances."""
    features, labels, _ = toy_batch(device, channels)
    expander = SVMExpander(samples_per_class=60, normalize=False, every_pixel=True)
    expected = expander(features, labels)
    found = expander((features + 1000).float(), labels)
    assert float((found.masks == expected.masks).double().mean()) > 0.999
    present = expected.scores > -torch.inf
    assert float((found.scores - expected.scores)[present].abs().max()) < 0.02


@pytest.mark.parametrize("gradient", [None, "implicit"])
def test_a_network_is_saved_and_copied_without_what_was_fitted(gradient: Any, device: str) -> None:
    features, labels, _ = toy_batch(device)
    network = torch.nn.ModuleDict({"own": torch.nn.Conv2d(6, 6, 1), "expander": SVMExpander(SVM(gradient=gradient))})
    network.to(device, torch.float64)
    network["expander"](network["own"](features), labels).scores.nan_to_num(neginf=0).sum().backward()
    assert set(network.state_dict()) == {"own.weight", "own.bias"}
    copied = copy.deepcopy(network)
    copied.load_state_dict(network.state_dict())
    assert not any(kept.requires_grad for kept in copied["expander"].buffers())


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("channels", [6, 200])
def test_separable_regions_are_recovered(channels: int, options: dict[str, Any], device: str) -> None:
    features, labels, truth = toy_batch(device, channels, noise=0.1)
    scores, masks, sample = SVMExpander(SVM(**options, max_iter=100), samples_per_class=60)(features.float(), labels)
    assert scores.shape == (3, 12, 36, 48) and scores.dtype == torch.float32
    assert masks.shape == (3, 36, 48) and masks.dtype == torch.int64
    assert sample.positions.shape == sample.classes.shape == (3, 180)
    for image in range(3):
        assert iou(masks[image], truth[image]) > 0.9


@pytest.mark.parametrize("wrong", [0.0, 0.15])
def test_two_noisy_regions_are_recovered_with_an_iou_above_95_percent(wrong: float, device: str) -> None:
    """On the image's own grid, with every class's sample drawn from labels of which some are wrong."""
    truth = torch.zeros(1, 40, 50, dtype=torch.long)
    truth[0, 8:30, 10:35] = 1
    features = (2.0 * truth[:, None] - 1) * torch.ones(1, 8, 1, 1) + normal(3, 1, 8, 40, 50)
    flipped = torch.rand(1, 40, 50, generator=torch.Generator().manual_seed(4)) < wrong
    labels = torch.where(flipped, 1 - truth, truth)
    masks = SVMExpander(samples_per_class=150)(features.float().to(device), labels.to(device)).masks
    assert iou(masks.cpu(), truth) > 0.95


def test_masks_are_the_largest_scores_and_have_classes_of_their_image_only(device: str) -> None:
    features, labels, _ = toy_batch(device)
    scores, masks, _ = SVMExpander(SVM(tol=0.01), samples_per_class=30)(features, labels)
    assert torch.equal(masks, scores.argmax(1))
    for image, present in enumerate(([0, 4], [0, 4, 9], [9, 11])):
        assert masks[image].unique().tolist() == present
        finite = scores[image].isfinite().flatten(1).all(1)
        assert finite.nonzero()[:, 0].tolist() == present
        assert bool((scores[image][~finite] == -torch.inf).all())


def test_scores_are_the_svms_decisions_on_interpolated_z_scored_features(device: str) -> None:
    """Each step done by hand, on dense features."""
    features, labels, _ = toy_batch(device)
    weights = torch.rand(3, 36, 48, generator=torch.Generator().manual_seed(3)).to(device) + 0.1
    expander = SVMExpander(SVM(C=3, tol=1e-6), samples_per_class=50, seed=7, every_pixel=True)
    scores, _, sample = expander(features, labels, weights)
    expected_sample = sample_pixels(labels, 50, seed=7)
    assert torch.equal(sample.positions, expected_sample.positions)
    assert torch.equal(sample.classes, expected_sample.classes)
    centred = features - features.mean((2, 3), keepdim=True)
    normalised = centred / features.std((2, 3), keepdim=True, correction=0)
    dense = F.interpolate(normalised, (36, 48), mode="bilinear", align_corners=False).flatten(2).mT
    for image in range(3):
        drawn = sample.classes[image] >= 0
        places, classes = sample.positions[image][drawn], sample.classes[image][drawn]
        svm = SVM(C=3, tol=1e-6).fit(dense[image, places], classes, weights[image].flatten()[places].double())
        expected = svm.decision_function(dense[image])
        found = scores[image].flatten(1).T[:, svm.classes_]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-2)


def test_all_arguments_reach_the_svm() -> None:
    options: dict[str, Any] = {
        "kernel": "rbf",
        "C": 3.5,
        "gamma": 0.25,
        "loss": "squared_hinge",
        "approximation": Fourier(17, seed=5),
        "tol": 0.01,
        "max_iter": 77,
    }
    expander = SVMExpander(SVM(**options), samples_per_class=9, seed=5)
    assert {name: getattr(expander.svm, name) for name in options} == options
    assert expander.samples_per_class == 9 and expander.seed == 5


@pytest.mark.parametrize("options", [OPTIONS[0], OPTIONS[1], OPTIONS[3]], ids=str)
def test_batched_equals_looped(options: dict[str, Any], device: str) -> None:
    features, labels, _ = toy_batch(device)
    expander = SVMExpander(SVM(**options, tol=1e-4), samples_per_class=50, num_classes=12)
    scores, masks, sample = expander(features, labels)
    for image in range(3):
        alone = expander(features[image : image + 1], labels[image : image + 1])
        torch.testing.assert_close(scores[image], alone.scores[0], rtol=0, atol=2e-2)
        assert float((masks[image] == alone.masks[0]).double().mean()) >= 0.999
        number = alone.sample.positions.shape[1]
        assert torch.equal(sample.positions[image, :number], alone.sample.positions[0])
        assert bool((sample.classes[image, number:] == -1).all())


def test_coarse_to_fine_masks_are_those_of_every_pixel(device: str) -> None:
    features, labels, _ = toy_batch(device, noise=0.0)
    size = (72, 96)
    labels = F.interpolate(labels[:, None].double(), size)[:, 0].long()
    masks = [
        SVMExpander(SVM(tol=0.01), samples_per_class=30, every_pixel=every)(features, labels).masks
        for every in (False, True)
    ]
    assert float((masks[0] == masks[1]).double().mean()) >= 0.999


@pytest.mark.parametrize("num_classes", [12, 21])
def test_num_classes_sets_the_planes_of_the_scores(num_classes: int, device: str) -> None:
    features, labels, _ = toy_batch(device)
    plain = SVMExpander(SVM(tol=0.01), samples_per_class=30)(features[:2], labels[:2])
    expander = SVMExpander(SVM(tol=0.01), samples_per_class=30, num_classes=num_classes)
    scores, masks, _ = expander(features[:2], labels[:2])
    assert plain.scores.shape[1] == 10, "1 + the largest class id"
    assert scores.shape == (2, num_classes, 36, 48)
    assert torch.equal(scores[:, :10], plain.scores)
    assert bool((scores[:, 10:] == -torch.inf).all())
    assert torch.equal(masks, plain.masks)


def test_an_image_of_one_class_is_that_class_everywhere(device: str) -> None:
    features, labels, _ = toy_batch(device)
    labels[0, labels[0] == 4] = VOID
    expansion = SVMExpander(SVM(tol=0.01), samples_per_class=30)(features, labels)
    assert not expansion.masks[0].any()
    alone = SVMExpander(SVM(tol=0.01), samples_per_class=30)(features[:1], labels[:1])
    assert not alone.masks.any() and bool(alone.scores.isfinite().all())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_labels_may_be_any_integers_that_hold_them(dtype: torch.dtype, device: str) -> None:
    features, labels, _ = toy_batch(device)
    if dtype == torch.int8:  # which does not hold 255
        labels = torch.where(labels == VOID, 0, labels)
    expander = SVMExpander(SVM(tol=0.01), samples_per_class=30)
    assert torch.equal(expander(features, labels.to(dtype)).masks, expander(features, labels).masks)


def test_the_seed_draws_the_pixels(device: str) -> None:
    features, labels, _ = toy_batch(device)
    results = [SVMExpander(samples_per_class=20, seed=seed)(features, labels) for seed in (1, 1, 2)]
    assert torch.equal(results[0].scores, results[1].scores)
    assert not torch.equal(results[0].sample.positions, results[2].sample.positions)


def test_an_expander_leaves_its_arguments_alone(device: str) -> None:
    features, labels, _ = toy_batch(device)
    weights = torch.rand(3, 36, 48, generator=torch.Generator().manual_seed(3)).to(device)
    before = [part.clone() for part in (features, labels, weights)]
    SVMExpander(SVM(tol=0.01), samples_per_class=30)(features, labels, weights)
    assert all(torch.equal(*pair) for pair in zip((features, labels, weights), before, strict=True))


# Weights


def test_weights_of_one_are_the_default(device: str) -> None:
    features, labels, _ = toy_batch(device)
    expander = SVMExpander(SVM(tol=0.01), samples_per_class=30)
    assert torch.equal(
        expander(features, labels).scores, expander(features, labels, torch.ones(3, 36, 48).to(device)).scores
    )


def test_weight_zero_is_void(device: str) -> None:
    """The pixels take no part and are not drawn, and nor is a class that has no other."""
    features, labels, _ = toy_batch(device)
    off = torch.rand(3, 36, 48, generator=torch.Generator().manual_seed(3)).to(device) < 0.5
    off |= labels == 11
    expander = SVMExpander(SVM(tol=0.01), samples_per_class=30, num_classes=12)
    weighted = expander(features, labels, (~off).double())
    void = expander(features, torch.where(off, VOID, labels))
    assert torch.equal(weighted.sample.positions, void.sample.positions)
    assert torch.equal(weighted.sample.classes, void.sample.classes)
    assert torch.equal(weighted.scores, void.scores)
    assert bool((weighted.scores[:, 11] == -torch.inf).all())


def test_small_weights_overrule_wrong_labels(device: str) -> None:
    """A third of the stripe is labelled as the rest, which counts only where it is trusted."""
    features, labels, truth = toy_batch(device)
    features, labels, truth = features[2:], truth[2:].clone(), truth[2:]
    wrong = torch.rand(1, 36, 48, generator=torch.Generator().manual_seed(5)).to(device) < 0.6
    wrong &= truth == 11
    labels[wrong] = 9
    expander = SVMExpander(samples_per_class=3000)
    trusting = expander(features, labels).masks
    wary = expander(features, labels, torch.where(wrong, 0.01, 1.0)).masks
    assert iou(wary, truth) > 0.95 > iou(trusting, truth)


# z-scores


def test_z_scores_have_mean_0_and_deviation_1(dtype: torch.dtype, device: str) -> None:
    features = (normal(0, 3, 4, 12, 16) * torch.tensor([1e-3, 1, 20, 1e4])[:, None, None] + 7).to(device, dtype)
    found = z_score(features)
    tolerance = 1e-2 if dtype == torch.float32 else 1e-9
    torch.testing.assert_close(found.mean((2, 3)), torch.zeros_like(found[..., 0, 0]), rtol=0, atol=tolerance)
    torch.testing.assert_close(
        found.std((2, 3), correction=0), torch.ones_like(found[..., 0, 0]), rtol=tolerance, atol=0
    )


@pytest.mark.parametrize("value", [0.0, 0.1, -1.7, 123.456, 1e6])
@pytest.mark.parametrize("grid", [(1, 1), (5, 7), (32, 32), (33, 47)])
def test_constant_channels_become_0(grid: tuple[int, int], value: float, dtype: torch.dtype, device: str) -> None:
    """Also where their mean is rounded, as that of 35 times 0.1 is."""
    features = normal(0, 2, 3, *grid).to(device, dtype)
    features[:, 1] = value
    assert not z_score(features)[:, 1].any()


def test_masks_do_not_depend_on_the_unit_or_origin_of_a_channel(device: str) -> None:
    features, labels, _ = toy_batch(device)
    scale = torch.tensor([1e-3, 1.0, 5.0, 1e2, 0.2, 30.0], device=device)[:, None, None].double()
    moved = features * scale + 10 * normal(6, 3, 6, 1, 1).to(device)
    expander = SVMExpander(SVM(tol=1e-6), samples_per_class=50)
    first, second = expander(features, labels), expander(moved, labels)
    torch.testing.assert_close(second.scores, first.scores, rtol=0, atol=1e-2)
    assert float((first.masks == second.masks).double().mean()) >= 0.999


def test_images_are_normalised_by_themselves(device: str) -> None:
    features, labels, _ = toy_batch(device)
    moved = features.clone()
    moved[1:] = 1e3 * moved[1:] + 5e3
    expander = SVMExpander(SVM(tol=0.01), samples_per_class=30)
    assert torch.equal(expander(features, labels).scores[0], expander(moved, labels).scores[0])


# Errors

FEATURES, LABELS = torch.rand(2, 3, 6, 7), torch.randint(0, 3, (2, 12, 14))
NAN = FEATURES.clone()
NAN[1, 2, 3, 4] = torch.nan
INFINITE = FEATURES.clone()
INFINITE[0, 0, 0, 0] = torch.inf
HALF_VOID = LABELS.clone()
HALF_VOID[1] = VOID
ONES = torch.ones(2, 12, 14)


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        (r"^features: .*\(B, C, h, w\), got .*\(3, 6, 7\)", (FEATURES[0], LABELS)),
        (r"^features: .*\(B, C, h, w\), got .*\(0, 3, 6, 7\)", (FEATURES[:0], LABELS[:0])),
        (r"^features: .*\(B, C, h, w\), got .*\(2, 0, 6, 7\)", (FEATURES[:, :0], LABELS)),
        (r"^features: .*int64", (FEATURES.long(), LABELS)),
        (r"^features: .*nan or inf in image\(s\) \[1\]", (NAN, LABELS)),
        (r"^features: .*nan or inf in image\(s\) \[0\]", (INFINITE, LABELS)),
        (r"^labels: .*\(B, H, W\) with B = 2, got .*\(12, 14\)", (FEATURES, LABELS[0])),
        (r"^labels: .*B = 2, got .*\(1, 12, 14\)", (FEATURES, LABELS[:1])),
        (r"^labels: .*integer.*float32", (FEATURES, LABELS.float())),
        (r"^labels: .*below 255 .*\[256, 300\]", (FEATURES, torch.where(LABELS == 1, 300, LABELS + 254))),
        (r"^labels: .*\[-1\]", (FEATURES, LABELS - 1)),
        (r"^labels: .*got none in \[1\]", (FEATURES, HALF_VOID)),
        (r"^weights: .*\(2, 12, 14\).*\(12, 14\)", (FEATURES, LABELS, ONES[0])),
        (r"^weights: .*\(2, 12, 14\).*\(2, 6, 7\)", (FEATURES, LABELS, torch.ones(2, 6, 7))),
        (r"^weights: ", (FEATURES, LABELS, torch.where(LABELS == 1, -1.0, 1.0))),
        (r"^weights: ", (FEATURES, LABELS, torch.where(LABELS == 1, torch.nan, 1.0))),
        (r"^weights: ", (FEATURES, LABELS, torch.where(LABELS == 1, torch.inf, 1.0))),
        (r"^(labels|weights): .*1\b", (FEATURES, LABELS, torch.stack([ONES[0], 0 * ONES[0]]))),
    ],
)
def test_a_wrong_argument_is_named(message: str, arguments: tuple[Tensor, ...], device: str) -> None:
    with pytest.raises(ValueError, match=message):
        SVMExpander(samples_per_class=20)(*(argument.to(device) for argument in arguments))


def test_class_ids_that_num_classes_excludes_are_named(device: str) -> None:
    features, labels = FEATURES.to(device), LABELS.to(device)
    with pytest.raises(ValueError, match=r"^labels: .*below 2 or 255, got \[2\]"):
        SVMExpander(num_classes=2)(features, labels)
    labels[labels == 2] = VOID
    assert SVMExpander(num_classes=2, samples_per_class=20)(features, labels).scores.shape[1] == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [("samples_per_class", 0), ("samples_per_class", 1.5), ("num_classes", 0), ("num_classes", -1), ("svm", "rbf")],
)
def test_a_wrong_option_is_named_at_once(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected .* got {value!r}"):
        SVMExpander(**{name: value})


# In a training loop


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_features_are_computed_in_single(half: torch.dtype, device: str) -> None:
    features, labels, _ = toy_batch(device)
    features = features.to(half)
    expander = SVMExpander(SVM(tol=0.01), samples_per_class=30)
    found, expected = expander(features, labels), expander(features.float(), labels)
    assert found.scores.dtype == torch.float32
    assert torch.equal(found.scores, expected.scores)


@pytest.mark.parametrize("options", [OPTIONS[0], OPTIONS[1], OPTIONS[3]], ids=str)
@pytest.mark.parametrize("channels", [6, 200])
def test_autocast_changes_no_mask(channels: int, options: dict[str, Any], device: str) -> None:
    features, labels, _ = toy_batch(device, channels, noise=1.0)
    expander = SVMExpander(SVM(**options, max_iter=100, tol=0.01), samples_per_class=30)
    expected = expander(features.float(), labels)
    with torch.autocast(device, dtype=torch.bfloat16):
        found = expander(features.float(), labels)
    assert found.scores.dtype == torch.float32
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-3)
    assert torch.equal(found.masks, expected.masks)


@pytest.mark.parametrize("options", [OPTIONS[0], OPTIONS[1], OPTIONS[3]], ids=str)
@pytest.mark.parametrize("channels", [6, 200])
def test_features_with_a_graph_give_the_same_masks(channels: int, options: dict[str, Any], device: str) -> None:
    """And a step of a network before it: what gradients the scores carry are finite."""
    features, labels, _ = toy_batch(device, channels)
    svm = SVM(**options, tol=1e-2)
    expected = SVMExpander(svm, samples_per_class=30)(features, labels)
    network = torch.nn.Conv2d(channels, channels, 1).to(features)
    with torch.no_grad():
        network.weight.copy_(torch.eye(channels)[..., None, None])
        network.bias.zero_()  # type: ignore[union-attr]
    expansion: Expansion = SVMExpander(svm, samples_per_class=30)(network(features), labels)
    torch.testing.assert_close(expansion.scores, expected.scores, rtol=0, atol=1e-6)
    assert torch.equal(expansion.masks, expected.masks)
    assert not expansion.masks.requires_grad
    if expansion.scores.requires_grad:
        expansion.scores[expansion.scores.isfinite()].sum().backward()
        assert all(bool(part.grad.isfinite().all()) for part in network.parameters() if part.grad is not None)


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_a_constant_channel_spoils_no_gradient(kernel: Any, device: str) -> None:
    """As one that a network's ReLU holds at 0."""
    features, labels, _ = toy_batch(device)
    features[:, 2], features[:, 3] = 0, 0.1
    scores = SVMExpander(SVM(kernel=kernel), samples_per_class=20)(features.requires_grad_(), labels).scores
    if scores.requires_grad:
        scores[scores.isfinite()].sum().backward()
        assert features.grad is not None and bool(features.grad.isfinite().all())


def test_an_expander_keeps_no_graph_between_images(device: str) -> None:
    features, labels, _ = toy_batch(device)
    expander = SVMExpander(SVM(tol=0.01), samples_per_class=30)
    expander.fit(features.requires_grad_(), labels)
    kept = [*expander.buffers(), expander.svm.objective_]
    assert kept and not any(tensor.requires_grad for tensor in kept)


def test_an_expander_under_no_grad_and_inference_mode_gives_the_same_masks(device: str) -> None:
    features, labels, _ = toy_batch(device)
    expander = SVMExpander(SVM(tol=0.01), samples_per_class=30)
    expected = expander(features, labels).masks
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert torch.equal(expander(features, labels).masks, expected)


# State


def test_threads_share_an_expander(device: str) -> None:
    """Each call's masks are those that it gives alone, however the calls overlap."""
    features, labels, _ = toy_batch(device, noise=1.0)
    expander = SVMExpander(SVM(tol=0.01), samples_per_class=30)
    pairs = [(features[image : image + 1], labels[image : image + 1]) for image in range(3)] * 8
    expected = [expander(*pair).masks for pair in pairs]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda pair: expander(*pair).masks, pairs))
    assert all(torch.equal(*masks) for masks in zip(found, expected, strict=True))
    assert not hasattr(expander.svm, "decision")


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("channels", [6, 200])
def test_an_svm_fitted_to_an_image_labels_it_as_the_expansion_does(
    channels: int, options: dict[str, Any], device: str
) -> None:
    features, labels, _ = toy_batch(device, channels, noise=0.1)
    expander = SVMExpander(SVM(**options), samples_per_class=60).fit(features[1:2], labels[1:2])
    expected = expander(features[1:2], labels[1:2])
    found = expander.predict(features[1:2], (36, 48))
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-2)
    assert float((found.masks == expected.masks).double().mean()) > 0.999
    assert found.sample.positions.shape == (1, 0)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_fitted_expander_is_saved_loaded_and_applied_to_other_images(options: dict[str, Any], device: str) -> None:
    features, labels, truth = toy_batch(device, noise=0.1)
    maps = [features, features[..., ::2, ::2] + 1]
    expander = SVMExpander(SVM(**options), samples_per_class=60, num_classes=12)
    expander.fit([one[:2] for one in maps], labels[:2])
    loaded = SVMExpander(SVM(**options), samples_per_class=60, num_classes=12).to(device)
    loaded.load_state_dict(expander.state_dict())
    expected, found = expander.predict(maps, (36, 48)), loaded.predict(maps, (36, 48))
    torch.testing.assert_close(found.scores, expected.scores)
    assert torch.equal(found.masks, expected.masks) and found.scores.shape == (3, 12, 36, 48)
    assert iou(found.masks[1], truth[1]) > 0.8


def test_the_svm_given_to_an_expander_is_neither_fitted_nor_loaded(device: str) -> None:
    features, labels, _ = toy_batch(device)
    svm = SVM(kernel="linear", C=2.0)
    expander = SVMExpander(svm, samples_per_class=20).fit(features, labels)
    SVMExpander(svm, samples_per_class=20).to(device).load_state_dict(expander.state_dict())
    assert not svm.state_dict() and expander.svm.C == 2.0
    with pytest.raises(RuntimeError, match="call fit first"):
        SVMExpander(expander.svm).svm.predict(features)


def test_predicting_before_fit_or_to_other_channels_says_so(device: str) -> None:
    features, labels, _ = toy_batch(device)
    expander = SVMExpander(samples_per_class=20)
    with pytest.raises(RuntimeError, match="call fit first"):
        expander.predict(features, (36, 48))
    with pytest.raises(ValueError, match=r"features: expected maps of \[6\] channels as in fit, got \[5\]"):
        expander.fit(features, labels).predict(features[:, :5], (36, 48))
    expander.fit([features[:, :4], features[:, 4:]], labels)
    for others in ([features[:, :2], features[:, 2:]], [features[:, :3], features[:, 3:]], features):
        with pytest.raises(ValueError, match=r"features: expected maps of \[4, 2\] channels as in fit, got \["):
            expander.predict(others, (36, 48))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_features_of_another_precision_are_predicted_in_that_of_the_fit(options: dict[str, Any], device: str) -> None:
    features, labels, _ = toy_batch(device)
    for fitted, other in ((torch.float32, torch.float64), (torch.float64, torch.float32)):
        expander = SVMExpander(SVM(**options), samples_per_class=20).fit(features.to(fitted), labels)
        expected = expander.predict(features.float().to(fitted), (36, 48))
        found = expander.predict(features.float().to(other), (36, 48))
        assert found.scores.dtype == fitted and torch.equal(found.scores, expected.scores)


@pytest.mark.parametrize("scale", [2.0**100, 2.0**-100])
def test_masks_do_not_depend_on_units_whose_squares_single_precision_cannot_hold(scale: float, device: str) -> None:
    features, labels, _ = toy_batch(device)
    features = features.float()
    expander = SVMExpander(samples_per_class=30)
    assert torch.equal(expander(features * scale, labels).scores, expander(features, labels).scores)


# Documentation


def test_the_example_in_the_documentation_runs() -> None:
    result = doctest.testmod(torch_svm_seg.expansion.expander)
    assert result.attempted > 0 and result.failed == 0


def test_the_package_offers_what_its_modules_define() -> None:
    assert {"SVM", "SVMExpander", "Expansion", "LabelledMaps", "LabelledPixels"} <= set(torch_svm_seg.__all__)
    assert torch_svm_seg.SVMExpander is torch_svm_seg.expansion.expander.SVMExpander
