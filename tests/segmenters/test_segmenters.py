"""Segmentation networks: published sizes, strides, losses over the labelled pixels, and predictions at any size."""

import pytest
import torch
from conftest import small_backbone
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import ResNet101_Weights, resnet50

from torch_svm_seg.backbones.backbone import Backbone, Stage
from torch_svm_seg.backbones.builder import load_backbone
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.segmenters import (
    DeepLabV2,
    LiteSegmenter,
    PackagedSegmenter,
    Segmenter,
    build_segmenter,
    class_probabilities,
    probability_maps,
)
from torch_svm_seg.segmenters.deeplab_v2 import dilated_resnet


def images(height: int = 65, width: int = 81, number: int = 2) -> Tensor:
    return torch.rand(number, 3, height, width, generator=torch.Generator().manual_seed(0)) * 255


def trained_in_a_step(network: Segmenter) -> float:
    """Takes one step and gives how much the loss of the same batch fell; all that is trained must have a gradient."""
    masks = torch.randint(0, network.num_classes, (2, 65, 81), generator=torch.Generator().manual_seed(1))
    network.train()
    loss = network.losses(images(), masks)["segmentation"]
    loss.backward()
    parameters = [*network.pretrained_parameters, *network.new_parameters]
    assert {id(p) for p in parameters} == {id(p) for p in network.parameters() if p.requires_grad}
    assert all(parameter.grad is not None for parameter in parameters)
    with torch.no_grad():
        squared = sum(float(parameter.grad.square().sum()) for parameter in parameters)
        for parameter in parameters:
            parameter -= 1e-3 / squared * loss * parameter.grad
    return float(loss.detach() - network.losses(images(), masks)["segmentation"].detach())


class TestDeepLabV2:
    def test_has_the_published_size_and_stride(self) -> None:
        """torchvision states ResNet-101's parameters; a branch is a 3x3 convolution of 2,048 channels with bias."""
        network = build_segmenter("deeplabv2:resnet101", 21, "random")
        body = ResNet101_Weights.IMAGENET1K_V1.meta["num_params"] - (2048 * 1000 + 1000)
        assert sum(p.numel() for p in network.pretrained_parameters) == body == 42_500_160
        assert sum(p.numel() for p in network.new_parameters) == 4 * (2048 * 9 * 21 + 21) == 1_548_372
        assert network.coarse_logits(images(64, 96, 1)).shape == (1, 21, 8, 12)
        assert network(images(65, 81, 1)).shape == (1, 21, 65, 81)
        assert [branch.dilation for branch in network.branches] == [(6, 6), (12, 12), (18, 18), (24, 24)]
        assert trained_in_a_step(network) > 0

    def test_dilation_keeps_what_the_strided_network_computes(self) -> None:
        """Where torchvision's ResNet of stride 32 has a feature, the dilated one has the same."""
        dilated = dilated_resnet("resnet50", "random").eval()
        strided = resnet50().eval()
        strided.load_state_dict(dilated.network.state_dict())
        parts = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
        with torch.no_grad():
            fine = dilated.stages(images(97, 97, 1), ["F5"])["F5"]
            coarse = nn.Sequential(*(getattr(strided, part) for part in parts))(dilated.normalize(images(97, 97, 1)))
        assert fine.shape[-1] == 13 and coarse.shape[-1] == 4
        torch.testing.assert_close(fine[..., ::4, ::4], coarse, rtol=1e-3, atol=1e-3 * float(coarse.max()))

    def test_the_score_is_the_sum_of_four_dilated_convolutions(self) -> None:
        backbone = small_backbone()
        network = DeepLabV2(backbone, 3, seed=5).eval()
        deepest = backbone.stages(images(), ["F5"])["F5"]
        expected = sum(
            F.conv2d(deepest, branch.weight, branch.bias, padding=rate, dilation=rate)
            for branch, rate in zip(network.branches, (6, 12, 18, 24), strict=True)
        )
        torch.testing.assert_close(network.coarse_logits(images()), expected)
        assert torch.equal(network.branches[0].weight, DeepLabV2(backbone, 3, seed=5).branches[0].weight)
        assert not torch.equal(network.branches[0].weight, DeepLabV2(backbone, 3, seed=6).branches[0].weight)


