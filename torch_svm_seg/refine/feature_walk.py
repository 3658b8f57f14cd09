"""Refinement of class probabilities by a walk between the parts of an image that are alike to a network."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from torch_svm_seg.backbones.backbone import IMAGE, Backbone
from torch_svm_seg.refine.affinity_walk import AffinityWalk
from torch_svm_seg.refine.probabilities import checked
from torch_svm_seg.tensors import resize


class FeatureWalk(nn.Module):
    """An :class:`~torch_svm_seg.refine.AffinityWalk` on features of a backbone, which is not trained for it.

    Args:
        backbone: Gives the features.
        stages: Stages whose similarities are averaged; the deepest one's grid is walked on.
        walk: The walk; by default one step.

    Shape:
        As :class:`~torch_svm_seg.refine.DenseCRF`: images (B, 3, H, W), RGB from 0 to 255, of any type; probabilities
        (B, K, H, W), >= 0. Result (B, K, H, W), summing to 1 over K. It is differentiable with respect to the
        probabilities.

    Examples:
        >>> from torch_svm_seg.backbones.builder import load_backbone
        >>> walk = FeatureWalk(load_backbone("resnet18", "random"))
        >>> walk(torch.zeros(1, 3, 32, 48), torch.rand(1, 2, 32, 48)).shape
        torch.Size([1, 2, 32, 48])
    """

    def __init__(self, backbone: Backbone, stages: Sequence[str] = ("F5",), walk: AffinityWalk | None = None) -> None:
        super().__init__()
        known = [name for name in backbone.stage_names if name != IMAGE]
        if not stages or not set(stages) <= set(known):
            raise ValueError(f"stages: expected some of {' '.join(known)}, got {' '.join(stages) or 'none'}")
        self.backbone, self.stages = backbone, tuple(sorted(set(stages), key=known.index))
        self.walk = AffinityWalk() if walk is None else walk

    def extra_repr(self) -> str:
        """Return the parameters for the module's representation."""
        return f"stages={self.stages}"

    def spread(self, images: Tensor, maps: Tensor) -> Tensor:
        """Spread maps of any grid.

        Args:
            images: RGB from 0 to 255, (B, 3, H, W).
            maps: Floating point, (B, K, h, w), stretching over the images.

        Returns:
            Spread maps on the grid of the deepest stage.
        """
        with torch.no_grad():
            features = self.backbone.stages(images, self.stages)
        grid = features[self.stages[-1]].shape[2:]
        finer = grid[0] < maps.shape[2] or grid[1] < maps.shape[3]
        spread: Tensor = self.walk(resize(maps, grid, antialias=finer), list(features.values()))
        return spread

    def forward(self, images: Tensor, probabilities: Tensor) -> Tensor:
        """Return refined probabilities.

        Raises:
            ValueError: Shapes do not match or values are out of range.
        """
        images, probabilities = checked(images, probabilities)
        refined = resize(self.spread(images, probabilities), probabilities.shape[2:]).clamp_min(0)
        return refined / refined.sum(1, keepdim=True).clamp_min(torch.finfo(refined.dtype).tiny)
