"""Maps of one network and features of another in one run, stages of both fused, and the walk on their features."""

from pathlib import Path

import numpy as np
import pytest
import torch

from torch_svm_seg.backbones.backbone import Backbone
from torch_svm_seg.backbones.builder import load_backbone
from torch_svm_seg.backbones.several import TwoBackbones
from torch_svm_seg.cam.activation import class_activation_maps, spread_maps
from torch_svm_seg.cam.checkpoints import load_classifier
from torch_svm_seg.cam.io import read_cams
from torch_svm_seg.cli import expand, train
from torch_svm_seg.data.constants import VOC_CLASSES
from torch_svm_seg.data.io import read_mask
from torch_svm_seg.data.voc import voc2012
from torch_svm_seg.refine import AffinityWalk, FeatureWalk

pytest.importorskip("timm")

VIT = ["--backbone", "timm:test_vit", "--weights"]


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    torch.save(load_backbone("timm:test_vit", "random").network.state_dict(), tmp_path / "vit.pth")
    return tmp_path / "vit.pth"


@pytest.fixture
def checkpoint(tiny_voc: Path, tmp_path: Path) -> Path:
    command = ["classify", "--root", str(tiny_voc), "--epochs", "1", "--batch-size", "2", "--crop-size", "64"]
    command += [
        "--method",
        "cam",
        "--backbone",
        "resnet18",
        "--weights",
        "random",
        "--out",
        str(tmp_path / "classifier"),
    ]
    assert train.main(command) == 0
    return tmp_path / "classifier" / "checkpoint.pt"


def masks(folder: Path) -> list[torch.Tensor]:
    found = [read_mask(path) for path in sorted(folder.glob("*.png"))]
    assert len(found) == 3
    return found


def test_stages_of_two_networks_are_theirs() -> None:
    torch.manual_seed(0)
    first, second = load_backbone("resnet18", "random"), load_backbone("timm:test_vit", "random")
    both, images = TwoBackbones(first, second).eval(), 255 * torch.rand(2, 3, 50, 70)
    assert both.stage_names == ("img", *(f"F{i}" for i in range(1, 6)), *(f"second.F{i}" for i in range(1, 6)))
    with torch.no_grad():
        found = both.stages(images, ["second.F5", "img", "F3"])
        torch.testing.assert_close(found["F3"], first.stages(images, ["F3"])["F3"])
        torch.testing.assert_close(found["second.F5"], second.stages(images, ["F5"])["F5"])
        torch.testing.assert_close(both(images), first(images))
    assert list(found) == ["second.F5", "img", "F3"]
    assert torch.equal(found["img"], images)
    assert {name: found[name].shape[1] for name in found} == {name: both.channels[name] for name in found}
    assert both.strides["second.F5"] == 16
    with pytest.raises(ValueError, match=r"stage 'second\.F6': expected one of img, F1, "):
        both.stages(images, ["second.F6"])


def test_a_network_of_which_nothing_is_asked_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    both = TwoBackbones(load_backbone("resnet18", "random"), load_backbone("timm:test_vit", "random")).eval()
    monkeypatch.setattr(both.second.network, "forward_intermediates", lambda *a, **o: pytest.fail("second ran"))
    both.stages(torch.zeros(1, 3, 32, 32), ["F1"])
    monkeypatch.setattr(both.first.network, "forward", lambda x: pytest.fail("first ran"))
    both.stages(torch.zeros(1, 3, 32, 32), ["img"])


def test_maps_of_a_checkpoint_and_features_of_a_backbone(
    tiny_voc: Path, checkpoint: Path, vit: Path, tmp_path: Path
) -> None:
    """As with the maps in files; the checkpoint's own network gives others."""
    common = ["--root", str(tiny_voc), "--supervision", "seed", "--features", "F5", "--samples-per-class", "50"]
    own = ["--checkpoint", str(checkpoint), "--scales", "1"]
    assert train.main(["cams", "--root", str(tiny_voc), *own, "--out", str(tmp_path / "cams")]) == 0
    together = [*common, *own, *VIT, str(vit), "--out", str(tmp_path / "together")]
    assert expand.main(together) == 0
    apart = ["--cams", str(tmp_path / "cams"), *VIT, str(vit), "--out", str(tmp_path / "apart")]
    assert expand.main([*common, *apart]) == 0
    assert expand.main([*common, *own, "--out", str(tmp_path / "own")]) == 0
    pairs = zip(masks(tmp_path / "together/F5"), masks(tmp_path / "apart/F5"), strict=True)
    agreement = [float((one == other).float().mean()) for one, other in pairs]
    assert min(agreement) > 0.99  # maps in files are rounded to half precision
    assert any(
        not torch.equal(one, other)
        for one, other in zip(masks(tmp_path / "together/F5"), masks(tmp_path / "own/F5"), strict=True)
    )
    # A folder has the features of one network.
    assert expand.main([*common, *own, "--out", str(tmp_path / "together")]) == 2
    assert expand.main(together) == 0


def test_stages_of_two_networks_in_one_svm(tiny_voc: Path, vit: Path, tmp_path: Path) -> None:
    features = ["--features", "F5", "F3+second.F5", "--samples-per-class", "50"]
    command = ["--root", str(tiny_voc), "--backbone", "resnet18", "--weights", "random", *features]
    command += ["--second-backbone", "timm:test_vit", "--second-weights", str(vit), "--out", str(tmp_path / "out")]
    assert expand.main(command) == 0
    fused, deep = masks(tmp_path / "out/F3+second.F5"), masks(tmp_path / "out/F5")
    assert any(not torch.equal(one, other) for one, other in zip(fused, deep, strict=True))


