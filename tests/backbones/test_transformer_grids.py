"""Grids of transformers: where cells lie, positions at other sizes, finer grids."""

import copy

import pytest
import torch
from conftest import random_images
from torch import nn
from torch.nn import functional as F

from torch_svm_seg.backbones.backbone import Stage
from torch_svm_seg.backbones.builder import load_backbone
from torch_svm_seg.backbones.positions import resampler_of
from torch_svm_seg.backbones.transformers import InputRule, TransformerBackbone, overlap_patches, read_maps
from torch_svm_seg.data.errors import InputError

timm = pytest.importorskip("timm")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


# Placement


class Means(nn.Module):
    """The mean of each patch, as a network of timm gives its maps."""

    def forward_intermediates(self, inputs, indices=None, stop_early=True, intermediates_only=True):
        return [F.avg_pool2d(inputs, 14)]


@pytest.mark.parametrize("size", [(42, 70), (43, 83), (375, 500), (29, 140)])
@pytest.mark.parametrize("scale", [1.0, 2.0, 0.7])
def test_cells_lie_where_the_image_is(size, scale):
    """A coordinate image: each cell's mean is the middle of its share of the image, without shift or stretch."""
    rows, columns = (torch.arange(side, dtype=torch.float32) for side in size)
    coordinates = torch.stack([rows[:, None].expand(size), columns.expand(size), torch.zeros(size)])
    backbone = TransformerBackbone(Means(), InputRule(14), [Stage("", 3, 14)], (0,) * 3, (1,) * 3, scale)
    found = backbone.stages(coordinates[None], ["F5"])["F5"][0]
    for axis, side in enumerate(size):
        cells = found.shape[1 + axis]
        middles = (torch.arange(cells) + 0.5) * side / cells - 0.5
        means = found[axis].mean(1 - axis)
        # Beyond the first and the last pixel the image is repeated.
        torch.testing.assert_close(means[1:-1], middles[1:-1], atol=0.05, rtol=0)
        assert (means - middles).abs().max() < 0.5


@pytest.mark.parametrize(
    "name",
    [
        "test_vit",
        "vit_small_patch14_dinov2",
        "vit_tiny_patch16_dinov3_qkvb",
        "eva02_tiny_patch14_224",
        "swin_tiny_patch4_window7_224",
        "swinv2_tiny_window8_256",
        "hiera_tiny_224",
        "cait_xxs24_224",
    ],
)
def test_a_cell_depends_most_on_its_own_share_of_the_image(name):
    backbone = load_backbone(f"timm:{name}", "random")
    inputs = random_images(135, 210).float().requires_grad_()
    for found in backbone.stages(inputs, ["F3", "F5"]).values():
        height, width = found.shape[2:]
        row, column = height // 2, 2 * width // 3
        weight = torch.randn(found.shape[1])
        gradient, *_ = torch.autograd.grad(found[0, :, row, column] @ weight, inputs, retain_graph=True)
        shares = F.interpolate(gradient.abs().sum(1, keepdim=True), (8 * height, 8 * width))
        assert F.avg_pool2d(shares, 8).argmax() == row * width + column


@pytest.mark.parametrize(
    ("rule", "wanted", "size"),
    [
        (InputRule(14), (375, 500), (378, 504)),
        (InputRule(14), (378, 504), (378, 504)),
        (InputRule(16), (1, 0.3), (16, 16)),
        (InputRule(256), (375, 500), (512, 512)),
        (InputRule(1, (224, 224)), (375, 500), (224, 224)),
    ],
)
def test_sizes_are_rounded_up(rule, wanted, size):
    assert rule.size(*wanted) == size


# Positions


@pytest.mark.parametrize("name", ["hiera_tiny_224", "mvitv2_tiny", "levit_128s", "levit_conv_128s"])
def test_resampled_positions_are_the_networks_own_at_its_own_size(name):
    network = timm.create_model(name, pretrained=False).eval()
    for parameter in network.parameters():  # biases and positions are zero or small at first
        nn.init.normal_(parameter, std=0.02) if parameter.ndim < 2 or len(parameter) < 200 else None
    inputs = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = copy.deepcopy(network).forward_intermediates(inputs, intermediates_only=True)
        read_maps(network, torch.randn(1, 3, 128, 320))  # another size before changes nothing
        found = read_maps(network, inputs)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_hieras_positions_keep_their_place():
    network = timm.create_model("hiera_tiny_224", pretrained=False)
    ramp = torch.linspace(-1, 1, 56)
    network.pos_embed.data = ramp[:, None].expand(56, 56).reshape(1, -1, 1).repeat(1, 1, 96)
    table = resampler_of(network)(network, (128, 320))["pos_embed"]
    rows = table.unflatten(1, (32, 80))[0, 2:-2, 40, 0]
    middles = (torch.arange(32) + 0.5) / 32 * 56 - 0.5
    torch.testing.assert_close(rows, -1 + middles[2:-2] * 2 / 55, atol=5e-3, rtol=0)