class TestLite:
    def test_scores_at_a_quarter_of_the_size_with_few_parameters(self) -> None:
        network = build_segmenter("lite:efficientnet_lite0", 21, "random")
        assert sum(p.numel() for p in network.new_parameters) < 250_000
        assert network.coarse_logits(images(64, 96)).shape == (2, 21, 16, 24)
        assert not network.uses_batch_statistics
        assert trained_in_a_step(network) > 0

    def test_images_of_a_batch_do_not_see_each_other(self) -> None:
        network = LiteSegmenter(small_backbone(), 4).train()
        together = network(images())
        alone = torch.cat([network(images()[:1]), network(images()[1:])])
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)

    def test_a_backbone_without_its_stages_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        backbone = Backbone(nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1)), {"F1": Stage("0", 4, 2)})
        monkeypatch.setattr("torch_svm_seg.segmenters.builder.load_backbone", lambda *_: backbone)
        with pytest.raises(InputError, match="no stage F2, F3, F5"):
            build_segmenter("lite:short", 3)


@pytest.mark.parametrize("name", ["lite:resnet18", "deeplabv2:resnet50", "lraspp:mobilenet_v3_large"])
def test_a_seed_gives_all_weights_and_leaves_the_generator_as_it_was(name: str) -> None:
    before = torch.random.get_rng_state()
    first, again, other = (next(build_segmenter(name, 5, "random", seed=seed).parameters()) for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("name", ["deeplabv3:mobilenet_v3_large", "lraspp:mobilenet_v3_large", "smp:Unet:mobilenet_v2"])
def test_networks_of_other_packages_train_and_predict_at_any_size(name: str) -> None:
    if name.startswith("smp"):
        pytest.importorskip("segmentation_models_pytorch")
    network = build_segmenter(name, 5, "random", seed=3)
    assert network(images()).shape == (2, 5, 65, 81)
    again = build_segmenter(name, 5, "random", seed=3)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    assert network.uses_batch_statistics
    before = {name: buffer.clone() for name, buffer in network.named_buffers() if "running_mean" in name}
    assert trained_in_a_step(network) > 0
    pretrained = "network.encoder." if name.startswith("smp") else "network.backbone."
    for key, buffer in network.named_buffers():
        if key in before:  # BatchNorm learns statistics in the new part alone
            assert torch.equal(buffer, before[key]) == key.startswith(pretrained)


def test_padding_of_packaged_networks_does_not_shift_their_scores() -> None:
    """A network that passes its input through gives the normalised image, whatever it is padded to."""
    network = PackagedSegmenter(nn.Sequential(nn.Conv2d(3, 3, 1)), nn.Identity(), 3, multiple=32)
    nn.init.zeros_(network.network[0].bias)
    network.network[0].weight.data = torch.eye(3)[:, :, None, None]
    torch.testing.assert_close(network(images()), (images() - network.fill) / network.std)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("deeplabv4:resnet50", "expected deeplabv2:resnet101, lite:BACKBONE, .*lraspp:mobilenet_v3_large"),
        ("deeplabv2:resnet18", "torchvision cannot dilate it"),
        ("deeplabv3", "network 'deeplabv3'"),
        ("lite:vgg16", "backbone 'vgg16'"),
        ("smp:Pyramid:resnet18", "smp:Pyramid:resnet18"),
    ],
)
def test_unknown_networks_are_named(name: str, message: str) -> None:
    if name.startswith("smp"):
        pytest.importorskip("segmentation_models_pytorch")
    with pytest.raises(InputError, match=message):
        build_segmenter(name, 3, "random")


def test_loss_is_the_mean_over_labelled_pixels() -> None:
    network = LiteSegmenter(small_backbone(), 4).eval()
    masks = torch.randint(0, 4, (2, 65, 81), generator=torch.Generator().manual_seed(0))
    masks[0, :40] = 255
    expected = F.cross_entropy(network(images()), masks, ignore_index=255)
    torch.testing.assert_close(network.losses(images(), masks)["segmentation"], expected)
    assert network.losses(images(), torch.full_like(masks, 255))["segmentation"] == 0


