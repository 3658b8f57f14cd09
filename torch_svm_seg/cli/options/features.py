"""Options of the networks and of their stages that an expansion compares."""

from dataclasses import dataclass
from typing import ClassVar

from torch_svm_seg.backbones.backbone import Backbone
from torch_svm_seg.backbones.builder import load_backbone
from torch_svm_seg.cli.options.backbone import TwoBackboneOptions
from torch_svm_seg.cli.options.option import option
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.expansion.normalization import fused_stages


@dataclass(frozen=True)
class FeatureOptions(TwoBackboneOptions):
    """The networks, and the features to compare."""

    title: ClassVar = "features"

    features: tuple[str, ...] | None = option(
        None,
        metavar="STAGE",
        help="stages to compare, one SVM per image each: img is the RGB image, F1 to F5 the backbone's stages from "
        "fine and shallow to coarse and deep; F1+F3+F4 is one SVM on these three, each with equal weight; none is only "
        "--baselines (default: all six; F4 with seeds; F3+F4+F5 with points, scribbles or boxes)",
    )
    input_scale: float = option(
        1.0, metavar="S", help="factor on the image's size at --backbone's input: larger makes its stages finer"
    )
    patch_stride: int | None = option(
        None, metavar="N", help="pixels from patch to patch of a plain transformer as --backbone (default: no overlap)"
    )
    amp: bool = option(
        False, help="compute the stages in bfloat16 where PyTorch deems it safe; the SVMs stay in single precision"
    )

    def load(self) -> Backbone:
        """Load the first network, in evaluation mode on the CPU."""
        return load_backbone(self.backbone, self.weights, self.input_scale, self.patch_stride)

    def open(self, first: Backbone) -> Backbone:
        """Join the first network with the second one, if there is one, and check that they have the stages.

        Raises:
            InputError: The second network cannot be loaded, or there is no such stage.
        """
        joined = self.join(first)
        self.check(joined)
        for module in joined.modules():
            if isinstance(module, Backbone):
                module.amp = self.amp
        return joined

    def check(self, backbone: Backbone) -> None:
        """Raise InputError unless the backbone has the stages."""
        for name in self.features or ():
            stages = fused_stages(name)
            if not set(stages) <= set(backbone.stage_names):
                raise InputError(f"--features: there are {' '.join(backbone.stage_names)}, got {name}")
            if len(set(stages)) < len(stages):
                raise InputError(f"--features: expected each stage once in a fusion, got {name}")
