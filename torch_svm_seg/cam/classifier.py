"""A multi-label image classifier whose class scores are means of maps, so that the maps say where each class is.

Class activation maps (Zhou et al., CVPR 2016) in the form that the field trains today: the classification layer is a
bias-free 1x1 convolution on the deepest stage, before the global average instead of after it.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torch_svm_seg.backbones.backbone import Backbone, train_only_deep_stages
from torch_svm_seg.svm.arguments import check_count
from torch_svm_seg.training.trainable import Trainable

_SHALLOW_STRIDE = 8
# Factor on the learning rate of new layers in IRN and SIPE.
_NEW_LAYER_RATE = 10.0


class Classifier(Trainable):
    """A backbone with a classification layer that yields one map per class.

    The backbone's shallow stages, up to stride 8, keep their ImageNet weights, as in SIPE and IRN (Chen et al.,
    CVPR 2022; Ahn et al., CVPR 2019); no gradient is computed there. BatchNorm stays on its running statistics.

    Args:
        backbone: Network that gives the features; the ``requires_grad`` of its parameters is set here.
        num_classes: Number of classes, background not counted.
        seed: Seed of the new layer's weights.

    Attributes:
        has_background: Whether :meth:`activation_maps` starts with a map of the background.
        loss_names: Names of the terms of :meth:`losses`.

    Shape:
        Images (B, 3, H, W), RGB from 0 to 255. Result (B, num_classes), the logits of the classes.

    Examples:
        >>> from torch_svm_seg.backbones.builder import load_backbone
        >>> network = Classifier(load_backbone("resnet18", "random"), num_classes=20)
        >>> images = torch.zeros(2, 3, 64, 96)
        >>> network(images).shape, network.class_maps(images).shape
        (torch.Size([2, 20]), torch.Size([2, 20, 4, 6]))
    """

    has_background = False
    loss_names: tuple[str, ...] = ("classification",)
    largest_gradient: float | None = 1.0

    def __init__(self, backbone: Backbone, num_classes: int, seed: int = 0) -> None:
        super().__init__()
        check_count("num_classes", num_classes)
        self.backbone = backbone
        self.num_classes = num_classes
        self._deepest = backbone.stage_names[-1]
        self.head = self._new_layer(self._deepest, num_classes, torch.Generator().manual_seed(seed))
        train_only_deep_stages(backbone, self._deepest, _SHALLOW_STRIDE)

    @property
    def new_parameters(self) -> list[nn.Parameter]:
        """The parameters that are not pretrained."""
        return [parameter for name, parameter in self.named_parameters() if not name.startswith("backbone.")]

    @property
    def pretrained_parameters(self) -> list[nn.Parameter]:
        """The backbone's parameters that are trained."""
        return [parameter for parameter in self.backbone.parameters() if parameter.requires_grad]

    def parameter_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """Return the pretrained parameters, and the new ones, which learn ten times as fast."""
        return [(self.pretrained_parameters, 1.0), (self.new_parameters, _NEW_LAYER_RATE)]

    def class_maps(self, images: Tensor) -> Tensor:
        """Return the score of each class at each position of the images.

        Args:
            images: RGB images from 0 to 255, (B, 3, H, W).

        Returns:
            Unbounded scores (B, num_classes, h, w), of the deepest stage's resolution.
        """
        maps: Tensor = self.head(self.backbone.stages(images, [self._deepest])[self._deepest])
        return maps

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of the classes (B, num_classes), the means of their maps."""
        return self.class_maps(images).mean((2, 3))

    def losses(self, images: Tensor, valid: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the terms of the loss.

        Args:
            images: RGB images from 0 to 255, (B, 3, H, W).
            valid: Where the images are not padding, bool (B, H, W).
            labels: Classes present, bool (B, num_classes).
        """
        return {"classification": F.multilabel_soft_margin_loss(self(images).float(), labels.float())}

    def activation_maps(self, image: Tensor, present: Tensor, flip: bool = True) -> Tensor:
        """Return the activation of the classes present in one image, at one scale.

        Args:
            image: RGB image from 0 to 255, (3, H, W).
            present: Classes present, bool (num_classes,).
            flip: Whether to average with the activation of the mirrored image, mirrored back.

        Returns:
            Activation from 0 up, (classes present, h, w); not normalised.
        """
        return merge_views(self.class_maps(views(image, flip)))[0, present].relu()

    def _new_layer(self, stage: str, channels: int, generator: torch.Generator) -> nn.Conv2d:
        """Return a bias-free 1x1 convolution of a stage, initialised as PyTorch does."""
        layer: nn.Conv2d = nn.utils.skip_init(nn.Conv2d, self.backbone.channels[stage], channels, 1, bias=False)
        nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
        return layer


def views(image: Tensor, flip: bool) -> Tensor:
    """Return an image (3, H, W) as a batch (1, 3, H, W), or with its mirror image (2, 3, H, W).

    Examples:
        >>> views(torch.zeros(3, 64, 96), flip=True).shape
        torch.Size([2, 3, 64, 96])
    """
    return torch.stack([image, image.flip(-1)]) if flip else image[None]


def merge_views(maps: Tensor) -> Tensor:
    """Return the mean (1, C, h, w) of the maps of :func:`views`, the second one mirrored back.

    Examples:
        >>> merge_views(torch.tensor([[[[1.0, 2.0]]], [[[2.0, 1.0]]]]))
        tensor([[[[1., 2.]]]])
    """
    return (maps[:1] + maps[1:].flip(-1)) / 2 if len(maps) == 2 else maps