def test_labels_count_by_their_weights() -> None:
    network = LiteSegmenter(small_backbone(), 4).eval()
    generator = torch.Generator().manual_seed(0)
    masks = torch.randint(0, 4, (2, 65, 81), generator=generator)
    masks[1, 30:] = 255
    weights = torch.rand(2, 65, 81, generator=generator)
    each = F.cross_entropy(network(images()), masks, ignore_index=255, reduction="none")
    expected = (each * weights).sum() / weights[masks != 255].sum()
    torch.testing.assert_close(network.losses(images(), masks, weights)["segmentation"], expected)
    # A label of weight 0 is none, and a factor on all weights changes nothing.
    halved = torch.where(torch.arange(81) < 40, 0.5, 0).expand(2, 65, 81)
    left = masks.where(halved > 0, 255)
    losses = [network.losses(images(), *labels)["segmentation"] for labels in ((masks, halved), (left,))]
    torch.testing.assert_close(*losses)


class _Brightness(Segmenter):
    """Two classes: dark, and bright in the left half of the image alone."""

    def __init__(self) -> None:
        super().__init__(nn.Identity(), 2, torch.zeros(3, 1, 1))

    def coarse_logits(self, images: Tensor) -> Tensor:
        left = torch.arange(images.shape[-1]) < images.shape[-1] // 2
        bright = (images.mean(1) / 255 - 0.5) * 8 * left
        return torch.stack([-bright, bright], 1)


def test_probabilities_are_means_over_scales_and_the_mirror_image() -> None:
    image = images(16, 24)[0]
    network = _Brightness()
    single = class_probabilities(network, image)
    torch.testing.assert_close(single, network(image[None]).softmax(1)[0])
    mirrored = network(image.flip(-1)[None]).softmax(1)[0].flip(-1)
    torch.testing.assert_close(class_probabilities(network, image, flip=True), (single + mirrored) / 2)
    double = class_probabilities(network, image, [2.0])
    torch.testing.assert_close(class_probabilities(network, image, [1.0, 2.0]), (single + double) / 2)
    assert double.shape == single.shape and not torch.equal(double, single)
    with pytest.raises(ValueError, match="scales"):
        class_probabilities(network, image, [0.0])


def test_probabilities_become_maps_of_the_classes_present() -> None:
    image, network = images(16, 24)[0], _Brightness()
    last = network.num_classes - 1
    maps = probability_maps(network, image, [last, last], flip=False)
    assert maps.classes == (last,) and maps.size == (16, 24) and maps.maps.shape == (1, 4, 6)
    shares = class_probabilities(network, image)[[0, last]]
    shares = shares / shares.sum(0)
    assert maps.background is not None
    torch.testing.assert_close(maps.maps[0, 1, 2], shares[1, 4:8, 8:12].mean())
    torch.testing.assert_close(maps.maps[0] + maps.background, torch.ones(4, 6))
    flipped = probability_maps(network, image, [last], flip=True)
    assert not torch.equal(flipped.maps, maps.maps)
    assert probability_maps(network, image[:, 1:, 1:], [last]).maps.shape == (1, 4, 6)
    for wrong in ([], [0], [last + 1]):
        with pytest.raises(ValueError, match="present"):
            probability_maps(network, image, wrong)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_probabilities_are_the_same_on_a_gpu() -> None:
    network = LiteSegmenter(load_backbone("efficientnet_lite0", "random"), 4).eval()
    expected = class_probabilities(network, images()[0], [1.0, 0.75], flip=True)
    found = class_probabilities(network.cuda(), images()[0], [1.0, 0.75], flip=True)
    torch.testing.assert_close(found.cpu(), expected, atol=1e-3, rtol=1e-3)


def test_stages_of_a_backbone_may_be_shallow_only() -> None:
    backbone = Backbone(nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1)), {"F1": Stage("0", 4, 2)})
    assert DeepLabV2(backbone, 2).coarse_logits(images(16, 16)).shape == (2, 2, 8, 8)
