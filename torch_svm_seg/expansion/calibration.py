"""Probabilities from the scores of SVMs."""

import torch
from torch import Tensor

from torch_svm_seg.data.constants import VOID
from torch_svm_seg.expansion.sampling import PixelSample, sample_pixels

# A hinge loss puts scores on the scale of its margin, 1: slopes beyond these bounds have nothing to do with it.
_SMALLEST, _LARGEST = 0.1, 10.0
_HALVINGS = 20
_PIXELS_PER_CLASS = 500


def calibrated(scores: Tensor, sample: PixelSample) -> Tensor:
    """Return the softmax of the scores times a slope, in each image the one that makes a sample's classes most likely.

    That is Platt's calibration (1999) with one parameter per image and no offset, so that the mask stays what it is.
    The likelihood is concave in the slope, whose logarithm is found by bisection between 0.1 and 10.

    Args:
        scores: Decision values of classes by id, (B, K, H, W); -inf for a class that an image does not have.
        sample: Pixels of known class, best others than those the SVM was trained on. An image without any gets slope 1.

    Returns:
        Probabilities (B, K, H, W); 0 for absent classes.

    Example:
        >>> scores = torch.tensor([[[[2.0, -1.0]], [[-2.0, 1.0]]]])
        >>> sample = PixelSample(torch.tensor([[0, 1]]), torch.tensor([[0, 1]]))
        >>> calibrated(scores, sample).shape
        torch.Size([1, 2, 1, 2])
    """
    read = scores.flatten(2).gather(2, sample.positions[:, None].expand(-1, scores.shape[1], -1))
    return (likeliest_slopes(read, sample.classes)[:, None, None, None] * scores).softmax(1)


def likeliest_slopes(scores: Tensor, classes: Tensor) -> Tensor:
    """Return the slope of each image that makes the classes of pixels the most likely, see :func:`calibrated`, (B,).

    Args:
        scores: Decision values of classes by id at each pixel, (B, K, N); -inf for a class that an image does not have.
        classes: Class ids of the pixels, (B, N); -1 is padding.

    Example:
        >>> likeliest_slopes(torch.tensor([[[2.0, -2.0], [0.0, 0.0]]]), torch.tensor([[0, 1]])).round(decimals=2)
        tensor([10.])
    """
    known = classes >= 0
    # 0 * -inf is nan: an absent class's score is made finite, and far enough below the others to stay impossible.
    values = torch.where(scores > -torch.inf, scores, -1e4).double()
    right = values.gather(1, classes.clamp_min(0)[:, None])[:, 0]
    lower = values.new_full((len(values),), _SMALLEST).log()
    upper = torch.full_like(lower, _LARGEST).log()
    for _ in range(_HALVINGS):
        middle = (lower + upper) / 2
        expected = ((middle.exp()[:, None, None] * values).softmax(1) * values).sum(1)
        too_flat = ((right - expected) * known).sum(1) > 0
        lower, upper = torch.where(too_flat, middle, lower), torch.where(too_flat, upper, middle)
    return torch.where(known.any(1), ((lower + upper) / 2).exp(), 1.0).to(scores)


def held_out(labels: Tensor, sample: PixelSample, seed: int) -> PixelSample:
    """Return labelled pixels that a sample left over, at most 500 per class; the sample itself where it left none.

    Args:
        labels: Class ids (B, H, W) that the sample was drawn from; 255 is no label.
        sample: Pixels that trained an SVM.
        seed: Seed of the choice.

    Example:
        >>> labels = torch.tensor([[[0, 0, 0, 1]]])
        >>> held_out(labels, PixelSample(torch.tensor([[0, 3]]), torch.tensor([[0, 1]])), seed=0).classes
        tensor([[0, 0]])
    """
    drawn = sample.classes >= 0
    flat = labels.flatten(1).long()
    # Padding names some pixel: it takes that pixel's own label along.
    left = flat.scatter(1, sample.positions, torch.where(drawn, VOID, flat.gather(1, sample.positions)))
    emptied = (left == VOID).all(1, keepdim=True)
    return sample_pixels(torch.where(emptied, flat, left).view_as(labels), _PIXELS_PER_CLASS, seed)
