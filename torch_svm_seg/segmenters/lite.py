"""A small decoder on a small backbone, which trains on two CPU cores."""

import torch
from torch import Tensor, nn

from torch_svm_seg.backbones.backbone import Backbone, train_only_deep_stages
from torch_svm_seg.segmenters.segmenter import Segmenter
from torch_svm_seg.tensors import resize, seeded


class LiteSegmenter(Segmenter):
    """A decoder of 0.2 million parameters on a backbone's stages, in the manner of DeepLabV3+ (Chen et al., ECCV 2018).

    A linear classifier of the deepest stage finds the classes, in few steps since its features are made for that. The
    decoder adds detail: it reads the deepest stage at several dilations and as a global mean, and refines
    this by the stages of strides 8 and 4. 3x3 convolutions are depthwise separable, and normalised over groups of
    channels.

    Args:
        backbone: Backbone with the stages ``F2``, ``F3`` and ``F5``.
        num_classes: Number of classes, background included.
        seed: Seed of the new layers' weights.

    Examples:
        >>> from torch_svm_seg.backbones.builder import load_backbone
        >>> network = LiteSegmenter(load_backbone("efficientnet_lite0", "random"), num_classes=21)
        >>> network(torch.zeros(1, 3, 64, 96)).shape
        torch.Size([1, 21, 64, 96])
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
        with seeded(seed):
            self.reduce = _block(channels["F5"], width)
            self.dilated = nn.ModuleList(_separable(width, width, rate) for rate in self.rates)
            self.context = nn.Linear(width, width)
            self.join = _block((1 + len(self.rates)) * width, width)
            self.middle_skip, self.middle = _block(channels["F3"], middle), _separable(width + middle, width)
            self.shallow_skip, self.shallow = _block(channels["F2"], shallow), _separable(width + shallow, width // 2)
        # One factor per image: channels keep their proportions, which tell the classes.
        self.normalize = nn.GroupNorm(1, channels["F5"])
        # At first all classes are equal everywhere.
        self.coarse_classifier = _zero_classifier(channels["F5"], num_classes)
        self.fine_classifier = _zero_classifier(width // 2, num_classes)

    def coarse_logits(self, images: Tensor) -> Tensor:
        """Return the logits at the resolution of ``F2``."""
        stages = self.backbone.stages(images, ["F2", "F3", "F5"])
        deep = self.reduce(stages["F5"])
        context = deep + self.context(deep.mean((2, 3)))[:, :, None, None]
        deep = self.join(torch.cat([context, *(branch(deep) for branch in self.dilated)], 1))
        middle = self.middle(torch.cat([resize(deep, stages["F3"].shape[-2:]), self.middle_skip(stages["F3"])], 1))
        shallow = torch.cat([resize(middle, stages["F2"].shape[-2:]), self.shallow_skip(stages["F2"])], 1)
        fine: Tensor = self.fine_classifier(self.shallow(shallow))
        return fine + resize(self.coarse_classifier(self.normalize(stages["F5"])), fine.shape[-2:])


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
