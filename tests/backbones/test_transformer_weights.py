"""Weight files of transformers: the names of timm, DINO, DINOv2 and CLIP; files of other networks are refused."""

import argparse
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from torch_svm_seg.backbones.builder import load_backbone
from torch_svm_seg.data.errors import InputError

timm = pytest.importorskip("timm")

State = dict[str, torch.Tensor]


def network_of(name: str, **options: object) -> nn.Module:
    """A network whose tensors all differ; at first norms are ones and biases zeros."""
    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False, **options).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.02)
    return network


def saved(content: object, tmp_path: Path, name: str = "weights.pth") -> Path:
    torch.save(content, tmp_path / name)
    return tmp_path / name


def assert_loaded(name: str, file: Path, expected: nn.Module, caplog: pytest.LogCaptureFixture) -> None:
    found = load_backbone(f"timm:{name}", file).network.state_dict()
    for key, value in expected.state_dict().items():
        assert torch.equal(found[key], value), key
    assert not caplog.records


def dinov2_names(state: State) -> State:
    """As DINOv2's ViT without registers saves them."""
    return state | {"mask_token": torch.zeros(1, state["cls_token"].shape[2])}


def dinov2_register_names(state: State) -> State:
    """As DINOv2 saves registers: positions of the class token are there, and not yet added to it."""
    state = dict(state)
    classes = torch.randn_like(state["cls_token"])
    state["pos_embed"] = torch.cat([state["cls_token"] - classes, state["pos_embed"]], 1)
    state["cls_token"] = classes
    state["register_tokens"] = state.pop("reg_token")
    return dinov2_names(state)


def clip_names(state: State) -> State:
    """As OpenAI's CLIP and open_clip name the visual tower; text weights stand beside it."""
    swaps = (
        (r"^patch_embed\.proj", "conv1"),
        (r"^pos_embed$", "positional_embedding"),
        (r"^cls_token$", "class_embedding"),
        (r"^norm_pre", "ln_pre"),
        (r"^norm\.", "ln_post."),
        (r"\.norm(\d)", r".ln_\1"),
        (r"\.qkv\.", ".in_proj_"),
        (r"attn\.proj", "attn.out_proj"),
        (r"mlp\.fc1", "mlp.c_fc"),
        (r"mlp\.fc2", "mlp.c_proj"),
        (r"^blocks", "transformer.resblocks"),
        (r"^head\.weight", "proj"),
    )
    renamed = {"text.token_embedding.weight": torch.zeros(4, 2)}
    for name, value in state.items():
        for pattern, replacement in swaps:
            name = re.sub(pattern, replacement, name)
        if name in ("positional_embedding", "class_embedding"):
            value = value.reshape(value.shape[1:] if name == "positional_embedding" else -1)
        if name != "head.bias":  # a projection has none
            renamed[f"visual.{name}"] = value.T.contiguous() if name == "proj" else value
    return renamed


def test_timm_checkpoints_load(tmp_path, caplog):
    network = network_of("test_vit")
    for content in (network.state_dict(), {"state_dict": network.state_dict(), "arch": "test_vit", "epoch": 3}):
        assert_loaded("test_vit", saved(content, tmp_path), network, caplog)


def test_safetensors_load(tmp_path, caplog):
    safetensors = pytest.importorskip("safetensors.torch")
    network = network_of("test_vit")
    safetensors.save_file(network.state_dict(), tmp_path / "model.safetensors")
    assert_loaded("test_vit", tmp_path / "model.safetensors", network, caplog)


def test_a_damaged_safetensors_file_is_refused(tmp_path):
    pytest.importorskip("safetensors")
    (tmp_path / "model.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00not a header")
    with pytest.raises(InputError, match="not a safetensors file, or a damaged one"):
        load_backbone("timm:test_vit", tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"absent\.safetensors: No such file"):
        load_backbone("timm:test_vit", tmp_path / "absent.safetensors")


@pytest.mark.parametrize("prefix", ["backbone.", "module.backbone.", "module."])
def test_dino_checkpoints_load(prefix, tmp_path, caplog):
    """Teacher, student and settings in one file; a projection head beside the network, which has no classes."""
    network = network_of("test_vit", num_classes=0)
    teacher = {prefix + name: value for name, value in network.state_dict().items()}
    teacher["head.mlp.0.weight"] = torch.zeros(2, 2)
    content = {"teacher": teacher, "epoch": 100, "args": argparse.Namespace(arch="vit_small", patch_size=16)}
    found = load_backbone("timm:test_vit", saved(content, tmp_path)).network.state_dict()
    assert all(torch.equal(found[name], value) for name, value in network.state_dict().items())
    # What is missing is the classifier, and that is said.
    assert "head.weight" in caplog.text


