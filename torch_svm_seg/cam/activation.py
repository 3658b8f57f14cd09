"""Class activation maps of a whole image, and the seeds made from them."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as transforms  # type: ignore[import-untyped]

from torch_svm_seg.refine.feature_walk import FeatureWalk
from torch_svm_seg.tensors import resize

SCALES = (1.0, 0.5, 1.5, 2.0)
"""Scales whose activation is summed by default, as IRN and SIPE do."""

STRIDE = 4
"""Side of the image square that a value of an activation map stands for, in pixels."""

# Images are resized to multiples of the deepest stride, so that its grid ends where the image ends.
_DEEPEST_STRIDE = 16
_EPSILON = 1e-5


@dataclass(frozen=True)
class ActivationMaps:
    """The activation of an image's classes.

    Attributes:
        classes: Ids of the classes present, ascending, from 1; absent classes have no map.
        maps: Activation from 0 to 1, (classes, h, w); a classifier's have their maximum at 1 unless they are zero
            everywhere.
        size: The image's height and width; the maps are usually coarser and stretch over all of it.
        background: Activation of the background from 0 to 1, (h, w), where the method has its own.

    Examples:
        >>> maps = ActivationMaps((8, 15), torch.rand(2, 94, 125), size=(375, 500))
        >>> maps.resized().maps.shape
        torch.Size([2, 375, 500])
    """

    classes: tuple[int, ...]
    maps: Tensor
    size: tuple[int, int]
    background: Tensor | None = None

    def __post_init__(self) -> None:
        if self.maps.ndim != 3 or len(self.maps) != len(self.classes) or not self.classes:
            raise ValueError(f"maps: expected ({len(self.classes)} classes, h, w), got {tuple(self.maps.shape)}")
        if min(self.classes) < 1 or list(self.classes) != sorted(set(self.classes)):
            raise ValueError(f"classes: expected ascending ids from 1, got {self.classes}")
        if self.background is not None and self.background.shape != self.maps.shape[1:]:
            raise ValueError(
                f"background: expected the maps' shape {tuple(self.maps.shape[1:])}, got {tuple(self.background.shape)}"
            )

    @property
    def silent(self) -> tuple[int, ...]:
        """Classes present by their label whose map is zero everywhere: the classifier sees them nowhere."""
        return tuple(id for id, map in zip(self.classes, self.maps, strict=True) if not map.any())

    def resized(self) -> "ActivationMaps":
        """Return the maps at the image's size, by bilinear interpolation."""
        background = None if self.background is None else resize(self.background[None, None], self.size)[0, 0]
        return ActivationMaps(self.classes, resize(self.maps[None], self.size)[0], self.size, background)


class ActivationNetwork(Protocol):
    """A source of the activation of classes: a classifier, or CLIP with the names of classes.

    Attributes:
        num_classes: Number of classes, background not counted.
        has_background: Whether the maps start with one of the background.

    Examples:
        >>> from torch_svm_seg.backbones.builder import load_backbone
        >>> from torch_svm_seg.cam.classifier import Classifier
        >>> network: ActivationNetwork = Classifier(load_backbone("resnet18", "random"), num_classes=20)
    """

    num_classes: int
    has_background: bool

    def activation_maps(self, image: Tensor, present: Tensor, flip: bool = True) -> Tensor:
        """Return the activation of the classes present, bool (num_classes,), in an image (3, H, W), at one scale."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters, whose device and type the image takes."""
        ...


@torch.no_grad()
def class_activation_maps(
    network: ActivationNetwork,
    image: Tensor,
    present: Sequence[int],
    scales: Sequence[float] = SCALES,
    flip: bool = True,
) -> ActivationMaps:
    """Compute the class activation maps of one image.

    The activations at several scales, of the image and its mirror image, are brought to a quarter of the image's size,
    summed and divided by each class's maximum.

    Args:
        network: A trained classifier, or CLIP's maps; it runs on its own device.
        image: RGB image from 0 to 255, (3, H, W).
        present: Ids of the classes in the image, from 1 to the network's number of classes.
        scales: Factors on the image's size.
        flip: Whether to use the mirror image too.

    Returns:
        Maps of the classes present, float32 on the network's device; with a background map if the network has one.

    Raises:
        ValueError: No class is present, or one that the network does not know, or a scale is not positive and finite.

    Examples:
        >>> from torch_svm_seg.backbones.builder import load_backbone
        >>> from torch_svm_seg.cam.classifier import Classifier
        >>> network = Classifier(load_backbone("resnet18", "random"), num_classes=20)
        >>> class_activation_maps(network, torch.zeros(3, 64, 96), present=[8, 15], scales=[1.0]).maps.shape
        torch.Size([2, 16, 24])
    """
    classes = tuple(sorted(set(present)))
    if not classes or classes[0] < 1 or classes[-1] > network.num_classes:
        raise ValueError(f"present: expected class ids from 1 to {network.num_classes}, got {list(present)}")
    if not scales or not all(0 < scale < math.inf for scale in scales):
        raise ValueError(f"scales: expected positive numbers, got {list(scales)}")
    weight = next(network.parameters())
    image = image.to(weight)
    chosen = torch.zeros(network.num_classes, dtype=torch.bool, device=weight.device)
    chosen[[id - 1 for id in classes]] = True
    height, width = image.shape[-2:]
    grid = (math.ceil(height / STRIDE), math.ceil(width / STRIDE))
    total = sum(
        (resize(network.activation_maps(_rescaled(image, scale), chosen, flip)[None], grid)[0] for scale in scales),
        start=torch.zeros((), device=weight.device),
    )
    total = total / total.amax((1, 2), keepdim=True).clamp_min(_EPSILON)
    background, maps = (total[0], total[1:]) if network.has_background else (None, total)
    return ActivationMaps(classes, maps, (height, width), background)


