"""Segmentation networks of other packages: torchvision and segmentation-models-pytorch."""

import importlib
import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import get_model  # type: ignore[import-untyped]

from torch_svm_seg.backbones.backbone import IMAGENET_MEAN, IMAGENET_STD
from torch_svm_seg.backbones.builder import RANDOM
from torch_svm_seg.backbones.weights import load_weights, one_line, refuse_hub
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import PathLike
from torch_svm_seg.segmenters.segmenter import Segmenter
from torch_svm_seg.tensors import differentiable, resize

# The deepest stride of the encoders of segmentation-models-pytorch; most networks there refuse other sides.
_SMP_MULTIPLE = 32

_ADVICE = "if its weights cannot be downloaded, pass --weights FILE"

_logger = logging.getLogger(__name__)


class PackagedSegmenter(Segmenter):
    """A segmentation network of another package.

    Args:
        network: Network that takes normalised images (B, 3, H, W) and returns logits, or a dictionary with them as
            ``"out"``.
        pretrained: Part of it that is pretrained.
        num_classes: Number of classes, background included.
        mean: Mean of each channel, subtracted from RGB values from 0 to 255.
        std: Standard deviation of each channel, which they are then divided by.
        multiple: Sides of images are padded to multiples of it.

    Examples:
        >>> layer = nn.Conv2d(3, 21, 1)
        >>> PackagedSegmenter(layer, layer, num_classes=21)(torch.zeros(1, 3, 64, 96)).shape
        torch.Size([1, 21, 64, 96])
    """

    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        pretrained: nn.Module,
        num_classes: int,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        multiple: int = 1,
    ) -> None:
        super().__init__(pretrained, num_classes, torch.tensor(mean).view(3, 1, 1))
        self.network = network
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))  # with fill in checkpoints: encoders differ in it
        self._multiple = multiple
        _train_only_used(self)

    def coarse_logits(self, images: Tensor) -> Tensor:
        """Return the logits at the image's size, which padding would otherwise shift."""
        height, width = images.shape[-2:]
        normalized = (images.to(self.fill) - self.fill) / self.std
        padded = F.pad(normalized, (0, -width % self._multiple, 0, -height % self._multiple))
        output: Any = self.network(padded)
        logits: Tensor = output["out"] if isinstance(output, dict) else output
        return resize(logits, padded.shape[-2:])[..., :height, :width]


def torchvision_segmenter(name: str, num_classes: int, weights: PathLike | None) -> PackagedSegmenter:
    """Build a segmentation network of torchvision.

    Args:
        name: Name such as ``deeplabv3:resnet50``.
        num_classes: Number of classes, background included.
        weights: Weights of the backbone; see :func:`~torch_svm_seg.segmenters.build_segmenter`.

    Raises:
        InputError: The weights can be neither downloaded nor read.

    Examples:
        >>> torchvision_segmenter("lraspp:mobilenet_v3_large", 21, "random").num_classes
        21
    """
    try:
        source = "DEFAULT" if weights is None else None
        network = get_model(name.replace(":", "_"), num_classes=num_classes, weights=None, weights_backbone=source)
    except Exception as error:  # no network, no space, a damaged download
        raise InputError(f"{name}: cannot download its backbone's weights ({one_line(error)}); {_ADVICE}") from error
    _load(network.backbone, weights)
    return PackagedSegmenter(network, network.backbone, num_classes)


def smp_segmenter(name: str, num_classes: int, weights: PathLike | None) -> PackagedSegmenter:
    """Build a network of segmentation-models-pytorch.

    Args:
        name: Name such as ``smp:DeepLabV3Plus:resnet50``.
        num_classes: Number of classes, background included.
        weights: Weights of the encoder; see :func:`~torch_svm_seg.segmenters.build_segmenter`.

    Raises:
        InputError: The package or the network is missing, or the weights can be neither downloaded nor read.

    Examples:
        >>> smp_segmenter("smp:DeepLabV3Plus:resnet50", 21, weights=None)  # doctest: +SKIP
    """
    try:
        package: Any = importlib.import_module("segmentation_models_pytorch")
    except ImportError as error:
        raise InputError(f"{name}: {one_line(error)}; run: pip install segmentation-models-pytorch") from error
    architecture, _, encoder = name.removeprefix("smp:").partition(":")
    if weights == RANDOM:  # which is how checkpoints are loaded, too
        refuse_hub(name)
    source = "imagenet" if weights is None else None
    try:
        network = package.create_model(architecture, encoder, source, classes=num_classes)
    except Exception as error:  # an unknown name, no network, no space; the hub's client has errors of its own
        raise InputError(f"{name}: {one_line(error)[:300]}; {_ADVICE}") from error
    _load(network.encoder, weights)
    mean, std = _normalization(package, encoder) if weights is None else (IMAGENET_MEAN, IMAGENET_STD)
    return PackagedSegmenter(network, network.encoder, num_classes, mean, std, multiple=_SMP_MULTIPLE)


def _normalization(package: Any, encoder: str) -> tuple[Sequence[float], Sequence[float]]:
    """Return mean and deviation of the images that an encoder expects, in units of 0 to 255."""
    wanted = package.encoders.get_preprocessing_params(encoder)
    unit = 255 if wanted["input_range"] in (None, [0, 1]) else 1
    return [unit * value for value in wanted["mean"]], [unit * value for value in wanted["std"]]


def _load(part: nn.Module, weights: PathLike | None) -> None:
    if weights is not None and weights != RANDOM:
        report = load_weights(part, weights)
        if not report.complete:
            _logger.warning("%s: %s", weights, report)


def _train_only_used(network: Segmenter) -> None:
    """Leave out parameters that the logits do not depend on: several processes would wait for their gradients."""
    network.eval()
    network.requires_grad_()
    with torch.inference_mode(False), torch.enable_grad():
        twin = differentiable(network)
        output = twin.coarse_logits(torch.zeros(1, 3, 64, 64))
        gradients = torch.autograd.grad(output.sum(), list(twin.parameters()), allow_unused=True)
    for parameter, gradient in zip(network.parameters(), gradients, strict=True):
        parameter.requires_grad_(gradient is not None)
