"""Options of the walk between similar features."""

from dataclasses import dataclass
from typing import ClassVar

from torch_svm_seg.backbones.backbone import Backbone
from torch_svm_seg.cli.options.backbone import DEFAULT_BACKBONE, BackboneOptions
from torch_svm_seg.cli.options.option import changed_flags, option
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.refine import AffinityWalk, FeatureWalk


@dataclass(frozen=True)
class WalkOptions:
    """The walk on a backbone's features."""

    walk_stages: tuple[str, ...] = option(
        ("F5",), metavar="STAGE", help="stages of the backbone whose similarities guide the walk"
    )
    walk_power: float = option(
        3.0, metavar="P", help="power of the similarity: larger keeps the walk among more similar parts"
    )
    walk_steps: int = option(1, metavar="N", at_least=0, help="steps of the walk")

    def open_walk(self, backbone: Backbone) -> FeatureWalk:
        """Build the walk on a backbone's features.

        Raises:
            InputError: A value is out of its range, or the backbone has no such stage.
        """
        try:
            return FeatureWalk(backbone, self.walk_stages, AffinityWalk(self.walk_power, self.walk_steps))
        except ValueError as error:
            raise InputError(f"--walk-{error}") from error


@dataclass(frozen=True)
class MapWalkOptions(WalkOptions, BackboneOptions):
    """The walk that spreads class activation maps."""

    title: ClassVar = "walk"
    description: ClassVar = "For --walk, which needs no training. Its maps want a higher threshold: constant:0.6."

    walk: bool = option(
        False, help="spread the maps over what is similar to their most active parts, by a backbone's features"
    )
    backbone: str = option(
        DEFAULT_BACKBONE,
        metavar="NAME",
        help="network of the features: timm:vit_small_patch14_dinov2 and others of self-supervised training suit best",
    )

    def open(self) -> FeatureWalk | None:
        """Load the backbone and build the walk; ``None`` without ``--walk``.

        Raises:
            InputError: Flags of the walk are given without it, or have values that cannot be.
        """
        if self.walk:
            return self.open_walk(self.load())
        if given := changed_flags(self):
            raise InputError(f"{' and '.join(given)}: only with --walk")
        return None
