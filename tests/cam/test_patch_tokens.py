"""Classifiers on the tokens of a plain transformer: where their maps lie, what trains, and that they find classes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchrun import torchrun
from training_files import rows, same, weights

from torch_svm_seg.backbones.backbone import StageReader
from torch_svm_seg.backbones.builder import load_backbone
from torch_svm_seg.cam.activation import class_activation_maps
from torch_svm_seg.cam.checkpoints import METHODS, load_classifier
from torch_svm_seg.cam.io import read_cams
from torch_svm_seg.cam.mctformer import MCTformer
from torch_svm_seg.cli.train import main
from torch_svm_seg.data.constants import VOC_CLASSES
from torch_svm_seg.data.errors import InputError

pytest.importorskip("timm")

PLAIN = ["cam", "mct"]
SQUARES = torch.tensor([[220.0, 30.0, 30.0], [30.0, 30.0, 220.0]])  # the two classes are a red and a blue square


def network(method: str = "mct", classes: int = 3, name: str = "test_vit") -> Any:
    torch.manual_seed(0)
    return METHODS[method](load_backbone(f"timm:{name}", "random"), classes).eval()


def images(number: int = 2, height: int = 64, width: int = 96) -> Tensor:
    return torch.rand(number, 3, height, width, generator=torch.Generator().manual_seed(1)) * 255


def squares(number: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return images of 96x96 with squares of 32x32, the classes present, and the 6x6 cells that each square touches."""
    random = torch.Generator().manual_seed(seed)
    pixels = 60 + 60 * torch.rand(number, 3, 96, 96, generator=random)
    present = torch.rand(number, 2, generator=random) < 0.5
    cells = torch.zeros(number, 2, 6, 6, dtype=torch.bool)
    for i in range(number):
        quarters = torch.randperm(4, generator=random)[:2]
        for k, quarter in enumerate(quarters.tolist()):
            row, column = (48 * part + 8 * int(torch.randint(3, (), generator=random)) for part in divmod(quarter, 2))
            if present[i, k]:
                pixels[i, :, row : row + 32, column : column + 32] = SQUARES[k][:, None, None]
                cells[i, k, row // 16 : (row + 47) // 16, column // 16 : (column + 47) // 16] = True
    return pixels, present, cells


@pytest.mark.parametrize("method", PLAIN)
def test_training_finds_where_the_classes_are(method: str) -> None:
    model = network(method, classes=2).train()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-3)
    for step in range(60):
        pixels, present, _ = squares(16, step)
        losses = model.losses(pixels, torch.ones(16, 96, 96, dtype=torch.bool), present)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    assert tuple(losses) == model.loss_names and all(loss < 0.3 for loss in losses.values())
    pixels, present, cells = squares(24, seed=999)
    hits = []
    for image, shown, own in zip(pixels, present, cells, strict=True):
        if shown.any():
            with torch.no_grad():
                maps = model.eval().activation_maps(image, shown)
            hits += [bool(where.flatten()[map.argmax()]) for where, map in zip(own[shown], maps, strict=True)]
    assert len(hits) > 15 and sum(hits) > 0.8 * len(hits)  # a square touches a fifth of the cells


