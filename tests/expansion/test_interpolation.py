"""Reading and scoring pixels against PyTorch's own dense pixel_scores."""

import math

import pytest
import torch
from conftest import normal
from torch import Tensor
from torch.nn import functional as F

from torch_svm_seg.expansion import pixel_scores
from torch_svm_seg.expansion.interpolation import Neighbours, read_pixels
from torch_svm_seg.expansion.pixel_scores import PixelScorer, score_pixels
from torch_svm_seg.svm.approximations import Fourier
from torch_svm_seg.svm.decisions import DecisionFunction, FourierDecision, GaussianDecision, LinearDecision
from torch_svm_seg.svm.svm import SVM

# Grid (h, w) and image (H, W): whole and broken factors, up and down, single rows, columns and cells.
SIZES = [
    ((5, 7), (40, 56)),
    ((5, 7), (23, 61)),
    ((16, 16), (7, 50)),
    ((9, 11), (9, 11)),
    ((12, 13), (5, 3)),
    ((1, 1), (17, 9)),
    ((1, 6), (33, 20)),
    ((6, 1), (4, 31)),
    ((3, 3), (1, 1)),
    ((13, 17), (50, 66)),
]
KINDS = ["linear", "gaussian", "fourier"]


def dense(features: Tensor, size: tuple[int, int]) -> Tensor:
    """Features of every pixel (B, H W, C)."""
    return F.interpolate(features, size, mode="bilinear", align_corners=False).flatten(2).mT


def random_decision(kind: str, channels: int, device: str, dtype: torch.dtype, images: int = 3) -> DecisionFunction:
    """4 classes, of which the first image lacks one."""
    intercept = normal(1, images, 1, 4)
    intercept[0, 0, 2] = -torch.inf
    decision: DecisionFunction
    if kind == "linear":
        decision = LinearDecision(normal(2, images, channels, 4), intercept)
    elif kind == "gaussian":
        gamma = torch.tensor([0.3, 0.5, 1.0]).double()[:images, None, None] / channels
        decision = GaussianDecision(normal(2, images, 9, channels), normal(3, images, 9, 4), gamma, intercept)
    else:
        frequencies = normal(2, images, channels, 9) / math.sqrt(channels)
        decision = FourierDecision(frequencies, normal(4, images, 1, 9), normal(3, images, 9, 4), intercept)
    return decision.to(device, dtype)


def smooth_features(device: str, channels: int, grid: tuple[int, int]) -> Tensor:
    """Two images of channels that vary slowly, (2, C, h, w)."""
    coarse = F.interpolate(normal(5, 2, channels, 3, 4), grid, mode="bicubic", align_corners=True)
    return coarse.to(device)


def fitted(features: Tensor, kind: str = "gaussian") -> SVM:
    """Three classes by the largest of three channels, learnt from the grid's own cells."""
    rows, labels = features.flatten(2).mT, features[:, :3].argmax(1).flatten(1)
    return SVM(approximation=Fourier(200) if kind == "fourier" else None).fit(rows, labels)


# Reading


@pytest.mark.parametrize(("grid", "size"), SIZES)
def test_pixels_read_are_those_of_the_interpolated_image(
    grid: tuple[int, int], size: tuple[int, int], dtype: torch.dtype, device: str
) -> None:
    """At positions of each image's own, that may repeat."""
    features = normal(0, 3, 6, *grid).to(device, dtype)
    number = size[0] * size[1]
    positions = torch.randint(number, (3, 200), generator=torch.Generator().manual_seed(1)).to(device)
    expected = torch.stack([rows[at] for rows, at in zip(dense(features, size), positions, strict=True)])
    tolerance = 1e-4 if dtype == torch.float32 else 1e-11
    found = read_pixels(features, positions, size)
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    every = torch.arange(number, device=device).expand(3, -1)
    torch.testing.assert_close(
        read_pixels(features, every, size), dense(features, size), rtol=tolerance, atol=tolerance
    )


