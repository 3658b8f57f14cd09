"""Slopes that make probabilities of an SVM's scores.

That is Platt's calibration (1999) with one parameter and no offset, so that the largest score stays the most likely.
"""

import torch
from torch import Tensor

_HALVINGS = 24


def likeliest_slopes(scores: Tensor, classes: Tensor, largest: float, weights: Tensor | None = None) -> Tensor:
    """Return the slope of each image at which the softmax of its scores makes the classes of samples the most likely.

    The likelihood is concave in the slope, whose logarithm is found by bisection.

    Args:
        scores: Decision values of classes by id for each sample, (B, K, N); -inf for a class that an image does not
            have.
        classes: Class ids of the samples, (B, N); -1 is padding.
        largest: The largest slope there may be; its inverse is the smallest.
        weights: Weights >= 0 of the samples, (B, N); all alike by default.

    Returns:
        The slopes, (B,); 1 for an image without any sample.

    Examples:
        >>> scores, classes = torch.tensor([[[2.0, -2.0, 2.0], [0.0, 0.0, 0.0]]]), torch.tensor([[0, 1, 1]])
        >>> likeliest_slopes(scores, classes, largest=10.0).round(decimals=3)  # log(2) / 2
        tensor([0.3470])
    """
    known = classes >= 0
    # 0 * -inf is nan: an absent class's score is made finite, and far enough below the others to stay impossible.
    values = torch.where(scores > -torch.inf, scores, -1e4).double()
    right = values.gather(1, classes.clamp_min(0)[:, None])[:, 0]
    shares = known.double() if weights is None else known * weights.double()
    upper = values.new_full((len(values),), largest).log()
    lower = -upper
    for _ in range(_HALVINGS):
        middle = (lower + upper) / 2
        expected = ((middle.exp()[:, None, None] * values).softmax(1) * values).sum(1)
        too_flat = ((right - expected) * shares).sum(1) > 0
        lower, upper = torch.where(too_flat, middle, lower), torch.where(too_flat, upper, middle)
    return torch.where(known.any(1), ((lower + upper) / 2).exp(), 1.0).to(scores)