@pytest.mark.parametrize("method", PLAIN)
@pytest.mark.parametrize("size", [(75, 98), (33, 21), (8, 8)])
def test_maps_cover_images_of_any_size(method: str, size: tuple[int, int]) -> None:
    with torch.no_grad():
        maps = network(method).activation_maps(images(1, *size)[0], torch.tensor([True, False, True]))
    assert maps.shape == (2, *(-(-side // 16) for side in size)) and maps.isfinite().all() and (maps >= 0).all()


def test_what_changes_in_a_patch_changes_the_map_most_there() -> None:
    """Without blocks that mix patches, no other cell: cells and patches are at the same places."""
    model = network("mct")
    for block in model.backbone.network.blocks:
        torch.nn.init.zeros_(block.attn.proj.weight)
        torch.nn.init.zeros_(block.attn.proj.bias)
    one = images(1)
    other = one.clone()
    other[0, :, 16:32, 48:64] = 255
    with torch.no_grad():
        changed = (model.class_maps(other) - model.class_maps(one)).abs().amax(1)[0] > 1e-6
    assert changed.nonzero().tolist() == [[1, 3]]


def test_class_tokens_without_offsets_score_alike_and_patches_have_maps_of_their_own() -> None:
    model = network("mct")
    with torch.no_grad():
        model.class_tokens.zero_()
        logits, maps = model._scores(images())
        assert maps.shape == (2, 3, 4, 6)
        torch.testing.assert_close(logits, logits[:, :1].expand(2, 3))
        torch.testing.assert_close(model(images()), (logits + maps.mean((2, 3))) / 2)
        model.class_tokens[1] = 1
        moved, _ = model._scores(images())
    assert (moved[:, 1] - moved[:, 0]).abs().min() > 1e-3


def test_attention_is_timms() -> None:
    """Of the queries and keys that are read, timm's attention without its fused kernel makes the same weights."""
    model = network("mct")
    blocks, first = model.backbone.network.blocks, 4  # three class tokens and the network's own
    for block in blocks:
        block.attn.fused_attn = False
    names = {f"{part}{i}": f"blocks.{i}.attn.{part}_norm" for i in range(6) for part in "qk"}
    names |= {f"w{i}": f"blocks.{i}.attn.attn_drop" for i in range(6)}
    with torch.no_grad(), StageReader(model.backbone.network, names, stop=False) as read:
        model(images())
    focus, affinity = model._attention(read, 6)
    weights = torch.stack([read[f"w{i}"].mean(1) for i in range(6)])
    torch.testing.assert_close(affinity, weights[:, :, first:, first:].sum(0))
    torch.testing.assert_close(focus, weights[3:, :, :3, first:].sum(0))


@pytest.mark.parametrize("method", PLAIN)
def test_a_batch_gives_what_its_images_give_alone(method: str) -> None:
    model = network(method).double()
    with torch.no_grad():
        together = model(images(3).double())
        alone = torch.cat([model(image[None]) for image in images(3).double()])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("method", PLAIN)
def test_maps_of_the_mirror_image_are_the_mirrored_maps(method: str) -> None:
    straight = class_activation_maps(network(method), images()[0], [1, 3], scales=[1.0])
    mirrored = class_activation_maps(network(method), images()[0].flip(-1), [1, 3], scales=[1.0])
    torch.testing.assert_close(mirrored.maps.flip(-1), straight.maps, atol=1e-4, rtol=0)


def test_all_that_the_scores_depend_on_trains_and_nothing_else() -> None:
    model = network("mct").train()
    losses = model.losses(images(), torch.ones(2, 64, 96, dtype=torch.bool), torch.eye(3)[:2].bool())
    sum(losses.values()).backward()
    names = {name: p.grad is not None and bool(p.grad.any()) for name, p in model.named_parameters()}
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {name for name, reached in names.items() if reached}
    assert {"class_tokens", "head.weight", "backbone.network.cls_token"} <= trained
    assert {id(p) for p in model.new_parameters} == {id(model.head.weight), id(model.class_tokens)}


def test_new_layers_follow_the_seed() -> None:
    first, again, other = (MCTformer(load_backbone("timm:test_vit", "random"), 3, seed) for seed in (0, 0, 1))
    assert torch.equal(first.class_tokens, again.class_tokens) and not torch.equal(
        first.class_tokens, other.class_tokens
    )


@pytest.mark.parametrize("name", ["vit_small_patch14_reg4_dinov2", "vit_xsmall_patch16_clip_224"])
def test_registers_and_norms_before_the_blocks_are_kept(name: str) -> None:
    model = network("mct", name=name)
    with torch.no_grad():
        assert model.activation_maps(images(1, 56, 84)[0], torch.tensor([True] * 3)).isfinite().all()


@pytest.mark.parametrize("name", ["resnet18", "timm:swin_s3_tiny_224", "timm:vit_wee_patch16_reg1_gap_256"])
def test_other_networks_are_refused(name: str) -> None:
    backbone = load_backbone(name, "random")
    with pytest.raises(InputError, match="MCTformer needs a plain vision transformer of timm with a class token"):
        MCTformer(backbone, 3)


@pytest.mark.parametrize("method", PLAIN)
def test_a_trained_classifier_is_read_and_writes_its_maps(tiny_voc: Path, tmp_path: Path, method: str) -> None:
    root = ["--root", str(tiny_voc)]
    command = ["classify", *root, "--method", method, "--backbone", "timm:test_vit", "--weights", "random"]
    command += ["--crop-size", "48", "--batch-size", "2", "--learning-rate", "0.01", "--val-split", "val"]
    assert main([*command, "--epochs", "2", "--out", str(tmp_path / "whole")]) == 0
    assert list(rows(tmp_path / "whole" / "steps.csv")[0]) == ["step", *METHODS[method].loss_names, "learning_rate"]
    file = tmp_path / "whole" / "checkpoint.pt"
    assert same(load_classifier(file, VOC_CLASSES).state_dict(), weights(file))
    cams = ["cams", *root, "--checkpoint", str(file), "--scales", "1", "--out", str(tmp_path / "cams")]
    assert main(cams) == 0
    maps = read_cams(tmp_path / "cams", "2008_000001", (60, 80), VOC_CLASSES)
    assert maps.classes == (8, 15) and maps.maps.shape == (2, 15, 20) and maps.background is None


@pytest.fixture
def command(tiny_voc: Path, tmp_path: Path) -> list[str]:
    """Return a training that begins at the weights of a file."""
    torch.manual_seed(0)
    torch.save(load_backbone("timm:test_vit", "random").network.state_dict(), tmp_path / "vit.pth")
    flags = ["classify", "--root", str(tiny_voc), "--method", "mct", "--backbone", "timm:test_vit"]
    return [*flags, "--weights", str(tmp_path / "vit.pth"), "--crop-size", "48", "--epochs", "2"]


def test_two_processes_train_like_one(command: list[str], tmp_path: Path) -> None:
    command += ["--batch-size", "2", "--learning-rate", "0.01"]
    torchrun("train.py", *command, "--out", str(tmp_path / "two"))
    assert main([*command, "--out", str(tmp_path / "one")]) == 0
    one, two = (weights(tmp_path / name / "checkpoint.pt") for name in ("one", "two"))
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=1e-4, rtol=1e-3)


def test_an_interrupted_training_ends_with_the_same_weights(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command += ["--batch-size", "1"]
    assert main([*command, "--out", str(tmp_path / "undisturbed")]) == 0
    steps, losses = [], MCTformer.losses

    def interrupted(self: MCTformer, *batch: Tensor) -> dict[str, Tensor]:
        steps.append(0)
        if len(steps) == 5:
            raise KeyboardInterrupt
        return losses(self, *batch)

    monkeypatch.setattr(MCTformer, "losses", interrupted)
    assert main([*command, "--out", str(tmp_path / "disturbed")]) == 130
    assert main([*command, "--out", str(tmp_path / "disturbed"), "--resume"]) == 0
    one, other = (weights(tmp_path / name / "checkpoint.pt") for name in ("undisturbed", "disturbed"))
    assert same(one, other)