def test_a_finer_grid_is_asked_for_by_flags(tiny_voc: Path, vit: Path, tmp_path: Path, monkeypatch) -> None:
    strides, stages = [], Backbone.stages

    def noted(self: Backbone, *args: object) -> dict[str, torch.Tensor]:
        strides.append((self.scale, self.strides["F5"]))
        return stages(self, *args)

    monkeypatch.setattr(Backbone, "stages", noted)
    command = ["--root", str(tiny_voc), *VIT, str(vit), "--features", "F5", "--samples-per-class", "50"]
    assert expand.main([*command, "--input-scale", "2", "--patch-stride", "8", "--out", str(tmp_path / "out")]) == 0
    assert strides == 3 * [(2.0, 8)]
    assert expand.main([*command, "--input-scale", "2", "--out", str(tmp_path / "out")]) == 2  # other settings


def test_masks_walk_after_the_svm(tiny_voc: Path, vit: Path, tmp_path: Path) -> None:
    command = ["--root", str(tiny_voc), *VIT, str(vit), "--features", "F5", "--samples-per-class", "50"]
    command += ["--refine", "none", "walk", "walk+crf", "--walk-power", "3", "--out", str(tmp_path / "out")]
    assert expand.main(command) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir())[:3] == [
        "F5",
        "F5+walk",
        "F5+walk+crf",
    ]


def test_cams_walk_when_written_and_afterwards(tiny_voc: Path, checkpoint: Path, vit: Path, tmp_path: Path) -> None:
    data = ["--root", str(tiny_voc)]
    own = ["--checkpoint", str(checkpoint), "--scales", "1"]
    walk = ["--walk", *VIT, str(vit), "--walk-stages", "F4", "F5", "--walk-power", "3", "--walk-steps", "2"]
    assert train.main(["cams", *data, *own, "--out", str(tmp_path / "cams")]) == 0
    assert train.main(["cams", *data, *own, *walk, "--out", str(tmp_path / "direct")]) == 0
    cams = ["--cams", str(tmp_path / "cams")]
    assert train.main(["propagate", *data, *cams, *walk, "--out", str(tmp_path / "after")]) == 0
    module = FeatureWalk(load_backbone("timm:test_vit", vit), ("F4", "F5"), AffinityWalk(3, 2))
    dataset = voc2012(tiny_voc, "train")
    for index, id in enumerate(dataset.ids):
        before, direct, after = (
            read_cams(tmp_path / name, id, (60, 80), VOC_CLASSES) for name in ("cams", "direct", "after")
        )
        expected = spread_maps(module, dataset.image(index), before)
        torch.testing.assert_close(after.maps, expected.maps, atol=1e-3, rtol=0)
        torch.testing.assert_close(direct.maps, expected.maps, atol=5e-3, rtol=0)
        assert after.maps.shape[1:] == (4, 5)
    assert load_classifier(checkpoint).num_classes == 20


@pytest.mark.parametrize("method", ["cam", "sipe"])
def test_a_classifier_on_patch_tokens(method: str, tiny_voc: Path, vit: Path, tmp_path: Path) -> None:
    """It trains all blocks, and its maps cover images whose sides no patch divides."""
    command = ["classify", "--root", str(tiny_voc), "--epochs", "2", "--batch-size", "2", "--crop-size", "64"]
    assert train.main([*command, "--method", method, *VIT, str(vit), "--out", str(tmp_path / "out")]) == 0
    network = load_classifier(tmp_path / "out/checkpoint.pt", VOC_CLASSES)
    before, after = torch.load(vit, weights_only=True), network.backbone.network.state_dict()
    for block in range(6):
        assert not torch.equal(before[f"blocks.{block}.attn.qkv.weight"], after[f"blocks.{block}.attn.qkv.weight"])
    maps = class_activation_maps(network, 255 * torch.rand(3, 75, 98), [8, 15], scales=(1, 0.5))
    assert maps.maps.shape == (2, 19, 25)
    assert maps.maps.isfinite().all()
    assert (maps.background is not None) == (method == "sipe")


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (["cams", "--checkpoint", "CHECKPOINT", "--walk-power", "2"], "--walk-power: only with --walk"),
        (["cams", "--checkpoint", "CHECKPOINT", "--walk", "--walk-stages", "F7"], "--walk-stages: expected some of F1"),
        (["propagate", "--cams", "."], "--irn and --walk: expected one of them"),
        (["propagate", "--cams", ".", "--irn", "a.pt", "--walk"], "--irn and --walk: expected one of them"),
        (["propagate", "--walk", "--weights", "random", "--backbone", "resnet18"], "--cams: None: not a folder"),
    ],
)
def test_wrong_flags_are_named(
    command: list[str], named: str, tiny_voc: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [str(checkpoint) if part == "CHECKPOINT" else part for part in command]
    assert train.main([*command, "--root", str(tiny_voc), "--out", str(tmp_path / "out")]) == 2
    assert named in capsys.readouterr().err


def test_maps_on_the_walks_grid_are_read_at_the_images_size(tmp_path: Path) -> None:
    """An image of 30x50 pixels has 2x4 cells, which stretch over all of it."""
    walk = FeatureWalk(load_backbone("timm:test_vit", "random"))
    maps = walk.spread(torch.zeros(1, 3, 30, 50), torch.ones(1, 2, 8, 13))
    assert maps.shape == (1, 2, 2, 4)
    assert np.allclose(maps, 1)
