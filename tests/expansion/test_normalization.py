"""Several feature maps in one SVM: reading, scoring and weighing them, against dense joined features."""

from pathlib import Path

import pytest
import torch
from conftest import normal
from torch import Tensor, nn
from torch.nn import functional as F

from torch_svm_seg import SVM, SVMExpander
from torch_svm_seg.cli.expand import main
from torch_svm_seg.expansion.expander import z_score
from torch_svm_seg.expansion.interpolation import FEW_CHANNELS, read_pixels
from torch_svm_seg.expansion.normalization import equalize_maps
from torch_svm_seg.expansion.pixel_scores import PixelScorer, score_pixels
from torch_svm_seg.svm.approximations import Fourier

SIZE = (24, 33)
KERNELS = [{"kernel": "linear"}, {"kernel": "rbf"}, {"kernel": "rbf", "approximation": Fourier(64)}]


def maps_on_three_grids(device: str) -> list[Tensor]:
    """Two images; the deepest map has so many channels that it is projected before it is interpolated."""
    shapes = [(5, 12, 17), (9, 6, 8), (FEW_CHANNELS + 4, 3, 5)]
    return [normal(seed, 2, *shape).to(device) for seed, shape in enumerate(shapes)]


def labels(device: str) -> Tensor:
    """Two and three classes, (2, H, W)."""
    planes = F.interpolate(normal(7, 2, 3, 3, 4), SIZE, mode="bilinear")
    planes[0, 1] = -torch.inf
    return planes.argmax(1).to(device)


def dense(maps: list[Tensor]) -> Tensor:
    """The joined features of every pixel, (B, H W, C)."""
    planes = [F.interpolate(features, SIZE, mode="bilinear", align_corners=False) for features in maps]
    return torch.cat(planes, 1).flatten(2).mT


