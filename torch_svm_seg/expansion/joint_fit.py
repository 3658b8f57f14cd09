"""SVMs of images of several sizes, fitted all at once: a fit knows nothing of sizes."""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import NamedTuple

import torch
from torch import Tensor

from torch_svm_seg.expansion.interpolation import read_pixels
from torch_svm_seg.expansion.pixel_samples import PixelProducts, pixel_products
from torch_svm_seg.expansion.sampling import PixelSample
from torch_svm_seg.svm.decisions import DecisionFunction
from torch_svm_seg.svm.svm import SVM
from torch_svm_seg.tensors import padded


class TrainingBatch(NamedTuple):
    """Images of one size with the pixels that train their SVMs.

    Attributes:
        maps: Normalised feature maps, (B, C_j, h_j, w_j).
        sample: The pixels.
        weights: Their weights in the loss, (B, N); None where all weigh 1.
        size: Size (H, W) of the images.
    """

    maps: list[Tensor]
    sample: PixelSample
    weights: Tensor | None
    size: tuple[int, int]


class FittedBatch(NamedTuple):
    """The SVMs of a batch.

    Attributes:
        decision: Their decision function.
        classes: Class ids of its scores, ascending, (K,).
    """

    decision: DecisionFunction
    classes: Tensor


def alike(batches: Sequence[TrainingBatch]) -> list[TrainingBatch]:
    """Return batches in the highest of their precisions, found to be of the same channels.

    Raises:
        ValueError: Their channels differ.

    Examples:
        >>> sample = PixelSample(torch.tensor([[0, 15]]), torch.tensor([[0, 1]]))
        >>> maps = [torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4).double()]
        >>> [batch.maps[0].dtype for batch in alike([TrainingBatch([one], sample, None, (4, 4)) for one in maps])]
        [torch.float64, torch.float64]
    """
    channels = sorted({tuple(one.shape[1] for one in batch.maps) for batch in batches})
    if len(channels) > 1:
        raise ValueError(f"batches: expected maps of the same channels in all, got {channels}")
    dtype = reduce(torch.promote_types, (batch.maps[0].dtype for batch in batches))
    return [batch._replace(maps=[one.to(dtype) for one in batch.maps]) for batch in batches]


def fit_together(svm: SVM, batches: Sequence[TrainingBatch]) -> list[FittedBatch]:
    """Fit an SVM of its own to each image of all batches, in one fit.

    Args:
        svm: An SVM that is not fitted.
        batches: Batches of one size each, whose maps are :func:`alike`.

    Examples:
        >>> def batch(side):
        ...     sample = PixelSample(torch.tensor([[0, side * side - 1]]), torch.tensor([[0, 1]]))
        ...     return TrainingBatch([torch.rand(1, 3, 4, 4)], sample, None, (side, side))
        >>> [fitted.classes.tolist() for fitted in fit_together(SVM(), [batch(8), batch(12)])]
        [[0, 1], [0, 1]]
    """
    number = max(batch.sample.classes.shape[1] for batch in batches)
    x = torch.cat([padded(read_pixels(batch.maps, batch.sample.positions, batch.size), number) for batch in batches])
    classes = torch.cat([padded(batch.sample.classes, number, -1) for batch in batches])
    weights = None
    if any(batch.weights is not None for batch in batches):
        weights = torch.cat([padded(_weights(batch), number) for batch in batches])
    svm.fit(x, classes, weights, _products(batches))
    if len(batches) == 1:
        return [FittedBatch(svm.decision, svm.classes_)]
    ends = torch.tensor([len(batch.sample.classes) for batch in batches]).cumsum(0).tolist()
    starts = [0, *ends[:-1]]
    return [_part(svm, batch, slice(start, end)) for batch, start, end in zip(batches, starts, ends, strict=True)]


def _part(svm: SVM, batch: TrainingBatch, images: slice) -> FittedBatch:
    """Return the SVMs of a batch, of the classes that any of its own images has."""
    own = torch.isin(svm.classes_, batch.sample.classes).nonzero()[:, 0]
    return FittedBatch(svm.decision.select(images, own), svm.classes_[own])


def _weights(batch: TrainingBatch) -> Tensor:
    return torch.ones_like(batch.sample.classes, dtype=batch.maps[0].dtype) if batch.weights is None else batch.weights


def _products(batches: Sequence[TrainingBatch]) -> Callable[[], PixelProducts] | None:
    """Return a function that makes the products of all pixels; None where it would save no time for some."""
    makers = [pixel_products(batch.maps, batch.sample.positions, batch.size) for batch in batches]
    known = [make for make in makers if make is not None]
    return partial(_joined, known) if len(known) == len(makers) else None


def _joined(makers: Sequence[Callable[[], PixelProducts]]) -> PixelProducts:
    return makers[0]() if len(makers) == 1 else PixelProducts.joined([make() for make in makers])
