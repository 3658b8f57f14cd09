"""Options that choose a backbone."""

from dataclasses import dataclass
from typing import ClassVar

from torch_svm_seg.backbones.backbone import Backbone
from torch_svm_seg.backbones.builder import load_backbone
from torch_svm_seg.cli.options.option import option

DEFAULT_BACKBONE = "efficientnet_lite0"


@dataclass(frozen=True)
class BackboneOptions:
    """The network that gives the features."""

    title: ClassVar = "network"

    backbone: str = option(
        DEFAULT_BACKBONE,
        metavar="NAME",
        help="efficientnet_lite0|1|2 (weights come as a package), resnet18|34|50|101 (torchvision), timm:NAME "
        f"(default: {DEFAULT_BACKBONE}; the papers' is resnet50)",
    )
    weights: str | None = option(
        None,
        metavar="FILE",
        content=True,
        help="state dict or checkpoint of the backbone (default: its ImageNet weights)",
    )

    def load(self) -> Backbone:
        """Load the backbone, in evaluation mode on the CPU."""
        return load_backbone(self.backbone, self.weights)
