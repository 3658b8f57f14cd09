"""Fitting a pixel classifier to what class activation maps are confident of, in rounds of self-training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torch_svm_seg.data.constants import VOID
from torch_svm_seg.expansion.sampling import confident_labels
from torch_svm_seg.pixel_classifier.classifier import PixelClassifier, PixelModel, posterior_of, prior_on_grid
from torch_svm_seg.svm.least_squares import ClassMoments
from torch_svm_seg.tensors import hash_integers
from torch_svm_seg.training.distributed import sum_over_processes


@dataclass(frozen=True)
class GridSamples:
    """Cells drawn from the grid of an image.

    Attributes:
        features: Their features, half precision on the CPU, (n, D).
        prior: Probabilities of the image's classes before any classifier, half precision, (n, classes).
        classes: Ids of these classes, the background's 0 first.
    """

    features: Tensor
    prior: Tensor
    classes: tuple[int, ...]

    def posterior(self, classifier: PixelClassifier) -> Tensor:
        """Return the classes' probabilities by a classifier, on the CPU, (n, classes)."""
        features, prior = (values.float().to(classifier.device) for values in (self.features, self.prior))
        return posterior_of(classifier.logits(features, self.classes), prior).cpu()


def draw_samples(
    classifier: PixelModel,
    image: Tensor,
    activation: Tensor,
    classes: Sequence[int],
    number: int,
    seed: int = 0,
) -> GridSamples:
    """Draw cells of an image, all of them where there are no more.

    Args:
        classifier: Gives the features.
        image: RGB image from 0 to 255, (3, H, W).
        activation: Activation of the image's classes, (n, H, W).
        classes: Their ids, the background's 0 first.
        number: Cells to draw.
        seed: Seed of the choice.

    Examples:
        >>> from torch_svm_seg.backbones.builder import load_backbone
        >>> classifier = PixelClassifier(load_backbone("resnet18", "random"), ["F4"], num_classes=3)
        >>> samples = draw_samples(classifier, torch.zeros(3, 64, 96), torch.rand(2, 64, 96), [0, 2], number=10)
        >>> samples.features.shape, samples.prior.shape
        (torch.Size([10, 256]), torch.Size([10, 2]))
    """
    features = classifier.features(image)
    prior = prior_on_grid(activation, (features.shape[0], features.shape[1])).flatten(0, 1)
    chosen = hash_integers(seed, torch.arange(len(prior))).argsort(stable=True)[:number]
    return GridSamples(features.flatten(0, 1).cpu()[chosen].half(), prior[chosen].half(), tuple(classes))


def fit_in_rounds(
    classifier: PixelClassifier,
    images: Sequence[GridSamples],
    rounds: int = 3,
    share: float = 0.7,
    ridge: float = 0.5,
    on_round: Callable[[int, float], object] = lambda round, changed: None,
) -> None:
    """Fit a classifier to the samples of this process's images, and to those of all other processes.

    In each round, the confident cells of every image train the classifier, which then changes the probabilities of all
    cells: those of its own times those of the activation maps, from which the first round starts.

    Args:
        classifier: Its decision function is replaced; what it was does not matter.
        images: Samples of each image.
        rounds: Number of rounds.
        share: Share of each image's and class's cells that train, those whose probability leads the most.
        ridge: See :meth:`~torch_svm_seg.svm.least_squares.ClassMoments.solve`.
        on_round: Called after each round with its number and the share of cells whose label it changed.

    Raises:
        ValueError: There are no samples at all.

    Examples:
        >>> from torch_svm_seg.backbones.builder import load_backbone
        >>> classifier = PixelClassifier(load_backbone("resnet18", "random"), ["F4"], num_classes=3)
        >>> samples = GridSamples(torch.rand(9, 256).half(), torch.rand(9, 2).half(), (0, 2))
        >>> fit_in_rounds(classifier, [samples], on_round=lambda round, changed: print(round))
        1
        2
        3
    """
    posteriors = [samples.prior.float() for samples in images]
    for round in range(1, rounds + 1):
        moments = ClassMoments.zeros(classifier.num_classes, classifier.channels)
        for samples, posterior in zip(images, posteriors, strict=True):
            labels = confident_cells(posterior, share)
            ids = torch.tensor(samples.classes)[labels[labels != VOID]]
            moments.add(samples.features[labels != VOID].float(), ids)
        moments = ClassMoments(*(sum_over_processes(sums) for sums in moments))
        classifier.set(moments.solve(ridge))
        found = [samples.posterior(classifier) for samples in images]
        on_round(round, _changed(posteriors, found))
        posteriors = found


def confident_cells(posterior: Tensor, share: float) -> Tensor:
    """Return the most likely class (n,) of the share of each class's cells that lead the most; 255 for the others.

    Args:
        posterior: Probabilities (n, classes); a cell of which all are 0 is never confident.
        share: Share of cells to keep, more than 0 to 1.

    Examples:
        >>> confident_cells(torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.0, 0.0]]), share=0.5).tolist()
        [0, 255, 255]
    """
    scores = torch.where(posterior > 0, posterior, -torch.inf)
    some = posterior.sum(1) > 0
    regions = torch.where(some, posterior.argmax(1), VOID)
    return confident_labels(scores.mT[None, :, None], share, regions[None, None])[0, 0]


def _changed(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """Return the share of cells, over all processes, whose most likely class is another."""
    counts = torch.zeros(2, dtype=torch.float64)
    for old, new in zip(before, after, strict=True):
        counts += torch.tensor([float((old.argmax(1) != new.argmax(1)).sum()), float(len(old))], dtype=torch.float64)
    changed, total = sum_over_processes(counts)
    return float(changed / total.clamp_min(1))
