"""Which pixels train an image's SVM."""

from typing import NamedTuple

import torch
from torch import Tensor

from torch_svm_seg.tensors import hash_integers

# The id of pixels without a label, such as the borders of VOC's objects: never trained on, never scored.
VOID = 255


class PixelSample(NamedTuple):
    """Sampled pixels of a batch of images.

    Attributes:
        positions: Flat pixel positions y * W + x, (B, N).
        classes: Their class ids, (B, N); -1 is padding.
    """

    positions: Tensor
    classes: Tensor


def sample_pixels(labels: Tensor, per_class: int = 2500, seed: int = 0) -> PixelSample:
    """Uniform random pixels of every class in each image, without replacement (the paper's section 3.1).

    A class with fewer pixels than ``per_class`` gives all of them. Pixels are drawn in the order of a hash of the seed
    and their coordinates: the choice does not depend on the batch, its padding, the order of images or the device.

    Args:
        labels: Class ids (B, H, W), integer; 255 is void and never drawn.
        per_class: Pixels to draw from each class, n in the paper.
        seed: Of the choice.

    Raises:
        ValueError: If ``labels`` is not (B, H, W) of integers or ``per_class`` is less than 1.
    """
    if labels.dim() != 3 or labels.dtype.is_floating_point:
        raise ValueError(f"labels: expected integer (B, H, W), got {labels.dtype} {tuple(labels.shape)}")
    if per_class < 1:
        raise ValueError(f"per_class: expected at least 1, got {per_class}")
    height, width = labels.shape[1:]
    rows = torch.arange(height, device=labels.device)[:, None]
    columns = torch.arange(width, device=labels.device)
    order = hash_integers(seed, rows, columns).flatten()
    flat = labels.flatten(1).long()
    # Sorted by class, and inside a class by the hash: the first of each run are the sample.
    grouped = (flat * 2**32 + order).argsort(dim=1)
    classes = flat.gather(1, grouped)
    starts = torch.searchsorted(classes, classes)
    drawn = (torch.arange(height * width, device=labels.device) - starts < per_class) & (classes != VOID)
    count = max(int(drawn.sum(1).max()), 1)
    first = (~drawn).to(torch.uint8).argsort(dim=1, stable=True)[:, :count]
    classes = torch.where(drawn, classes, -1).gather(1, first)
    return PixelSample(grouped.gather(1, first), classes)