def test_pixels_are_read_exactly_in_large_images(device: str) -> None:
    """A case where single precision must hold positions to a small part of a pixel."""
    features = normal(0, 1, 2, 64, 250).float().to(device)
    positions = torch.randint(512 * 2000, (1, 500), generator=torch.Generator().manual_seed(1)).to(device)
    expected = dense(features.double(), (512, 2000))[:, positions[0]]
    torch.testing.assert_close(read_pixels(features, positions, (512, 2000)).double(), expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize(("grid", "size"), SIZES)
def test_weights_of_neighbours_are_shares_of_one(grid: tuple[int, int], size: tuple[int, int], device: str) -> None:
    positions = torch.arange(size[0] * size[1], device=device).expand(3, -1)
    neighbours = Neighbours.of(positions, grid, size, torch.float64)
    torch.testing.assert_close(neighbours.weights.sum(-1), torch.ones_like(positions).double())
    assert bool((neighbours.weights >= 0).all())
    image = torch.arange(3, device=device)[:, None, None]
    assert bool((neighbours.indices // (grid[0] * grid[1]) == image).all())


@pytest.mark.parametrize(("grid", "size"), [((3, 4), (7, 9)), ((5, 4), (3, 2)), ((1, 1), (2, 3))])
def test_reading_has_the_gradient_of_its_features(grid: tuple[int, int], size: tuple[int, int], device: str) -> None:
    features = normal(0, 2, 3, *grid).to(device).requires_grad_()
    positions = torch.randint(size[0] * size[1], (2, 5), generator=torch.Generator().manual_seed(1)).to(device)
    assert torch.autograd.gradcheck(lambda table: read_pixels(table, positions, size), (features,))


# Scoring chosen pixels


@pytest.mark.parametrize(("grid", "size"), SIZES)
def test_squared_norms_of_interpolated_features_are_exact(
    grid: tuple[int, int], size: tuple[int, int], device: str
) -> None:
    features = normal(0, 3, 6, *grid).to(device)
    positions = torch.arange(size[0] * size[1], device=device).expand(3, -1)
    neighbours = Neighbours.of(positions, grid, size, torch.float64)
    found = pixel_scores._squared_norms(pixel_scores._neighbour_products(features), neighbours)
    torch.testing.assert_close(found, dense(features, size).square().sum(-1), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("grid", "size"), SIZES)
@pytest.mark.parametrize("project_first", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_scored_pixels_have_the_scores_of_dense_features(
    kind: str,
    project_first: bool,
    grid: tuple[int, int],
    size: tuple[int, int],
    device: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pixel_scores, "FEW_CHANNELS", 0 if project_first else 1000)
    features = normal(0, 3, 6, *grid).to(device)
    decision = random_decision(kind, 6, device, torch.float64)
    positions = torch.randint(size[0] * size[1], (3, 100), generator=torch.Generator().manual_seed(1)).to(device)
    expected = decision(dense(features, size))
    expected = torch.stack([scores[at] for scores, at in zip(expected, positions, strict=True)])
    torch.testing.assert_close(PixelScorer(decision, features, size)(positions), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("channels", [1, 3, pixel_scores.FEW_CHANNELS, pixel_scores.FEW_CHANNELS + 1])
@pytest.mark.parametrize("kind", KINDS)
def test_few_and_many_channels_are_scored_alike(kind: str, channels: int, dtype: torch.dtype, device: str) -> None:
    features = normal(0, 3, channels, 5, 7).to(device, dtype)
    decision = random_decision(kind, channels, device, dtype)
    positions = torch.arange(23 * 31, device=device).expand(3, -1)
    found = PixelScorer(decision, features, (23, 31))(positions)
    expected = random_decision(kind, channels, device, torch.float64)(dense(features.double(), (23, 31)))
    assert found.dtype == dtype
    tolerance = 1e-3 if dtype == torch.float32 else 1e-9
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("entries", [1, 500])
@pytest.mark.parametrize("channels", [6, 200])
@pytest.mark.parametrize("kind", KINDS)
def test_scoring_in_blocks_equals_the_whole(
    kind: str, channels: int, entries: int, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = normal(0, 3, channels, 5, 7).to(device)
    decision = random_decision(kind, channels, device, torch.float64)
    positions = torch.arange(11 * 13, device=device).expand(3, -1)
    whole = PixelScorer(decision, features, (11, 13))(positions)
    monkeypatch.setattr(pixel_scores, "block_entries", lambda tensor: entries)
    blocks = PixelScorer(decision, features, (11, 13))
    widths = []
    plain = blocks._score

    def watched(part: Tensor) -> Tensor:
        widths.append(part.shape[1])
        return plain(part)

    monkeypatch.setattr(blocks, "_score", watched)
    torch.testing.assert_close(blocks(positions), whole)
    row = 3 * (channels if channels == 6 else decision.num_projections)
    assert len(widths) > 1 and max(widths) * row <= max(entries, row)


# Scoring all pixels


@pytest.mark.parametrize(("grid", "size"), SIZES)
@pytest.mark.parametrize("channels", [6, 130])
@pytest.mark.parametrize("kind", KINDS)
def test_every_pixel_scored_is_the_decision_on_dense_features(
    kind: str, channels: int, grid: tuple[int, int], size: tuple[int, int], device: str
) -> None:
    features = normal(0, 3, channels, *grid).to(device)
    decision = random_decision(kind, channels, device, torch.float64)
    scores = score_pixels(PixelScorer(decision, features, size), every_pixel=True)
    assert scores.shape == (3, 4, *size)
    assert bool((scores[0, 2] == -torch.inf).all())
    assert int(scores.isfinite().sum()) == 11 * size[0] * size[1]
    expected = decision(dense(features, size)).mT.unflatten(2, size)
    torch.testing.assert_close(scores, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("grid", "size"), SIZES)
def test_linear_scores_are_exact_from_coarse_to_fine(grid: tuple[int, int], size: tuple[int, int], device: str) -> None:
    features = normal(0, 3, 6, *grid).to(device)
    decision = random_decision("linear", 6, device, torch.float64)
    scores = score_pixels(PixelScorer(decision, features, size))
    expected = decision(dense(features, size)).mT.unflatten(2, size)
    torch.testing.assert_close(scores, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [(50, 65), (97, 130), (112, 149)])
@pytest.mark.parametrize(("kind", "channels"), [("gaussian", 3), ("gaussian", 160), ("fourier", 3)])
def test_masks_from_coarse_to_fine_are_those_of_every_pixel(
    kind: str, channels: int, size: tuple[int, int], device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On 99.9 % of the pixels of smooth features, and with far fewer evaluations."""
    features = smooth_features(device, channels, (12, 16))
    scorer = PixelScorer(fitted(features, kind).decision, features, size)
    exact = score_pixels(scorer, every_pixel=True)
    evaluated = []
    plain = scorer._score

    def watched(part: Tensor) -> Tensor:
        evaluated.append(part.numel())
        return plain(part)

    monkeypatch.setattr(scorer, "_score", watched)
    scores = score_pixels(scorer)
    assert scores.shape == exact.shape
    assert float((scores.argmax(1) == exact.argmax(1)).double().mean()) >= 0.999
    assert sum(evaluated) < 0.75 * exact[:, 0].numel()
    assert float((scores - exact).abs().mean()) < 0.05
    # The pixels of the coarsest step are exact.
    torch.testing.assert_close(scores[..., ::4, ::4], exact[..., ::4, ::4], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [(12, 16), (23, 32), (20, 40)])
def test_all_pixels_are_evaluated_where_cells_are_small(size: tuple[int, int], device: str) -> None:
    features = smooth_features(device, 3, (12, 16))
    scorer = PixelScorer(fitted(features).decision, features, size)
    torch.testing.assert_close(score_pixels(scorer), score_pixels(scorer, every_pixel=True), rtol=1e-9, atol=1e-9)


def test_unsure_pixels_are_evaluated_from_coarse_to_fine(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them, where no margin is safe: the scores are exact then."""
    monkeypatch.setattr(pixel_scores, "SAFE_MARGIN", math.inf)
    features = smooth_features(device, 3, (12, 16))
    scorer = PixelScorer(fitted(features).decision, features, (97, 130))
    torch.testing.assert_close(score_pixels(scorer), score_pixels(scorer, every_pixel=True), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("height", "width"), [(9, 13), (10, 14), (9, 14), (1, 6), (2, 1)])
def test_pixels_between_others_are_evaluated_where_those_disagree_or_are_unsure(
    height: int, width: int, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And only there; which is found out pixel by pixel, with scores of 99 as the mark of an evaluated one."""
    features = torch.zeros(2, 3, 2, 2, dtype=torch.float64, device=device)
    decision = random_decision("gaussian", 3, device, torch.float64, images=2)
    scorer = PixelScorer(decision, features, (height, width))
    monkeypatch.setattr(scorer, "_score", lambda part: torch.full((*part.shape, 3), 99.0).to(features))
    coarse = 1.5 * normal(0, 2, 3, (height + 1) // 2, (width + 1) // 2).to(device)
    finer = pixel_scores._refine(scorer, coarse, pixel_scores._positions(height, width, 1, features.device))
    best, second = coarse.topk(2, dim=1).values.unbind(1)
    sure = best - second >= pixel_scores.SAFE_MARGIN
    label = coarse.argmax(1)
    for image in range(2):
        for y in range(height):
            for x in range(width):
                around = [
                    (min(row, coarse.shape[2] - 1), min(column, coarse.shape[3] - 1))
                    for row in (y // 2, (y + 1) // 2)
                    for column in (x // 2, (x + 1) // 2)
                ]
                agree = len({int(label[image][at]) for at in around}) == 1
                safe = agree and all(bool(sure[image][at]) for at in around)
                known = y % 2 == 0 and x % 2 == 0
                mean = torch.stack([coarse[image, :, row, column] for row, column in around]).mean(0)
                expected = mean if known or safe else torch.full_like(mean, 99.0)
                torch.testing.assert_close(finer[image, :, y, x], expected)


@pytest.mark.parametrize("channels", [3, 160])
@pytest.mark.parametrize("every_pixel", [False, True])
def test_absent_classes_stay_at_minus_infinity_everywhere(every_pixel: bool, channels: int, device: str) -> None:
    """An image of one class among images of three."""
    features = smooth_features(device, channels, (12, 16))
    rows, labels = features.flatten(2).mT, features[:, :3].argmax(1).flatten(1)
    labels[1] = 1
    svm = SVM(approximation=None).fit(rows, labels)
    scores = score_pixels(PixelScorer(svm.decision, features, (96, 128)), every_pixel)
    assert bool(scores[0].isfinite().all()) and bool(scores[1, 1].isfinite().all())
    assert bool((scores[1, [0, 2]] == -torch.inf).all())
    assert bool((scores[1].argmax(0) == 1).all())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("grid", "size"), [((1, 1), (40, 50)), ((4, 5), (32, 41)), ((2, 2), (1, 40))])
def test_a_single_class_is_scored_from_coarse_to_fine(
    grid: tuple[int, int], size: tuple[int, int], kind: str, device: str
) -> None:
    decision = random_decision(kind, 3, device, torch.float64, images=1)
    for name, buffer in list(decision.named_buffers()):
        if name in ("coefficients", "intercept", "weights"):
            setattr(decision, name, buffer[..., :1].contiguous())
    features = 0.1 * normal(0, 1, 3, *grid).to(device)
    scores = score_pixels(PixelScorer(decision, features, size))
    exact = score_pixels(PixelScorer(decision, features, size), every_pixel=True)
    assert scores.shape == (1, 1, *size)
    torch.testing.assert_close(scores, exact, rtol=0, atol=0.05)