def test_mvits_distances_keep_their_sign():
    network = timm.create_model("mvitv2_tiny", pretrained=False)
    for name, table in network.named_parameters():
        if "rel_pos" in name:  # an entry is its distance in shares of the image
            cells = (len(table) + 1) // 2
            table.data = ((torch.arange(len(table)) - cells + 1) / cells)[:, None].expand_as(table).clone()
    tables = resampler_of(network)(network, (96, 448))
    assert len(tables) == sum("rel_pos" in name for name, _ in network.named_parameters())
    for name, table in tables.items():
        side = 96 if name.endswith("h") else 448
        cells = (len(table) + 1) // 2
        assert side % cells == 0
        distances = (torch.arange(len(table)) - cells + 1) / cells
        torch.testing.assert_close(table[:, 0], distances, atol=0.15, rtol=0)
        assert table[cells - 1, 0].abs() < 1e-6


def test_levits_offsets_keep_their_order():
    network = timm.create_model("levit_128s", pretrained=False)
    for name, table in network.named_parameters():
        if name.endswith("attention_biases"):  # an entry is its row offset
            side = round(table.shape[1] ** 0.5)
            table.data = torch.linspace(0, 1, side)[:, None].expand(side, side).flatten().expand_as(table).clone()
    tables = resampler_of(network)(network, (128, 448))
    for table in tables.values():
        rows = {8 * 28: 8, 4 * 14: 4, 2 * 7: 2}[table.shape[1]]
        offsets = table[0].unflatten(0, (rows, -1))[:, 0]
        torch.testing.assert_close(offsets, torch.linspace(0, 1, rows))


@pytest.mark.parametrize("name", ["hiera_tiny_224", "mvitv2_tiny", "levit_128s"])
def test_gradients_reach_resampled_positions(name):
    network = timm.create_model(name, pretrained=False).eval()
    tables = resampler_of(network)(network, (128, 192))
    maps = read_maps(network, torch.randn(1, 3, 128, 192))
    sum(found.square().mean() for found in maps).backward()
    parameters = dict(network.named_parameters())
    assert tables
    assert all(parameters[table].grad is not None for table in tables)
    assert any(parameters[table].grad.abs().sum() > 0 for table in tables)


def test_networks_that_adapt_on_their_own_need_no_resampling(vit):
    assert resampler_of(vit.network) is None


# Finer grids


def test_a_larger_scale_makes_a_finer_grid():
    backbone = load_backbone("timm:test_vit", "random", scale=2)
    with torch.no_grad():
        assert backbone.stages(random_images(75, 98), ["F5"])["F5"].shape[2:] == (10, 13)
        assert backbone.stages(random_images(75, 98), ["img"])["img"].shape[2:] == (75, 98)
        convolutional = load_backbone("resnet18", "random", scale=2).stages(random_images(64, 96), ["F3"])["F3"]
    assert convolutional.shape[2:] == (16, 24)


@pytest.mark.parametrize("stride", [8, 4, 16])
def test_overlapping_patches_lie_around_their_cells(stride):
    """A patch embedding that averages coordinates gives the middle of each cell."""
    network = timm.create_model("test_vit", pretrained=False, dynamic_img_size=True)
    overlap_patches(network, stride)
    projection = network.patch_embed.proj
    projection.weight.data[:] = 1 / 256
    projection.weight.data[:, 1:] = 0
    projection.bias.data.zero_()
    ramp = torch.arange(96.0).expand(1, 3, 64, 96)
    found = projection(ramp)[0, 0]
    assert found.shape == (64 // stride, 96 // stride)
    middles = (torch.arange(96 // stride) + 0.5) * stride - 0.5
    inside = slice(16 // stride, -(16 // stride))
    torch.testing.assert_close(found[2, inside], middles[inside])


@pytest.mark.parametrize("name", ["test_vit", "vit_small_patch14_dinov2", "vit_tiny_patch16_dinov3_qkvb"])
def test_stages_of_overlapping_patches(name):
    backbone = load_backbone(f"timm:{name}", "random", patch_stride=8)
    with torch.no_grad():
        found = backbone.stages(random_images(75, 98), ["F1", "F5"])
    assert [tuple(each.shape[2:]) for each in found.values()] == [(10, 13)] * 2
    assert backbone.strides["F5"] == 8


def test_patches_at_their_own_distance_do_not_overlap():
    torch.manual_seed(0)
    apart = load_backbone("timm:test_vit", "random")
    torch.manual_seed(0)
    with torch.no_grad():
        same = load_backbone("timm:test_vit", "random", patch_stride=16).stages(random_images(64, 64), ["F5"])["F5"]
        torch.testing.assert_close(same, apart.stages(random_images(64, 64), ["F5"])["F5"])


@pytest.mark.parametrize(
    ("name", "stride", "message"),
    [
        ("timm:test_vit", 7, "patch_stride: expected 1 to 16, and even like the patch of 16, got 7"),
        ("timm:test_vit", 18, "patch_stride: expected 1 to 16"),
        ("timm:test_vit", 0, "patch_stride: expected 1 to 16"),
        ("timm:swin_tiny_patch4_window7_224", 2, "patch_stride: expected a plain transformer, got a hierarchical one"),
        ("timm:resnet18", 8, "patch_stride: expected a plain transformer"),
        ("resnet18", 8, "patch_stride: resnet18 has no patches"),
    ],
)
def test_strides_that_cannot_be_are_refused(name, stride, message):
    with pytest.raises(InputError, match=message):
        load_backbone(name, "random", patch_stride=stride)


@pytest.mark.parametrize("scale", [0, -1, float("inf"), float("nan")])
def test_scales_that_cannot_be_are_refused(scale):
    with pytest.raises(InputError, match="scale: expected a positive number"):
        load_backbone("timm:test_vit", "random", scale=scale)
