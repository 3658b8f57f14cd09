"""Transformers of timm: stages at any image size, where they lie, positions, overlapping patches, half precision."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch_svm_seg.backbones.backbone import Stage, train_only_deep_stages
from torch_svm_seg.backbones.builder import load_backbone
from torch_svm_seg.backbones.positions import resampler_of
from torch_svm_seg.backbones.transformers import InputRule, TransformerBackbone, find_maps, overlap_patches, read_maps
from torch_svm_seg.data.errors import InputError

timm = pytest.importorskip("timm")

# What images are rounded up to, in pixels, or the only size; of the smallest network of each family.
PLAIN = {
    "test_vit": 16,
    "deit_tiny_patch16_224": 16,
    "deit_tiny_distilled_patch16_224": 16,
    "deit3_small_patch16_224": 16,
    "vit_tiny_patch16_224": 16,
    "vit_small_patch8_224": 8,
    "vit_small_patch14_dinov2": 14,
    "vit_small_patch14_reg4_dinov2": 14,
    "vit_tiny_patch16_dinov3_qkvb": 16,
    "vit_xsmall_patch16_clip_224": 16,
    "vit_base_patch32_siglip_gap_256": 32,
    "samvit_base_patch16_224": 16,
    "vit_wee_patch16_reg1_gap_256": 16,
    "vit_small_patch16_rope_224": 16,
    "flexivit_small": 16,
    "eva02_tiny_patch14_224": 14,
    "xcit_nano_12_p16_224": 16,
    "vit_tiny_r_s16_p8_224": 32,
}
HIERARCHICAL = {
    "swin_tiny_patch4_window7_224": 32,
    "swin_s3_tiny_224": 32,
    "swinv2_tiny_window8_256": 32,
    "swinv2_cr_tiny_ns_224": 32,
    "mvitv2_tiny": 32,
    "hiera_tiny_224": 32,
    "hiera_small_abswin_256": 32,
    "sam2_hiera_tiny": 32,
    "efficientvit_m0": 64,
    "maxvit_rmlp_pico_rw_256": 256,
    "levit_128s": 64,
    "levit_conv_128s": 64,
    "twins_svt_small": 32,
    "swiftformer_xs": 32,
    "shvit_s1": 64,
}
ONE_SIZE = {
    "cait_xxs24_224": (224, 224),
    "coatnet_pico_rw_224": (224, 224),
    "convit_tiny": (224, 224),
    "gcvit_xxtiny": (224, 224),
    "efficientformer_l1": (224, 224),
    "visformer_tiny": (224, 224),
    "vit_relpos_small_patch16_224": (224, 224),
}
# These put their maps out at modules, and are read as convolutional networks are.
HOOKED = ("pvt_v2_b0", "efficientvit_b0", "tiny_vit_5m_224", "edgenext_xx_small", "mobilevit_xxs", "fastvit_t8")
RULES = {name: InputRule(multiple) for name, multiple in (PLAIN | HIERARCHICAL).items()} | {
    name: InputRule(1, size) for name, size in ONE_SIZE.items()
}


def images(height: int, width: int, number: int = 1) -> torch.Tensor:
    return torch.randint(0, 256, (number, 3, height, width), generator=torch.Generator().manual_seed(0)).byte()


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    number = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(number)


@pytest.fixture(scope="module")
def vit() -> TransformerBackbone:
    torch.manual_seed(1)
    backbone = load_backbone("timm:test_vit", "random")
    assert isinstance(backbone, TransformerBackbone)
    return backbone


# Every family


def test_at_least_forty_networks_are_tried():
    assert len(RULES) + len(HOOKED) >= 40


@pytest.mark.parametrize("name", RULES)
def test_stages_of_every_family_cover_images_of_any_size(name):
    backbone = load_backbone(f"timm:{name}", "random")
    size = (75, 98)
    with torch.no_grad():
        features = backbone.stages(images(*size), backbone.stage_names)
        deepest = backbone.stages(images(*size), ["F5"])["F5"]
    assert isinstance(backbone, TransformerBackbone)
    assert backbone.rule == RULES[name]
    seen = backbone.input_size(size)
    assert seen == (
        RULES[name].fixed or tuple(-(-side // RULES[name].multiple) * RULES[name].multiple for side in size)
    )
    for stage, found in features.items():
        cells = tuple(side // backbone.strides[stage] for side in (size if stage == "img" else seen))
        assert found.shape == (1, backbone.channels[stage], *cells)
        assert found.isfinite().all()
    # The deepest map is F5, and reading it alone changes nothing.
    assert backbone.stage_names[-1] == "F5"
    torch.testing.assert_close(deepest, features["F5"])
    assert not any(module.training for module in backbone.modules())


@pytest.mark.parametrize("name", HOOKED)
def test_transformers_with_maps_at_their_modules_are_hooked(name):
    backbone = load_backbone(f"timm:{name}", "random")
    with torch.no_grad():
        features = backbone.stages(images(96, 160), ["F2", "F5"])
    assert {stage: tuple(found.shape[2:]) for stage, found in features.items()} == {"F2": (24, 40), "F5": (3, 5)}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("crossvit_tiny_240", r"a map of shape \(1, 192, 14, 14\) for an image of 240x240$"),  # 17.1 pixels a cell
        ("pit_ti_224", r"a map of shape \(1, 64, 27, 27\) for an image of 224x224$"),  # patches that end in the image
    ],
)
def test_networks_without_whole_cells_are_refused_with_the_reason(name, reason):
    with pytest.raises(InputError, match=f"^timm:{name}: gives no feature maps: {reason}"):
        load_backbone(f"timm:{name}", "random")


# Stages


def test_stages_of_a_plain_transformer_are_equally_spaced_blocks():
    torch.manual_seed(0)
    backbone = load_backbone("timm:deit_tiny_patch16_224", "random")
    torch.manual_seed(0)
    reference = timm.create_model("deit_tiny_patch16_224", pretrained=False).eval()
    inputs = images(224, 224)
    with torch.no_grad():
        features = backbone.stages(inputs, ["F1", "F2", "F3", "F4", "F5"])
        expected = reference.forward_intermediates(backbone.normalize(inputs), intermediates_only=True)
    for block, found in zip((1, 4, 6, 9, 11), features.values(), strict=True):
        torch.testing.assert_close(found, expected[block])
    assert backbone.strides == {"img": 1} | dict.fromkeys(features, 16)


@pytest.mark.parametrize(
    ("number", "indices"), [(1, [0]), (3, [0, 1, 2]), (5, [0, 1, 2, 3, 4]), (24, [4, 9, 13, 18, 23])]
)
def test_stages_are_named_from_the_deepest(number, indices):
    maps = [Stage(f"blocks.{index}", index + 1, 16) for index in range(number)]
    backbone = TransformerBackbone(nn.Identity(), InputRule(16), maps, (0,) * 3, (1,) * 3)
    assert backbone.stage_names[1:] == ("F1", "F2", "F3", "F4", "F5")[5 - len(indices) :]
    assert [channels - 1 for channels in list(backbone.channels.values())[1:]] == indices


def test_nothing_deeper_than_asked_for_is_computed(vit, monkeypatch):
    monkeypatch.setattr(vit.network.blocks[3], "forward", lambda *args, **options: pytest.fail("block 3 ran"))
    assert set(vit.stages(images(32, 32), ["F2"])) == {"F2"}  # block 1 of 6
    with pytest.raises(pytest.fail.Exception, match="block 3 ran"):
        vit.stages(images(32, 32), ["F5"])


def test_a_batch_gives_what_its_images_give_alone(vit):
    batch, network = images(40, 56, 3), copy.deepcopy(vit).double()
    with torch.no_grad():
        together = network.stages(batch, ["F1", "F5"])
        alone = [network.stages(image[None], ["F1", "F5"]) for image in batch]
    for name, found in together.items():
        torch.testing.assert_close(found, torch.cat([features[name] for features in alone]))


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (1, 40)])
def test_images_smaller_than_a_patch_have_one_cell(vit, size):
    with torch.no_grad():
        found = vit.stages(images(*size), ["F5"])["F5"]
    assert found.shape[2:] == tuple(-(-side // 16) for side in size)
    assert found.isfinite().all()


def test_images_of_one_colour_have_finite_features(vit):
    with torch.no_grad():
        assert vit.stages(torch.full((1, 3, 48, 48), 128), ["F5"])["F5"].isfinite().all()


def test_half_precision_is_close_to_single(vit):
    inputs = images(64, 80, 2)
    with torch.no_grad():
        exact = vit.stages(inputs, ["F5"])["F5"]
        half = copy.deepcopy(vit).bfloat16().stages(inputs, ["F5"])["F5"]
        with torch.autocast("cpu", torch.bfloat16):
            mixed = vit.stages(inputs, ["F5"])["F5"]
    assert half.dtype == torch.bfloat16
    for found in (half, mixed):
        assert F.cosine_similarity(found.float(), exact, dim=1).min() > 0.99


def test_scores_are_the_networks(vit):
    inputs = images(160, 160)
    with torch.no_grad():
        torch.testing.assert_close(vit(inputs), vit.network(vit.normalize(inputs)))
        assert vit(images(50, 70)).shape == (1, 1000)


def test_all_blocks_up_to_the_deepest_stage_in_use_train():
    backbone = load_backbone("timm:test_vit", "random", patch_stride=8)
    train_only_deep_stages(backbone, "F4", shallow_stride=8)  # a plain transformer has no shallow stage
    trained = {name.split(".")[1] for name, p in backbone.network.blocks.named_parameters() if p.requires_grad}
    frozen = {name.split(".")[0] for name, p in backbone.network.blocks.named_parameters() if not p.requires_grad}
    assert trained
    assert frozen == {"5"}
    assert backbone.network.pos_embed.requires_grad


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
    inputs = images(135, 210).float().requires_grad_()
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
        assert backbone.stages(images(75, 98), ["F5"])["F5"].shape[2:] == (10, 13)
        assert backbone.stages(images(75, 98), ["img"])["img"].shape[2:] == (75, 98)
        convolutional = load_backbone("resnet18", "random", scale=2).stages(images(64, 96), ["F3"])["F3"]
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
        found = backbone.stages(images(75, 98), ["F1", "F5"])
    assert [tuple(each.shape[2:]) for each in found.values()] == [(10, 13)] * 2
    assert backbone.strides["F5"] == 8


def test_patches_at_their_own_distance_do_not_overlap():
    torch.manual_seed(0)
    apart = load_backbone("timm:test_vit", "random")
    torch.manual_seed(0)
    with torch.no_grad():
        same = load_backbone("timm:test_vit", "random", patch_stride=16).stages(images(64, 64), ["F5"])["F5"]
        torch.testing.assert_close(same, apart.stages(images(64, 64), ["F5"])["F5"])


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


# Networks that give something else


class Odd(nn.Module):
    """A network that lists two stages of stride 8 and gives whatever it is told to."""

    pretrained_cfg = {"input_size": (3, 32, 32)}  # noqa: RUF012
    feature_info = [{"module": name, "num_chs": 4, "reduction": 8} for name in "ab"]  # noqa: RUF012

    def __init__(self, maps):
        super().__init__()
        self.maps = maps

    def forward_intermediates(self, inputs, indices=None, stop_early=True, intermediates_only=True):
        return self.maps(inputs)


@pytest.mark.parametrize(
    ("maps", "reason"),
    [
        (lambda x: [torch.zeros(1, 16, 4)] * 2, r"a map of shape \(1, 16, 4\) for an image of 32x32"),  # tokens
        (lambda x: [torch.zeros(1, 4, 3, 4)] * 2, r"a map of shape \(1, 4, 3, 4\) for an image of 32x32"),
        (lambda x: [F.avg_pool2d(x, 8)], "1 maps for 2 stages"),
    ],
)
def test_tokens_of_the_wrong_count_are_refused(maps, reason):
    with pytest.raises(ValueError, match=reason):
        find_maps(Odd(maps))


def test_a_network_without_intermediates_is_refused():
    with pytest.raises(ValueError, match="timm has no forward_intermediates for it"):
        find_maps(nn.Identity())
