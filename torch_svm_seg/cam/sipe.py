"""SIPE: self-supervised image-specific prototype exploration (Chen et al., CVPR 2022), for any backbone.

A class activation map marks the parts that tell a class from the others, not the whole object. SIPE gathers, in each
image and from the map itself, a prototype of each class present and of the background; the map of each pixel's
similarity to them, the image-specific map (IS-CAM), covers objects better. A consistency loss (GSC) between the two
maps trains the classifier's one. Section and equation numbers below are the paper's.

Tensors are maps over one grid of h x w cells; channel 0 is the background, channel c class id c. One deliberate
choice beside the authors' code: classes that the image does not have are left out *before* the background is taken as
the part that no class activates, since an image-level label rules them out wherever these maps are used.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torch_svm_seg.backbones.backbone import Backbone
from torch_svm_seg.cam.classifier import Classifier, merge_views, views
from torch_svm_seg.tensors import full_precision, resize

# Channels of the side layers on the last four stages, from shallow to deep (section 4.1 has 128, 128, 256, 256).
_SIDE_CHANNELS = (128, 128, 256, 256)
_BACKGROUND_WEIGHT = 0.5
_EPSILON = 1e-5


class SIPE(Classifier):
    """A classifier that learns to agree with image-specific prototypes.

    The prototypes live in a hierarchical feature: each of the backbone's last four stages (``F2`` to ``F5``), detached,
    goes through a bias-free 1x1 convolution, is divided by its length and resized to the deepest stage's grid. A
    backbone with fewer stages has fewer parts.

    Args:
        backbone: Network that gives the features; the ``requires_grad`` of its parameters is set here.
        num_classes: Number of classes, background not counted.
        seed: Seed of the new layers' weights.

    Examples:
        >>> from torch_svm_seg.backbones.builder import load_backbone
        >>> network = SIPE(load_backbone("resnet18", "random"), num_classes=20)
        >>> present = torch.tensor([True] * 2 + [False] * 18)
        >>> network.activation_maps(torch.zeros(3, 64, 96), present).shape
        torch.Size([3, 4, 6])
    """

    has_background = True
    loss_names = ("classification", "consistency")

    def __init__(self, backbone: Backbone, num_classes: int, seed: int = 0) -> None:
        super().__init__(backbone, num_classes, seed)
        self._side_stages = backbone.stage_names[1:][-len(_SIDE_CHANNELS) :]
        widths = _SIDE_CHANNELS[-len(self._side_stages) :]
        generator = torch.Generator().manual_seed(seed + 1)
        layers = (self._new_layer(*pair, generator) for pair in zip(self._side_stages, widths, strict=True))
        self.sides = nn.ModuleList(layers)

    def losses(self, images: Tensor, valid: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the classification loss and the consistency loss; arguments as in the base class."""
        stages = self.backbone.stages(images, self._side_stages)
        deepest = stages[self._deepest]
        class_maps = self.head(deepest)
        features = self._hierarchical_features(stages)
        with full_precision(images.device):
            class_maps, features = class_maps.float(), features.float()
            allowed = _allowed(labels, valid, class_maps.shape[-2:])
            maps = normalized_maps(class_maps, allowed)
            seeds = prototype_seeds(maps.detach(), deepest.detach().float(), allowed)
            specific = image_specific_maps(features, prototypes(features, seeds))
            classification = F.multilabel_soft_margin_loss(class_maps.mean((2, 3)), labels.float())
            return {"classification": classification, "consistency": consistency_loss(maps, specific)}

    def activation_maps(self, image: Tensor, present: Tensor, flip: bool = True) -> Tensor:
        """Return the image-specific maps (1 + classes present, h, w) of one image at one scale, background first."""
        stages = self.backbone.stages(views(image, flip), self._side_stages)
        class_maps = merge_views(self.head(stages[self._deepest]))
        features = merge_views(self._hierarchical_features(stages))
        allowed = _allowed(present[None], present.new_ones(1, *image.shape[-2:]), class_maps.shape[-2:])
        seeds = prototype_seeds(normalized_maps(class_maps, allowed), features, allowed)
        return image_specific_maps(features, prototypes(features, seeds))[0, F.pad(present, (1, 0), value=True)]

    def _hierarchical_features(self, stages: dict[str, Tensor]) -> Tensor:
        """Return the features (B, 768, h, w), of the deepest stage's grid."""
        grid = stages[self._deepest].shape[-2:]
        parts = (layer(stages[name].detach()) for name, layer in zip(self._side_stages, self.sides, strict=True))
        parts = (F.normalize(part.float(), dim=1, eps=_EPSILON) for part in parts)
        return torch.cat([resize(part, grid) for part in parts], dim=1)


