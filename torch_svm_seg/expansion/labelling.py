"""Labels and probabilities of all pixels of an image, from whatever is known about some of them."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from torch_svm_seg.data.constants import VOID
from torch_svm_seg.expansion.calibration import calibrated
from torch_svm_seg.expansion.expander import Expansion, LabelledMaps, SVMExpander


class Labelling(NamedTuple):
    """Labels of all pixels of a batch of images.

    Attributes:
        masks: Class ids, (B, H, W), long.
        probabilities: Probabilities of classes by id, (B, K, H, W); 0 for a class that an image does not have.
        restored: Number of classes of each image that were restored from their seed, having vanished from its mask;
            empty where there was no seed.

    Examples:
        >>> label(torch.tensor([[[[0.9, 0.8]], [[0.1, 0.2]]]]), seeds=torch.tensor([[[0, 1]]])).restored
        (1,)
    """

    masks: Tensor
    probabilities: Tensor
    restored: tuple[int, ...] = ()


class Baseline(Protocol):
    """Labels the pixels of a batch of images of one size without features, for comparison."""

    def __call__(self, images: Tensor, activation: Tensor) -> Labelling:
        """Label all pixels.

        Args:
            images: RGB images from 0 to 255, (B, 3, H, W).
            activation: Activation of the classes by id, (B, K, H, W); -inf for a class that an image does not have.
        """


class Expander(Protocol):
    """Expands labels of some pixels of images to all, as an ``SVMExpander`` does."""

    def expand_batches(self, batches: Sequence[LabelledMaps]) -> list[Expansion]:
        """Expand labels; see :meth:`~torch_svm_seg.expansion.expander.SVMExpander.expand_batches`."""


class KnownImages(NamedTuple):
    """Images of one size with what is known about them, as labellers take them.

    Attributes:
        images: RGB 0..255, (B, 3, H, W).
        features: (B, C, h, w), floating point, on any grid; or several such maps, to be fused.
        known: Labels (B, H, W), 255 where there is none; or activation (B, K, H, W).
        certainty: Weight of each label in the loss, (B, H, W); 1 by default.
    """

    images: Tensor
    features: Tensor | Sequence[Tensor]
    known: Tensor
    certainty: Tensor | None = None


class SVMLabeller(nn.Module):
    """The expansion of true labels, few or many; with many, the paper's study of the upper bound (section 3.1).

    Args:
        expander: Trains and applies the SVMs.

    Examples:
        >>> images, features, labels = torch.zeros(1, 3, 8, 8), torch.rand(1, 4, 4, 4), torch.randint(0, 2, (1, 8, 8))
        >>> SVMLabeller(SVMExpander(samples_per_class=10))(images, features, labels).masks.shape
        torch.Size([1, 8, 8])
    """

    def __init__(self, expander: SVMExpander) -> None:
        super().__init__()
        self.expander = expander

    def forward(
        self,
        images: Tensor,
        features: Tensor | Sequence[Tensor],
        labels: Tensor,
        certainty: Tensor | None = None,
        expander: Expander | None = None,
    ) -> Labelling:
        """Expand the labels of a batch of images of one size.

        Args:
            images: RGB 0..255, (B, 3, H, W).
            features: (B, C, h, w), floating point, on any grid; or several such maps, to be fused.
            labels: Class ids (B, H, W), 255 where there is none.
            certainty: Weight of each label in the loss, (B, H, W); 1 by default.
            expander: What expands them in place of the labeller's own, such as one that knows other images.
        """
        return self.label_batches([KnownImages(images, features, labels, certainty)], expander)[0]

    def label_batches(self, batches: Sequence[KnownImages], expander: Expander | None = None) -> list[Labelling]:
        """Expand the labels of images of several sizes, all at once; see :meth:`forward`."""
        maps = [LabelledMaps(batch.features, batch.known, batch.certainty) for batch in batches]
        found = (expander or self.expander).expand_batches(maps)
        return [Labelling(one.masks, calibrated(one.scores, one.sample)) for one in found]

    def training_labels(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the labels of the pixels that may be trained on: all."""
        return labels


