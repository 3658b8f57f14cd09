"""Labels and probabilities of all pixels of an image, from whatever is known about some of them."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from torch_svm_seg.data.constants import VOID
from torch_svm_seg.expansion.calibration import calibrated
from torch_svm_seg.expansion.expander import Expansion, SVMExpander


class Labelling(NamedTuple):
    """Labels of all pixels of a batch of images.

    Attributes:
        masks: Class ids, (B, H, W), long.
        probabilities: Of classes by id, (B, K, H, W); 0 for a class that an image does not have.
        restored: How many classes of each image had vanished from its mask and were given their seed back; empty where
            there was no seed to give.
    """

    masks: Tensor
    probabilities: Tensor
    restored: tuple[int, ...] = ()


class Labeller(Protocol):
    """Labels the pixels of a batch of images of one size."""

    def __call__(self, images: Tensor, features: Tensor | Sequence[Tensor], knowledge: Tensor) -> Labelling:
        """Label all pixels.

        Args:
            images: RGB 0..255, (B, 3, H, W).
            features: (B, C, h, w), floating point, on any grid; or several such maps, to be fused.
            knowledge: Class ids (B, H, W), or the activation of classes by id, (B, K, H, W).
        """


class Baseline(Protocol):
    """Labels the pixels of a batch of images of one size without features, for comparison."""

    def __call__(self, images: Tensor, activation: Tensor) -> Labelling:
        """Label all pixels.

        Args:
            images: RGB images from 0 to 255, (B, 3, H, W).
            activation: Activation of the classes by id, (B, K, H, W); -inf for a class that an image does not have.
        """


class StudyLabeller(nn.Module):
    """The expansion of true labels: the paper's study of the upper bound (section 3.1)."""

    def __init__(self, expander: SVMExpander) -> None:
        super().__init__()
        self.expander = expander

    def forward(self, images: Tensor, features: Tensor | Sequence[Tensor], labels: Tensor) -> Labelling:
        expansion: Expansion = self.expander(features, labels)
        return Labelling(expansion.masks, calibrated(expansion.scores, expansion.sample))

    def training_labels(self, images: Tensor, labels: Tensor) -> Tensor:
        """The labels of the pixels that may be trained on: all."""
        return labels


class SeedLabeller(nn.Module):
    """The seed itself, which an expansion is compared with (:func:`seeds_of`)."""

    def forward(self, images: Tensor, activation: Tensor) -> Labelling:
        return Labelling(seeds_of(activation), as_probabilities(activation))


def as_probabilities(activation: Tensor) -> Tensor:
    """Activation (B, K, H, W), -inf for absent classes, divided by its sum over the classes.

    Where nothing is active, all classes present are as likely.
    """
    present = activation > -torch.inf
    positive = torch.where(present, activation.clamp_min(0), 0)
    silent = positive.sum(1, keepdim=True) == 0
    positive = torch.where(silent, present.to(positive), positive)
    return positive / positive.sum(1, keepdim=True)


def present_classes(activation: Tensor) -> Tensor:
    """Ids of the classes that an image has by its activation (K, H, W), which is -inf for the others; ascending."""
    return (activation > -torch.inf).flatten(1).any(1).nonzero()[:, 0]


def label(probabilities: Tensor, seeds: Tensor | None = None) -> Labelling:
    """The most likely class of each pixel; the classes that seeds have and masks would lose keep their seed.

    Args:
        probabilities: Of classes by id, (B, K, H, W).
        seeds: Class ids (B, H, W), and 255 where there is none.
    """
    masks = probabilities.argmax(1)
    if seeds is None:
        return Labelling(masks, probabilities)
    restored = tuple(_restore(mask, seed) for mask, seed in zip(masks, seeds, strict=True))
    return Labelling(masks, probabilities, restored)


def _restore(mask: Tensor, seed: Tensor) -> int:
    """Give the classes that a seed has and a mask lacks their seed back, in place; returns how many."""
    number = 0
    # A seed that comes back can cover the last pixels of another class, whose own then comes back too.
    while (lost := torch.isin(seed, mask, invert=True) & (seed != VOID)).any():
        number += len(seed[lost].unique())
        mask[lost] = seed[lost]
    return number


def seeds_of(activation: Tensor) -> Tensor:
    """The class of the largest activation (B, K, H, W) at each pixel, (B, H, W); 255 where several are the largest."""
    best = activation.topk(min(2, activation.shape[1]), dim=1)
    tied = (best.values[:, 0] == best.values[:, -1]) & (activation.shape[1] > 1)
    return torch.where(tied, VOID, best.indices[:, 0])
