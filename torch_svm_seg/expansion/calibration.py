"""Probabilities from the scores of SVMs."""

import torch
from torch import Tensor

from torch_svm_seg.data.constants import VOID
from torch_svm_seg.expansion.sampling import PixelSample, sample_pixels
from torch_svm_seg.svm.slopes import likeliest_slopes

# A hinge loss puts scores on the scale of its margin, 1: a slope far from that has nothing to do with it.
LARGEST_SLOPE = 10.0
_PIXELS_PER_CLASS = 500


def calibrated(scores: Tensor, sample: PixelSample) -> Tensor:
    """Return the softmax of the scores times a slope, in each image the one that makes a sample's classes most likely.

    That is Platt's calibration (1999) with one parameter per image and no offset, so that the mask stays what it is.
    Slopes are found between 0.1 and 10 (``torch_svm_seg.svm.slopes``).

    Args:
        scores: Decision values of classes by id, (B, K, H, W); -inf for a class that an image does not have.
        sample: Pixels of known class, best others than those the SVM was trained on. An image without any gets slope 1.

    Returns:
        Probabilities (B, K, H, W); 0 for absent classes.

    Examples:
        >>> scores = torch.tensor([[[[2.0, -1.0]], [[-2.0, 1.0]]]])
        >>> sample = PixelSample(torch.tensor([[0, 1]]), torch.tensor([[0, 1]]))
        >>> calibrated(scores, sample).shape
        torch.Size([1, 2, 1, 2])
    """
    read = scores.flatten(2).gather(2, sample.positions[:, None].expand(-1, scores.shape[1], -1))
    slopes = likeliest_slopes(read, sample.classes, LARGEST_SLOPE)
    return (slopes[:, None, None, None] * scores).softmax(1)


def held_out(labels: Tensor, sample: PixelSample, seed: int) -> PixelSample:
    """Return labelled pixels that a sample left over, at most 500 per class; the sample itself where it left none.

    Args:
        labels: Class ids (B, H, W) that the sample was drawn from; 255 is no label.
        sample: Pixels that trained an SVM.
        seed: Seed of the choice.

    Returns:
        Pixels and their labels, (B, n) each; no fewer than one for an image with a label.

    Examples:
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
