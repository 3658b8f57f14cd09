"""DeepLabV2, the network that the field reports results of."""

import torch
from torch import Tensor, nn
from torchvision.models import get_model  # type: ignore[import-untyped]

from torch_svm_seg.backbones.backbone import Backbone, Stage, train_only_deep_stages
from torch_svm_seg.backbones.builder import load_backbone
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import PathLike
from torch_svm_seg.segmenters.segmenter import Segmenter


class DeepLabV2(Segmenter):
    """DeepLabV2: a ResNet of output stride 8, and four dilated convolutions whose class scores are summed.

    (Chen et al., "DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, Atrous Convolution, and Fully
    Connected CRFs", TPAMI 2018, section 3 and figure 7.) The ResNet is torchvision's, whose strides lie on the 3x3
    convolutions; the convolution that has lost its stride is not dilated yet, so that all of them see the pixels that
    they saw in the pretraining.

    Args:
        backbone: A backbone of :func:`dilated_resnet`, or any whose deepest stage is to be classified.
        num_classes: Number of classes, background included.
        seed: Seed of the new layers' weights.

    Examples:
        >>> network = DeepLabV2(dilated_resnet("resnet50", "random"), num_classes=21)
        >>> network(torch.zeros(1, 3, 32, 48)).shape
        torch.Size([1, 21, 32, 48])
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
        """Return the sum of the branches' logits, of output stride 8."""
        deepest = self.backbone.stages(images, [self._deepest])[self._deepest]
        return torch.stack([branch(deepest) for branch in self.branches]).sum(0)


def dilated_resnet(name: str, weights: PathLike | None = None) -> Backbone:
    """Load a ResNet of torchvision whose last two stages are dilated in place of their stride: output stride 8.

    Args:
        name: ``resnet50`` or ``resnet101``; ResNets of basic blocks have no dilation in torchvision.
        weights: See :func:`~torch_svm_seg.backbones.builder.load_backbone`.

    Raises:
        InputError: The weights can be neither downloaded nor read, or the ResNet cannot be dilated.

    Examples:
        >>> dilated_resnet("resnet50", "random").strides["F5"]
        8
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
