"""Options that choose a backbone."""

from dataclasses import dataclass
from typing import ClassVar

from torch_svm_seg.backbones.backbone import Backbone
from torch_svm_seg.backbones.builder import load_backbone
from torch_svm_seg.backbones.several import TwoBackbones
from torch_svm_seg.cli.options.option import option
from torch_svm_seg.data.errors import InputError

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


@dataclass(frozen=True)
class TwoBackboneOptions(BackboneOptions):
    """The networks that give the features: one, or two whose stages are used side by side."""

    second_backbone: str | None = option(
        None, metavar="NAME", help="a second network, whose stages are second.F1 to second.F5, for F1+F3+second.F5"
    )
    second_weights: str | None = option(
        None, metavar="FILE", content=True, help="state dict or checkpoint of --second-backbone"
    )

    def join(self, first: Backbone) -> Backbone:
        """Join the first network with the second one, if there is one.

        Raises:
            InputError: The second network cannot be loaded, or is given weights and no name.
        """
        if self.second_backbone is not None:
            return TwoBackbones(first, load_backbone(self.second_backbone, self.second_weights))
        if self.second_weights is not None:
            raise InputError("--second-weights: works only together with --second-backbone")
        return first