@torch.no_grad()
def spread_maps(walk: FeatureWalk, image: Tensor, maps: ActivationMaps) -> ActivationMaps:
    """Spread the maps of an image by the similarity of features, and divide each class's by its maximum.

    Class activation is high at what tells a class most; the walk brings it to what is alike to a network that no label
    has trained. A background map walks along, and is not divided; where many alike cells raise it above 1, it is 1.

    Args:
        walk: Walk on any device.
        image: RGB image from 0 to 255, (3, H, W).
        maps: Its maps.

    Returns:
        Maps on the grid of the walk's features.

    Examples:
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
    classes = classes / classes.amax((1, 2), keepdim=True).clamp_min(_EPSILON)
    return replace(maps, maps=classes, background=background[0].clamp_max(1) if len(background) else None)


def constant_background(maps: ActivationMaps, threshold: float) -> Tensor:
    """Return a background that wins wherever no class reaches a threshold.

    Args:
        maps: Activation of the classes.
        threshold: Activation of the background, from 0 to 1.

    Returns:
        The background, (h, w), of the maps' resolution.

    Examples:
        >>> constant_background(ActivationMaps((8,), torch.tensor([[[0.2, 1.0]]]), (4, 8)), 0.3)
        tensor([[0.3000, 0.3000]])
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold: expected 0 to 1, got {threshold}")
    return torch.full_like(maps.maps[0], threshold)


def power_background(maps: ActivationMaps, exponent: float) -> Tensor:
    """Return the background as (1 - the largest activation) to a power (Ahn and Kwak, CVPR 2018, equation 1).

    Args:
        maps: Activation of the classes.
        exponent: The power, positive; larger ones leave less to the background.

    Returns:
        Activation from 0 to 1, (h, w), of the maps' resolution.

    Examples:
        >>> power_background(ActivationMaps((8,), torch.tensor([[[0.5, 1.0]]]), (4, 8)), 2)
        tensor([[0.2500, 0.0000]])
    """
    if exponent <= 0:
        raise ValueError(f"exponent: expected a positive number, got {exponent}")
    return (1 - maps.maps.amax(0)).clamp(0, 1) ** exponent


def own_background(maps: ActivationMaps) -> Tensor:
    """Return the method's own background map, as SIPE has one.

    Raises:
        ValueError: The maps have none.

    Examples:
        >>> own_background(ActivationMaps((8,), torch.ones(1, 1, 2), (4, 8), background=torch.zeros(1, 2)))
        tensor([[0., 0.]])
    """
    if maps.background is None:
        raise ValueError("maps: have no background of their own; use a threshold or a power")
    return maps.background


def make_seed(maps: ActivationMaps, background: Tensor) -> Tensor:
    """Label each pixel with the strongest of the background and the classes present.

    Args:
        maps: Activation of the classes.
        background: Activation of the background, (h, w), of the maps' resolution.

    Returns:
        Class ids, int64 of the image's size (H, W); among equals the background, then the lowest id.

    Examples:
        >>> maps = ActivationMaps((8,), torch.tensor([[[0.2, 1.0]]]), size=(1, 2))
        >>> make_seed(maps, constant_background(maps, 0.3))
        tensor([[0, 8]])
    """
    strongest = resize(torch.cat([background[None], maps.maps])[None], maps.size)[0].argmax(0)
    return torch.tensor([0, *maps.classes], device=strongest.device)[strongest]


def _rescaled(image: Tensor, scale: float) -> Tensor:
    """Resize an image to about `scale` times its size, both sides multiples of the deepest stride."""
    size = [max(1, round(side * scale / _DEEPEST_STRIDE)) * _DEEPEST_STRIDE for side in image.shape[-2:]]
    resized: Tensor = transforms.resize(image, size, antialias=True)
    return resized
