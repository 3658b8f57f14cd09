"""The examples on tiny settings, and what the gradient through an SVM does."""

from pathlib import Path

import pytest
import torch
from conftest import CAT, PERSON, TINY_IDS, VOID, small_backbone
from torch import Tensor
from torch.nn import functional as F

from examples import embed, finetune_through_svm
from examples.finetune_through_svm import LearnedFusion, Projection, held_out_loss, read_lessons
from torch_svm_seg import SVM, SVMExpander
from torch_svm_seg.backbones.builder import load_backbone
from torch_svm_seg.cam.activation import ActivationMaps
from torch_svm_seg.cam.io import save_cams
from torch_svm_seg.data.constants import VOC_CLASSES
from torch_svm_seg.data.voc import voc2012
from torch_svm_seg.expansion.interpolation import read_pixels
from torch_svm_seg.expansion.sampling import sample_pixels
from torch_svm_seg.pipeline.backgrounds import usual_background
from torch_svm_seg.pipeline.cam_supervision import CamFiles

STAGES = ["F1", "F3", "F4"]
SIZE = (24, 33)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def maps_on_two_grids() -> list[Tensor]:
    return [normal(0, 1, 5, 12, 17), normal(1, 1, 9, 3, 5)]


def regions() -> Tensor:
    """Three classes, (H, W)."""
    return F.interpolate(normal(7, 1, 3, 3, 4), SIZE, mode="bilinear")[0].argmax(0)


def moved(projection: Projection) -> Projection:
    """Away from the identity."""
    for number, parameter in enumerate(projection.parameters()):
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(number))
    return projection.double()


@pytest.fixture
def cams(tiny_voc: Path, tmp_path: Path) -> Path:
    """A folder with maps of every image that take the cat, on the left, for a person and the person for a cat."""
    for id in TINY_IDS:
        maps = torch.zeros(2, 6, 8)
        maps[1, 1:4, 1:3] = maps[0, 2:5, 5:7] = 0.9
        save_cams(tmp_path / "cams" / f"{id}.npz", ActivationMaps((CAT, PERSON), maps, (60, 80)), VOC_CLASSES)
    return tmp_path / "cams"


def test_a_head_learns_from_pseudo_labels(capsys: pytest.CaptureFixture[str]) -> None:
    first, last = embed.main(steps=4)
    assert last < 0.8 * first
    assert capsys.readouterr().out.count("mIoU") == 2


def test_projection_starts_as_fixed_fusion(tiny_voc: Path) -> None:
    item = voc2012(tiny_voc, "train")[0]
    assert item.mask is not None
    model = LearnedFusion(small_backbone(), STAGES)
    images, labels = item.image[None], item.mask[None]
    stages = model.backbone.stages(images, STAGES)
    fixed = SVMExpander(samples_per_class=40)([stages[name] for name in STAGES], labels)
    learned = SVMExpander(samples_per_class=40, normalize=False)(model(images), labels)
    assert torch.equal(learned.scores, fixed.scores)


def test_projection_commutes_with_interpolation() -> None:
    maps, projection = maps_on_two_grids(), moved(Projection([5, 9]))
    positions = torch.arange(SIZE[0] * SIZE[1])[None]
    found = read_pixels(projection(maps), positions, SIZE)
    matrix = torch.block_diag(*(torch.eye(len(r)).double() + r.detach()[..., 0, 0] for r in projection.parameters()))
    torch.testing.assert_close(found, read_pixels(maps, positions, SIZE) @ matrix.T, rtol=1e-9, atol=1e-9)


def test_held_out_loss_is_that_of_every_labelled_pixel_outside_the_sample() -> None:
    maps, labels = maps_on_two_grids(), regions()
    labels[:, :5] = VOID
    sample = sample_pixels(labels[None], 20, seed=3)
    rows = read_pixels(maps, torch.arange(labels.numel())[None], SIZE)[0]
    chosen = sample.positions[0]
    scores = SVM(loss="squared_hinge").fit(rows[chosen], labels.flatten()[chosen]).decision_function(rows)
    left = labels.flatten() != VOID
    left[chosen] = False
    expected = F.multi_margin_loss(scores[left], labels.flatten()[left])
    torch.testing.assert_close(held_out_loss(maps, labels, 20, seed=3), expected, rtol=1e-3, atol=1e-6)