def normalized_maps(class_maps: Tensor, allowed: Tensor) -> Tensor:
    """Return class activation maps of the classes present, and of the background as the part that none activates.

    Args:
        class_maps: Unbounded scores (B, K, h, w).
        allowed: 1 where a channel may be active, else 0, (B, K + 1, h, w), background first.

    Returns:
        Activation from 0 to 1, (B, K + 1, h, w).

    Examples:
        >>> normalized_maps(torch.tensor([[[[-1.0, 0.0, 4.0]]]]), torch.ones(1, 2, 1, 3)).round(decimals=2)
        tensor([[[[1., 1., 0.]],
        <BLANKLINE>
                 [[0., 0., 1.]]]])
    """
    maps = class_maps.relu() * allowed[:, 1:]
    maps = maps / (maps.amax((2, 3), keepdim=True) + _EPSILON)
    return torch.cat([1 - maps.amax(1, keepdim=True), maps], dim=1) * allowed


@torch.no_grad()
def prototype_seeds(maps: Tensor, features: Tensor, allowed: Tensor) -> Tensor:
    """Assign each cell to the class whose activation is most like the cell's own similarity map (section 3.2).

    The likeness of the similarities s of a cell and the activation a of a class is their soft intersection over union,
    sum(s a) / (sum(s) + sum(a) - sum(s a)), sums over all cells; the background's counts half. One product of
    the (h w) x (h w) similarities with the maps gives all intersections, so nothing of size K x (h w)^2 exists.

    Args:
        maps: Activation from 0 to 1, (B, K + 1, h, w), background first.
        features: Features that similarity is measured on, (B, D, h, w).
        allowed: 1 where a channel may be active, else 0, (B, K + 1, h, w).

    Returns:
        One-hot seeds (B, K + 1, h, w); all zero where the nearest class is not allowed.

    Examples:
        >>> maps, features = torch.rand(1, 3, 4, 6), torch.rand(1, 8, 4, 6)
        >>> prototype_seeds(maps, features, torch.ones(1, 3, 4, 6)).sum(1).unique()
        tensor([1.])
    """
    directions = F.normalize(features.flatten(2), dim=1, eps=_EPSILON)  # (B, D, hw)
    similarity = (directions.transpose(1, 2) @ directions).relu()  # (B, hw, hw)
    activation = maps.flatten(2).transpose(1, 2)  # (B, hw, K + 1)
    intersection = similarity @ activation
    union = similarity.sum(2, keepdim=True) + activation.sum(1, keepdim=True) - intersection
    likeness = intersection / union.clamp_min(_EPSILON)
    likeness[..., 0] *= _BACKGROUND_WEIGHT
    seeds = F.one_hot(likeness.argmax(2), maps.shape[1]).to(maps).transpose(1, 2)
    return seeds.reshape(maps.shape) * allowed


def prototypes(features: Tensor, seeds: Tensor) -> Tensor:
    """Return each class's mean feature over its seed, up to a factor that similarity does not see (section 3.2).

    Args:
        features: Features (B, D, h, w).
        seeds: Weights (B, K + 1, h, w).

    Returns:
        Prototypes (B, K + 1, D), means over all cells; zero for a class without a seed.

    Examples:
        >>> prototypes(torch.rand(2, 8, 4, 6), torch.ones(2, 3, 4, 6)).shape
        torch.Size([2, 3, 8])
    """
    cells = features.shape[2] * features.shape[3]
    return seeds.flatten(2) @ features.flatten(2).transpose(1, 2) / cells


def image_specific_maps(features: Tensor, prototypes: Tensor) -> Tensor:
    """Return the image-specific class activation maps (section 3.3).

    Args:
        features: Features (B, D, h, w).
        prototypes: Prototypes (B, K + 1, D).

    Returns:
        Cosine similarity of each cell to each prototype, negative ones as 0, (B, K + 1, h, w).

    Examples:
        >>> image_specific_maps(torch.rand(2, 8, 4, 6), torch.rand(2, 3, 8)).shape
        torch.Size([2, 3, 4, 6])
    """
    directions = F.normalize(features.flatten(2), dim=1, eps=_EPSILON)
    similarity = F.normalize(prototypes, dim=2, eps=_EPSILON) @ directions
    return similarity.relu().reshape(*similarity.shape[:2], *features.shape[2:])


def consistency_loss(maps: Tensor, specific: Tensor) -> Tensor:
    """Return the mean absolute difference of the two kinds of maps, the specific ones over their maxima (equation 6).

    Args:
        maps: Activation from 0 to 1, (B, K + 1, h, w).
        specific: Image-specific activation of the same shape.

    Examples:
        >>> consistency_loss(torch.zeros(1, 2, 4, 6), torch.zeros(1, 2, 4, 6))
        tensor(0.)
    """
    return (maps - specific / (specific.amax((2, 3), keepdim=True) + _EPSILON)).abs().mean()


def _allowed(present: Tensor, valid: Tensor, grid: torch.Size) -> Tensor:
    """Return 1 where a channel may be active, else 0, (B, K + 1, h, w): classes present and background, no padding."""
    inside = F.interpolate(valid[:, None].float(), grid, mode="nearest-exact")
    allowed: Tensor = F.pad(present.float(), (1, 0), value=1.0)[..., None, None] * inside
    return allowed
