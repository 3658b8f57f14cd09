"""Class activation maps spread over all of what they point at."""

from dataclasses import replace

import torch
from torch import Tensor

from torch_svm_seg.cam.activation import ActivationMaps
from torch_svm_seg.refine import FeatureWalk

_TINY = 1e-6


@torch.no_grad()
def spread_maps(walk: FeatureWalk, image: Tensor, maps: ActivationMaps) -> ActivationMaps:
    """Spread the maps of an image by the similarity of features, and divide each class's by its maximum.

    Class activation is high at what tells a class most; the walk brings it to what is alike to a network that no label
    has trained. A background map walks along, and is not divided.

    Args:
        walk: Walk on any device.
        image: RGB image from 0 to 255, (3, H, W).
        maps: Its maps.

    Returns:
        Maps on the grid of the walk's features.

    Example:
        >>> from torch_svm_seg.backbones.builder import load_backbone
        >>> walk = FeatureWalk(load_backbone("resnet18", "random"))
        >>> maps = ActivationMaps((8, 15), torch.rand(2, 16, 24), size=(64, 96))
        >>> spread_maps(walk, torch.zeros(3, 64, 96), maps).maps.shape
        torch.Size([2, 4, 6])
    """
    device = next(walk.parameters()).device
    given = maps.maps if maps.background is None else torch.cat([maps.maps, maps.background[None]])
    spread = walk.spread(image[None].to(device), given[None].to(device))[0].clamp_min(0)
    classes, background = spread[: len(maps.classes)], spread[len(maps.classes) :]
    classes = classes / classes.amax((1, 2), keepdim=True).clamp_min(_TINY)
    return replace(maps, maps=classes, background=background[0] if len(background) else None)