def test_gradient_through_the_fit_reaches_the_projection() -> None:
    maps, labels, projection = maps_on_two_grids(), regions(), moved(Projection([5, 9]))

    def loss(*residuals: Tensor) -> Tensor:
        names = [name for name, _ in projection.named_parameters()]
        projected = torch.func.functional_call(projection, dict(zip(names, residuals, strict=True)), (maps,))
        return held_out_loss(projected, labels, samples=12, seed=0, tol=1e-12)

    residuals = [parameter.detach().requires_grad_() for parameter in projection.parameters()]
    assert torch.autograd.gradcheck(loss, residuals, eps=1e-7, atol=1e-5, rtol=1e-3, fast_mode=True)


def test_held_out_loss_has_its_gradient_in_projection_and_backbone(tiny_voc: Path) -> None:
    """Against central differences along the gradient."""
    torch.manual_seed(0)
    item = voc2012(tiny_voc, "train")[0]
    assert item.mask is not None
    model = LearnedFusion(load_backbone("efficientnet_lite0"), ["F1", "F3"]).double()

    def loss() -> Tensor:
        return held_out_loss(model(item.image[None]), item.mask, samples=60, seed=0, tol=1e-10)

    loss().backward()
    first_layer = next(model.backbone.parameters())
    for parameter in (*model.projection.parameters(), first_layer):
        assert parameter.grad is not None
        step = 1e-5 * parameter.grad / parameter.grad.norm()
        with torch.no_grad():
            parameter += step
            above = loss()
            parameter -= 2 * step
            below = loss()
            parameter += step
        torch.testing.assert_close((above - below) / 2e-5, parameter.grad.norm(), rtol=1e-2, atol=0)


def test_with_maps_only_seeds_are_learned_from(tiny_voc: Path, cams: Path) -> None:
    dataset, seeds = voc2012(tiny_voc, "train"), CamFiles(cams, usual_background)
    for found, true in zip(read_lessons(dataset, 3, seeds), read_lessons(dataset, 3, None), strict=True):
        assert torch.equal(true.labels, true.mask) and torch.equal(found.mask, true.mask)
        assert {*found.labels.unique().tolist()} == {0, CAT, PERSON, VOID}
        for taken_for, id in ((CAT, PERSON), (PERSON, CAT)):
            assert (found.labels == taken_for)[found.mask == id].double().mean() > 0.5


@pytest.mark.parametrize("weak", [False, True])
def test_projection_is_learnt_judged_and_taken_up(
    weak: bool, tiny_voc: Path, cams: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    data = ["--root", str(tiny_voc), "--limit", "2", "--val-limit", "1", *(["--cams", str(cams)] if weak else [])]
    settings = ["--features", "F1+F3", "--alone", "F3", "--samples-per-class", "40", "--backbone-rate", "1e-5"]
    finetune_through_svm.main([*data, *settings, "--steps", "2", "--out", str(tmp_path / "first")])
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in printed[1:4]] == ["F3 alone", "fixed fusion", "learned"]
    learned = torch.load(tmp_path / "first" / "projection.pt", weights_only=True)
    assert all(bool((residual != 0).any()) for residual in learned.values())
    assert (tmp_path / "first" / "loss.png").stat().st_size > 1000
    start = ["--projection", str(tmp_path / "first" / "projection.pt"), "--steps", "0"]
    finetune_through_svm.main([*data, *settings, *start, "--out", str(tmp_path / "second")])
    kept = torch.load(tmp_path / "second" / "projection.pt", weights_only=True)
    assert all(torch.equal(kept[name], learned[name]) for name in learned)