class FittedLabeller(nn.Module):
    """Labels all pixels by one SVM that is fitted to labelled pixels of other images.

    Args:
        expander: Has been fitted, or will be before images are labelled.

    Examples:
        >>> images, features, labels = torch.zeros(1, 3, 8, 8), torch.rand(1, 4, 4, 4), torch.randint(0, 2, (1, 8, 8))
        >>> labeller = FittedLabeller(SVMExpander(samples_per_class=10).fit(features, labels))
        >>> labeller(images, features, torch.full_like(labels, 255)).masks.shape
        torch.Size([1, 8, 8])
    """

    def __init__(self, expander: SVMExpander) -> None:
        super().__init__()
        self.expander = expander

    def forward(self, images: Tensor, features: Tensor | Sequence[Tensor], labels: Tensor) -> Labelling:
        """Label a batch of images of one size; see :class:`SVMLabeller`. Labels of these images are not used."""
        expansion: Expansion = self.expander.predict(features, (images.shape[2], images.shape[3]))
        return Labelling(expansion.masks, (self.expander.slope * expansion.scores).softmax(1))

    def label_batches(self, batches: Sequence[KnownImages]) -> list[Labelling]:
        """Label images of several sizes; see :meth:`forward`."""
        return [self(batch.images, batch.features, batch.known) for batch in batches]

    def training_labels(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the labels (B, H, W) that train an SVM on these images: 255 everywhere, as there is none."""
        return torch.full_like(labels, VOID)


class SeedLabeller(nn.Module):
    """The seed itself, which an expansion is compared with (:func:`seeds_of`).

    Examples:
        >>> SeedLabeller()(torch.zeros(1, 3, 4, 5), torch.rand(1, 2, 4, 5)).masks.shape
        torch.Size([1, 4, 5])
    """

    def forward(self, images: Tensor, activation: Tensor) -> Labelling:
        """Label the pixels by their activation (B, K, H, W); see :class:`Baseline`."""
        return Labelling(seeds_of(activation), as_probabilities(activation))


def as_probabilities(activation: Tensor) -> Tensor:
    """Return activation (B, K, H, W), -inf for absent classes, divided by its sum over the classes.

    Where nothing is active, all classes present are as likely.

    Examples:
        >>> as_probabilities(torch.tensor([3.0, 1.0, -torch.inf]).view(1, 3, 1, 1)).flatten().tolist()
        [0.75, 0.25, 0.0]
    """
    present = activation > -torch.inf
    positive = torch.where(present, activation.clamp_min(0), 0)
    silent = positive.sum(1, keepdim=True) == 0
    positive = torch.where(silent, present.to(positive), positive)
    return positive / positive.sum(1, keepdim=True)


def present_classes(activation: Tensor) -> Tensor:
    """Return the ids of the classes that an image has by its activation (K, H, W), -inf for the others; ascending.

    Examples:
        >>> present_classes(torch.tensor([0.0, -torch.inf, 0.5]).view(3, 1, 1)).tolist()
        [0, 2]
    """
    return (activation > -torch.inf).flatten(1).any(1).nonzero()[:, 0]


def label(probabilities: Tensor, seeds: Tensor | None = None) -> Labelling:
    """Label each pixel by its most likely class; classes that seeds have and masks would lose are restored.

    Args:
        probabilities: Of classes by id, (B, K, H, W).
        seeds: Class ids (B, H, W), and 255 where there is none.

    Examples:
        >>> label(torch.tensor([[[[0.9, 0.2]], [[0.1, 0.8]]]])).masks.tolist()
        [[[0, 1]]]
    """
    masks = probabilities.argmax(1)
    if seeds is None:
        return Labelling(masks, probabilities)
    restored = tuple(_restore(mask, seed) for mask, seed in zip(masks, seeds, strict=True))
    return Labelling(masks, probabilities, restored)


def _restore(mask: Tensor, seed: Tensor) -> int:
    """Restore the classes that a seed has and a mask lacks from their seed, in place; return how many."""
    number = 0
    # A seed that comes back can cover the last pixels of another class, whose own then comes back too.
    while (lost := torch.isin(seed, mask, invert=True) & (seed != VOID)).any():
        number += len(seed[lost].unique())
        mask[lost] = seed[lost]
    return number


def seeds_of(activation: Tensor) -> Tensor:
    """Return the class of the largest activation (B, K, H, W) at each pixel, (B, H, W); 255 where several are.

    Examples:
        >>> seeds_of(torch.tensor([[[[0.9, 0.5]], [[0.1, 0.5]]]])).tolist()
        [[[0, 255]]]
    """
    best = activation.topk(min(2, activation.shape[1]), dim=1)
    tied = (best.values[:, 0] == best.values[:, -1]) & (activation.shape[1] > 1)
    return torch.where(tied, VOID, best.indices[:, 0])
