"""The examples on tiny settings, and what the gradient through an SVM does."""

from pathlib import Path

import pytest
import torch

from examples import embed, finetune_through_svm
from examples.finetune_through_svm import LearnedFusion, held_out_loss
from torch_svm_seg.backbones import load_backbone
from torch_svm_seg.datasets import voc2012


def test_a_head_learns_from_pseudo_labels(capsys: pytest.CaptureFixture[str]) -> None:
    first, last = embed.main(steps=4)
    assert last < 0.8 * first
    assert capsys.readouterr().out.count("mIoU") == 2


def test_held_out_loss_has_its_gradient_in_metric_and_backbone(tiny_voc: Path) -> None:
    """Against central differences along the gradient."""
    torch.manual_seed(0)
    photograph = voc2012(tiny_voc, "train")[0]
    assert photograph.mask is not None
    model = LearnedFusion(load_backbone("efficientnet_lite0"), ["F1", "F3"]).double()

    def loss() -> torch.Tensor:
        return held_out_loss(model(photograph.image[None]), photograph.mask, samples=60, seed=0, tol=1e-10)

    loss().backward()
    first_layer = next(model.backbone.parameters())
    for parameter in (*model.log_scales, first_layer):
        assert parameter.grad is not None
        step = 1e-5 * parameter.grad / parameter.grad.norm()
        with torch.no_grad():
            parameter += step
            above = loss()
            parameter -= 2 * step
            below = loss()
            parameter += step
        torch.testing.assert_close((above - below) / 2e-5, parameter.grad.norm(), rtol=1e-2, atol=0)


def test_metric_is_learnt_and_judged(tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    data = ["--root", str(tiny_voc), "--limit", "2", "--val-limit", "1", "--out", str(tmp_path)]
    settings = ["--features", "F1+F3", "--samples-per-class", "40", "--steps", "2", "--backbone-rate", "1e-5"]
    finetune_through_svm.main([*data, *settings])
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in printed[1:3]] == ["fixed fusion", "learned"]
    scales = torch.load(tmp_path / "metric.pt", weights_only=True)
    assert all(bool((scale != 0).any()) for scale in scales.values())
    assert (tmp_path / "loss.png").stat().st_size > 1000