def test_reading_joins_the_channels_of_all_maps(device: str) -> None:
    maps = maps_on_three_grids(device)
    positions = torch.randint(0, SIZE[0] * SIZE[1], (2, 50), generator=torch.Generator().manual_seed(1)).to(device)
    expected = dense(maps).gather(1, positions[..., None].expand(-1, -1, dense(maps).shape[2]))
    torch.testing.assert_close(read_pixels(maps, positions, SIZE), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("images", [1, 2])
def test_gradient_of_reading_passes_on_through_batch_norm(images: int, device: str) -> None:
    """PyTorch's BatchNorm takes a gradient of unusual strides amiss: it must not get one."""
    network = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)).double().to(device).eval()
    pictures = normal(0, images, 3, 8, 11).to(device)
    positions = torch.arange(SIZE[0] * SIZE[1], device=device).expand(images, -1)
    found = read_pixels(network(pictures), positions, SIZE).sin().sum()
    expected = dense([network(pictures)]).sin().sum()
    gradients = [torch.autograd.grad(loss, list(network.parameters())) for loss in (found, expected)]
    for own, reference in zip(*gradients, strict=True):
        torch.testing.assert_close(own, reference, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("options", KERNELS, ids=str)
@pytest.mark.parametrize("wide", [False, True])
def test_scores_on_native_grids_are_those_of_dense_features(wide: bool, options: dict, device: str) -> None:
    maps = maps_on_three_grids(device)[: 3 if wide else 2]
    rows = dense(maps)
    svm = SVM(**options).fit(rows[:, ::5], labels(device).flatten(1)[:, ::5])
    found = score_pixels(PixelScorer(svm.decision, maps, SIZE), every_pixel=True)
    torch.testing.assert_close(found.flatten(2).mT, svm.decision_function(rows), rtol=1e-8, atol=1e-8)


def test_every_map_has_the_same_variance_and_one_is_left_as_it_is(device: str) -> None:
    maps = [z_score(features) for features in maps_on_three_grids(device)]
    variances = torch.stack([features.square().mean((2, 3)).sum(1) for features in equalize_maps(maps)])
    torch.testing.assert_close(variances, torch.full_like(variances, sum(f.shape[1] for f in maps) / 3))
    assert torch.equal(equalize_maps(maps[:1])[0], maps[0])


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_fused_expansion_by_hand(kernel: str, device: str) -> None:
    maps, truth = maps_on_three_grids(device), labels(device)
    expander = SVMExpander(SVM(kernel=kernel, tol=1e-8), samples_per_class=60, every_pixel=True)
    scores, _, sample = expander(maps, truth)
    scaled = [z_score(features) / features.shape[1] ** 0.5 for features in maps]
    rows = dense(scaled) * (sum(features.shape[1] for features in maps) / 3) ** 0.5
    for image in range(2):
        drawn = sample.classes[image] >= 0
        x, y = rows[image, sample.positions[image][drawn]], sample.classes[image][drawn]
        svm = SVM(kernel=kernel, tol=1e-8).fit(x, y)
        found = scores[image, svm.classes_].flatten(1).mT
        torch.testing.assert_close(found, svm.decision_function(rows[image]), rtol=1e-3, atol=1e-3)


def test_a_map_weighs_alike_however_wide_it_is(device: str) -> None:
    shallow, deep, _ = maps_on_three_grids(device)

    def scores(maps: list[Tensor]) -> Tensor:
        gamma = 1 / sum(features.shape[1] for features in maps)
        return SVMExpander(SVM(gamma=gamma, tol=1e-8), samples_per_class=60, every_pixel=True)(
            maps, labels(device)
        ).scores

    narrow, wide = scores([shallow, deep]), scores([shallow, torch.cat([deep] * 3, 1)])
    torch.testing.assert_close(narrow, wide, rtol=1e-3, atol=1e-3)


def test_sampled_pixels_are_those_of_a_single_map(device: str) -> None:
    maps, truth = maps_on_three_grids(device), labels(device)
    expander = SVMExpander(SVM(tol=0.1), samples_per_class=20)
    assert torch.equal(expander(maps, truth).sample.positions, expander(maps[0], truth).sample.positions)


def test_features_may_come_normalised(device: str) -> None:
    maps, truth = maps_on_three_grids(device), labels(device)
    own = equalize_maps([z_score(features) for features in maps])
    found = SVMExpander(samples_per_class=40, normalize=False)(own, truth).scores
    assert torch.equal(found, SVMExpander(samples_per_class=40)(maps, truth).scores)


def test_gradient_through_the_fit_reaches_every_map(device: str) -> None:
    maps, truth = [features[:1].requires_grad_() for features in maps_on_three_grids(device)[:2]], labels(device)[:1]
    svm = SVM(loss="squared_hinge", tol=1e-12, gradient="implicit")
    expander = SVMExpander(svm, samples_per_class=12, every_pixel=True, normalize=False)

    def loss(*maps: Tensor) -> Tensor:
        scores = expander(list(maps), truth).scores
        return scores[scores.isfinite()].sin().sum()

    assert torch.autograd.gradcheck(loss, maps, eps=1e-6, atol=1e-4, rtol=1e-3, fast_mode=True)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda maps: [], "at least one map"),
        (lambda maps: [maps[0], maps[1][:1]], r"one B, .*got .*\(2, 5, 12, 17\).*\(1, 9, 6, 8\)"),
        (lambda maps: [maps[0], maps[1].long()], "floating point.*int64"),
        (lambda maps: [maps[0], maps[1] / 0], r"nan or inf in image\(s\) \[0, 1\]"),
    ],
)
def test_maps_that_do_not_fit_are_told(spoil, told: str, device: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=told):
        SVMExpander()(spoil(maps_on_three_grids(device)), labels(device))


def test_expand_writes_the_masks_of_fused_stages(tiny_voc: Path, tmp_path: Path) -> None:
    arguments = ["--root", str(tiny_voc), "--samples-per-class", "30", "--limit", "1", "--out", str(tmp_path)]
    assert main([*arguments, "--features", "F2", "img+F2"]) == 0
    masks = {path.parent.name: path.read_bytes() for path in tmp_path.glob("*/*.png")}
    assert masks.keys() == {"F2", "img+F2"} and len(set(masks.values())) == 2


@pytest.mark.parametrize(("features", "told"), [("F2+F9", "got F2+F9"), ("F2+F2", "once"), ("F2+", "got F2+")])
def test_expand_tells_what_cannot_be_fused(
    features: str, told: str, tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--root", str(tiny_voc), "--features", features, "--out", str(tmp_path)]) == 2
    assert told in capsys.readouterr().err