def test_dinov2_checkpoints_load(tmp_path, caplog):
    name = "vit_small_patch14_dinov2"
    network = network_of(name)
    assert_loaded(name, saved(dinov2_names(network.state_dict()), tmp_path), network, caplog)


def test_dinov2_checkpoints_with_registers_load(tmp_path):
    name = "vit_small_patch14_reg4_dinov2"
    network = network_of(name)
    found = load_backbone(f"timm:{name}", saved(dinov2_register_names(network.state_dict()), tmp_path)).network
    for key, value in network.state_dict().items():
        torch.testing.assert_close(found.state_dict()[key], value)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_clip_checkpoints_load(prefix, tmp_path):
    name = "vit_xsmall_patch16_clip_224"
    network = network_of(name)
    state = {prefix + key: value for key, value in clip_names(network.state_dict()).items()}
    found = load_backbone(f"timm:{name}", saved(state, tmp_path)).network.state_dict()
    for key, value in network.state_dict().items():
        assert torch.equal(found[key], torch.zeros_like(value) if key == "head.bias" else value), key


def test_open_clips_timm_towers_load(tmp_path):
    name = "test_vit"
    network = network_of(name)
    state = {f"visual.trunk.{key}": value for key, value in network.state_dict().items()}
    found = load_backbone(f"timm:{name}", saved(state, tmp_path)).network.state_dict()
    assert all(torch.equal(found[key], value) for key, value in network.state_dict().items())


def test_positions_of_another_image_size_are_resampled(tmp_path):
    network = network_of("test_vit", img_size=96)  # 6x6 cells, not 10x10
    ramp = torch.linspace(0, 1, 6)
    network.pos_embed.data[0, -36:] = ramp.repeat(6)[:, None]
    found = load_backbone("timm:test_vit", saved(network.state_dict(), tmp_path)).network.pos_embed[0, -100:]
    rows = found.unflatten(0, (10, 10))[..., 0]
    expected = (torch.arange(10) + 0.5) * 0.6 - 0.5
    torch.testing.assert_close(rows[5, 2:-2], expected[2:-2] / 5, atol=0.02, rtol=0)


# Files of other networks


def test_weights_of_another_patch_size_are_refused(tmp_path):
    state = network_of("test_vit", patch_size=8, img_size=80).state_dict()
    for content in (state, {"teacher": {f"backbone.{name}": value for name, value in state.items()}}):
        with pytest.raises(InputError, match=r"weights of patches of 8x8 pixels, but timm:test_vit has 16x16$"):
            load_backbone("timm:test_vit", saved(content, tmp_path))


@pytest.mark.parametrize("depth", [5, 7])
def test_weights_of_another_depth_are_refused(depth, tmp_path):
    file = saved(network_of("test_vit", depth=depth).state_dict(), tmp_path)
    with pytest.raises(InputError, match=f"^{file}: weights of {depth} blocks, but timm:test_vit has 6$"):
        load_backbone("timm:test_vit", file)


def test_weights_of_another_width_are_refused(tmp_path):
    file = saved(network_of("test_vit", embed_dim=32, num_heads=2).state_dict(), tmp_path)
    with pytest.raises(InputError, match=f"^{file}: a checkpoint of another network"):
        load_backbone("timm:test_vit", file)


@pytest.mark.parametrize("name", ["test_vit", "swin_tiny_patch4_window7_224"])
def test_weights_of_a_convolutional_network_are_refused(name, tmp_path):
    file = saved(timm.create_model("resnet18", pretrained=False).state_dict(), tmp_path)
    with pytest.raises(InputError, match=f"^{file}: a checkpoint of another network"):
        load_backbone(f"timm:{name}", file)


def test_objects_beside_the_weights_are_not_loaded(tmp_path):
    content = {"model": network_of("test_vit").state_dict(), "optimizer": nn.Linear(2, 2)}
    with pytest.raises(InputError, match="holds Python objects besides tensors"):
        load_backbone("timm:test_vit", saved(content, tmp_path))


@pytest.mark.filterwarnings("ignore")
def test_torchscript_archives_are_refused_with_what_to_do(tmp_path):
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "clip.pt")
    with pytest.raises(InputError, match=r"a TorchScript archive, as OpenAI's CLIP is, .*save its state dict alone"):
        load_backbone("timm:test_vit", tmp_path / "clip.pt")
