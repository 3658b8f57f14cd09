"""The few labels of one image together with the labels of all images.

Two clicks on a cat do not tell which of hundreds of channels vary inside of a cat and which ones end at its border; the
clicks on all other cats do. So each image gets a least-squares classifier of its own, fitted to its own labels and to
those of all images, which class by class weigh three times as much, however many they are. Only the classes that the
image is labelled with take part, so that a cat is told from the ground beneath it, not from all dogs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import PathLike
from torch_svm_seg.expansion.expander import Expansion, LabelledMaps
from torch_svm_seg.expansion.interpolation import feature_maps, read_pixels
from torch_svm_seg.expansion.sampling import PixelSample, sample_pixels
from torch_svm_seg.pixel_classifier.classifier import SLOPE, PixelClassifier, join_maps, load_pixel_classifier
from torch_svm_seg.svm.least_squares import ClassMoments
from torch_svm_seg.tensors import full_precision, resize
from torch_svm_seg.training.checkpoints import read_checkpoint

MOMENTS = "moments"
"""Name of the moments in checkpoints."""

WEIGHT = 3.0
"""Weight of the labels of all images, of those of the image itself."""


def add_labelled(
    moments: ClassMoments,
    features: Tensor,
    labels: Tensor,
    per_class: int,
    seed: int = 0,
    certainty: Tensor | None = None,
) -> None:
    """Add an image's labelled pixels to moments.

    Args:
        moments: Moments of as many classes as there are, all ids being below.
        features: Features on any grid, (D, h, w).
        labels: Class ids (H, W), 255 where there is none.
        per_class: Pixels to draw from each class at most.
        seed: Seed of the choice.
        certainty: Weight of each label, (H, W); 1 by default.

    Examples:
        >>> moments = ClassMoments.zeros(num_classes=3, channels=5)
        >>> add_labelled(moments, torch.rand(5, 1, 2), torch.tensor([[0, 1, 255, 1]]), per_class=10)
        >>> moments.counts.tolist()
        [1.0, 2.0, 0.0]
    """
    sample = sample_pixels(labels[None], per_class, seed)
    pixels = read_pixels(features[None].float(), sample.positions, (labels.shape[0], labels.shape[1]))
    drawn = sample.classes >= 0
    weights = None if certainty is None else certainty.flatten()[sample.positions[drawn]]
    moments.add(pixels[drawn], sample.classes[drawn], weights)


class OtherImages:
    """Labels of all images, which each image is labelled with the help of.

    Args:
        classifier: Gives the features.
        moments: Moments of the labels of all images.
        ridge: See :meth:`~torch_svm_seg.svm.least_squares.ClassMoments.solve`.
        samples_per_class: Pixels to draw from each class of an image at most.
        seed: Seed of the choice.

    Examples:
        >>> from torch_svm_seg.backbones.builder import load_backbone
        >>> classifier = PixelClassifier(load_backbone("resnet18", "random"), ["F4"], num_classes=21)
        >>> image, labels = torch.rand(1, 3, 64, 96), torch.full((1, 64, 96), 255)
        >>> labels[0, 10], labels[0, 40] = 0, 1  # numbers of the classes 0 and 8
        >>> expander = OtherImages(classifier, ClassMoments.zeros(21, 256)).expander(torch.tensor([0, 8]))
        >>> expander(classifier.backbone.stages(image, ["F4"])["F4"], labels).scores.shape
        torch.Size([1, 2, 64, 96])
    """

    def __init__(
        self,
        classifier: PixelClassifier,
        moments: ClassMoments,
        ridge: float = 0.5,
        samples_per_class: int = 200,
        seed: int = 0,
    ) -> None:
        self.classifier, self.moments, self.ridge = classifier, moments, ridge
        self.samples_per_class, self.seed = samples_per_class, seed

    def expander(self, ids: Tensor) -> "PooledExpander":
        """Return what expands labels that number the classes of some ids, (K,)."""
        moments = ClassMoments(*(part[ids.cpu()] for part in self.moments))
        return PooledExpander(moments, self.ridge, self.samples_per_class, self.seed)


@dataclass(frozen=True)
class PooledExpander:
    """Labels an image's pixels by its own labels together with those of all images, in the place of its own SVM.

    Attributes:
        everywhere: Moments of the labels of all images, of the classes that may be labelled.
        ridge: See :class:`OtherImages`, as for the others.
        samples_per_class: Pixels to draw.
        seed: Seed of the choice.

    Examples:
        >>> features, labels = torch.rand(1, 8, 12, 16), torch.randint(0, 3, (1, 48, 64))
        >>> PooledExpander(ClassMoments.zeros(3, 8))(features, labels).masks.shape
        torch.Size([1, 48, 64])
    """

    everywhere: ClassMoments
    ridge: float = 0.5
    samples_per_class: int = 200
    seed: int = 0

    def __call__(self, features: Tensor | Sequence[Tensor], labels: Tensor, weights: Tensor | None = None) -> Expansion:
        """Expand the labels of a batch of images of one size.

        Args:
            features: See :class:`~torch_svm_seg.expansion.expander.SVMExpander`; those of the classifier's stages, in
                their order.
            labels: Class numbers (B, H, W); 255 where there is none.
            weights: Certainty of each label, (B, H, W); 1 by default.

        Returns:
            Scores as logits, which need no calibration, and masks; the sample is empty. An image that is labelled with
            one class alone has it everywhere.

        Raises:
            ValueError: An image has no labelled pixel.
        """
        joined = join_maps(feature_maps(features))
        sure: Sequence[Tensor | None] = [None] * len(labels) if weights is None else list(weights)
        scores = torch.stack([self._scores(*image) for image in zip(joined, labels, sure, strict=True)])
        none = torch.zeros(len(labels), 0, dtype=torch.long, device=scores.device)
        return Expansion(scores, scores.argmax(1), PixelSample(none, none))

    def expand_batches(self, batches: Sequence[LabelledMaps]) -> list[Expansion]:
        """Expand the labels of images of several sizes, one size after the other."""
        return [self(*batch) for batch in batches]

    def _scores(self, features: Tensor, labels: Tensor, certainty: Tensor | None) -> Tensor:
        """Return the scores (K, H, W) of an image from its features (D, h, w), its labels (H, W) and their weights."""
        own = ClassMoments.zeros(len(self.everywhere.counts), len(features))
        add_labelled(own, features, labels, self.samples_per_class, self.seed, certainty)
        present = own.counts > 0
        if not bool(present.any()):
            raise ValueError("labels: expected a labelled pixel of weight > 0 in every image, got none in one")
        decision = _pooled(own, self.everywhere, present).solve(self.ridge)
        with full_precision(features.device):
            planes = features.permute(1, 2, 0) @ decision.weight.to(features) + decision.intercept.to(features)
        scores = features.new_full((len(present), *labels.shape), -torch.inf)
        size = (labels.shape[0], labels.shape[1])
        scores[present.to(features.device)] = SLOPE * resize(planes.permute(2, 0, 1)[None], size)[0]
        return scores


def load_other_images(path: PathLike, class_names: Sequence[str]) -> OtherImages:
    """Load what ``train.py pixels`` fitted to points or scribbles.

    Args:
        path: Its checkpoint.
        class_names: The classes it must be of, background first.

    Raises:
        InputError: See :func:`~torch_svm_seg.pixel_classifier.classifier.load_pixel_classifier`; or the classifier was
            fitted to maps or seeds.

    Examples:
        >>> load_other_images("runs/pixels/checkpoint.pt", ("background", "cat"))  # doctest: +SKIP
    """
    classifier, checkpoint = load_pixel_classifier(path, class_names), read_checkpoint(path)
    moments, settings = checkpoint.state.get(MOMENTS), checkpoint.settings
    if not isinstance(moments, dict) or not isinstance(classifier, PixelClassifier):
        raise InputError(f"{path}: fitted to maps or seeds; expected one fitted to --points or --scribbles")
    try:
        parts = ClassMoments(*(moments[name].double() for name in ClassMoments._fields))
        parts.sums.view_as(classifier.weight.T)
        return OtherImages(classifier, parts, settings["ridge"], settings["samples_per_image"], settings["seed"])
    except (AttributeError, KeyError, RuntimeError) as error:
        raise InputError(f"{path}: not a checkpoint of train.py pixels (its moments)") from error


def _pooled(own: ClassMoments, everywhere: ClassMoments, present: Tensor) -> ClassMoments:
    """Return the moments of some classes, (K,) bool: an image's own, and in their proportion those of all images."""
    known = everywhere.counts > 0
    share = torch.where(known, WEIGHT * own.counts / torch.where(known, everywhere.counts, 1), 0)
    return ClassMoments(
        *(
            (mine + share.view(-1, *[1] * (mine.dim() - 1)) * theirs)[present]
            for mine, theirs in zip(own, everywhere, strict=True)
        )
    )
