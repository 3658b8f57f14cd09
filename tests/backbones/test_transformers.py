"""Transformers of timm: the families that load, their stages, training and half precision."""

import copy

import pytest
import torch
from conftest import random_images
from torch import nn
from torch.nn import functional as F

from torch_svm_seg.backbones.backbone import Stage, train_only_deep_stages
from torch_svm_seg.backbones.builder import load_backbone
from torch_svm_seg.backbones.transformers import InputRule, TransformerBackbone, find_maps
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


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


# Every family


def test_at_least_forty_networks_are_tried():
    assert len(RULES) + len(HOOKED) >= 40


@pytest.mark.parametrize("name", RULES)
def test_stages_of_every_family_cover_images_of_any_size(name):
    backbone = load_backbone(f"timm:{name}", "random")
    size = (75, 98)
    with torch.no_grad():
        features = backbone.stages(random_images(*size), backbone.stage_names)
        deepest = backbone.stages(random_images(*size), ["F5"])["F5"]
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
        features = backbone.stages(random_images(96, 160), ["F2", "F5"])
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
    inputs = random_images(224, 224)
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
    assert set(vit.stages(random_images(32, 32), ["F2"])) == {"F2"}  # block 1 of 6
    with pytest.raises(pytest.fail.Exception, match="block 3 ran"):
        vit.stages(random_images(32, 32), ["F5"])


def test_a_batch_gives_what_its_images_give_alone(vit):
    batch, network = random_images(40, 56, 3), copy.deepcopy(vit).double()
    with torch.no_grad():
        together = network.stages(batch, ["F1", "F5"])
        alone = [network.stages(image[None], ["F1", "F5"]) for image in batch]
    for name, found in together.items():
        torch.testing.assert_close(found, torch.cat([features[name] for features in alone]))


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (1, 40)])
def test_images_smaller_than_a_patch_have_one_cell(vit, size):
    with torch.no_grad():
        found = vit.stages(random_images(*size), ["F5"])["F5"]
    assert found.shape[2:] == tuple(-(-side // 16) for side in size)
    assert found.isfinite().all()


def test_images_of_one_colour_have_finite_features(vit):
    with torch.no_grad():
        assert vit.stages(torch.full((1, 3, 48, 48), 128), ["F5"])["F5"].isfinite().all()


def test_half_precision_is_close_to_single(vit):
    inputs = random_images(64, 80, 2)
    with torch.no_grad():
        exact = vit.stages(inputs, ["F5"])["F5"]
        half = copy.deepcopy(vit).bfloat16().stages(inputs, ["F5"])["F5"]
        with torch.autocast("cpu", torch.bfloat16):
            mixed = vit.stages(inputs, ["F5"])["F5"]
    assert half.dtype == torch.bfloat16
    for found in (half, mixed):
        assert F.cosine_similarity(found.float(), exact, dim=1).min() > 0.99


def test_scores_are_the_networks(vit):
    inputs = random_images(160, 160)
    with torch.no_grad():
        torch.testing.assert_close(vit(inputs), vit.network(vit.normalize(inputs)))
        assert vit(random_images(50, 70)).shape == (1, 1000)


def test_all_blocks_up_to_the_deepest_stage_in_use_train():
    backbone = load_backbone("timm:test_vit", "random", patch_stride=8)
    train_only_deep_stages(backbone, "F4", shallow_stride=8)  # a plain transformer has no shallow stage
    trained = {name.split(".")[1] for name, p in backbone.network.blocks.named_parameters() if p.requires_grad}
    frozen = {name.split(".")[0] for name, p in backbone.network.blocks.named_parameters() if not p.requires_grad}
    assert trained
    assert frozen == {"5"}
    assert backbone.network.pos_embed.requires_grad


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
