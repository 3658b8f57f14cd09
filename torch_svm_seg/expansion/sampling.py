"""Which pixels train an image's SVM, and with which labels."""

from typing import NamedTuple

import torch
from torch import Tensor

from torch_svm_seg.data.constants import VOID
from torch_svm_seg.svm.arguments import check_count, check_seed
from torch_svm_seg.tensors import hash_integers


class PixelSample(NamedTuple):
    """Sampled pixels of a batch of images.

    Attributes:
        positions: Flat pixel positions y * W + x, (B, N).
        classes: Their class ids, (B, N); -1 is padding.

    Examples:
        >>> PixelSample(torch.tensor([[0, 3]]), torch.tensor([[7, -1]])).as_labels(2, 2).tolist()
        [[[7, 255], [255, 255]]]
    """

    positions: Tensor
    classes: Tensor

    def as_labels(self, height: int, width: int) -> Tensor:
        """Return the class ids of the sampled pixels, 255 elsewhere, (B, H, W)."""
        padding = height * width  # one pixel more than there are takes all of it
        labels = self.classes.new_full((len(self.classes), padding + 1), VOID)
        positions = torch.where(self.classes >= 0, self.positions, padding)
        return labels.scatter(1, positions, self.classes)[:, :padding].view(-1, height, width)


def sample_pixels(labels: Tensor, per_class: int = 2500, seed: int = 0) -> PixelSample:
    """Draw uniform random pixels of every class in each image, without replacement (the paper's section 3.1).

    A class with fewer pixels than ``per_class`` gives all of them. Pixels are drawn in the order of a hash of the seed
    and their coordinates: the choice does not depend on the batch, its padding, the order of images or the device.

    Args:
        labels: Class ids (B, H, W), integer; 255 is void and never drawn.
        per_class: Pixels to draw from each class, n in the paper.
        seed: Seed of the choice.

    Raises:
        ValueError: If ``labels`` is not (B, H, W) of integers or ``per_class`` is not an integer of at least 1.

    Examples:
        >>> sample = sample_pixels(torch.randint(0, 3, (2, 48, 64)), per_class=100)
        >>> tuple(sample.positions.shape), tuple(sample.classes.shape)
        ((2, 300), (2, 300))
    """
    if labels.dim() != 3 or labels.dtype.is_floating_point:
        raise ValueError(f"labels: expected integer (B, H, W), got {labels.dtype} {tuple(labels.shape)}")
    check_count("per_class", per_class)
    check_seed(seed)
    height, width = labels.shape[1:]
    order = _order(seed, height, width, labels.device)
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


def confident_labels(scores: Tensor, share: float = 0.7, regions: Tensor | None = None) -> Tensor:
    """Return the labels of the pixels whose score leads the most, the same share of each class's region.

    A rule by rank in each image and region, rather than by a threshold, needs no ground truth to be set, and leaves
    every class that has a region at least one pixel.

    Args:
        scores: Scores of classes by id, (B, K, H, W); -inf for a class that an image does not have.
        share: Share of each region's pixels to keep, > 0 to 1. Pixels that lead alike are kept in the order of a
            hash of their coordinates.
        regions: Class ids (B, H, W), 255 where no pixel is to be kept; by default those of the best scores. A pixel
            leads by how much the score of its region's class exceeds the best other one: less than 0 where the scores
            disagree with the regions.

    Returns:
        Class ids (B, H, W), and 255 where not confident.

    Raises:
        ValueError: If shapes or types are not as above or ``share`` is not in (0, 1].

    Examples:
        >>> scores = torch.tensor([[[[0.9, 0.6, 0.2, 0.1]], [[0.1, 0.4, 0.8, 0.9]]]])
        >>> confident_labels(scores, share=0.5).tolist()
        [[[0, 255, 255, 1]]]
    """
    if scores.dim() != 4 or not scores.dtype.is_floating_point:
        raise ValueError(f"scores: expected floating point (B, K, H, W), got {scores.dtype} {tuple(scores.shape)}")
    if not 0 < share <= 1:
        raise ValueError(f"share: expected more than 0 and at most 1, got {share}")
    regions = scores.argmax(1) if regions is None else regions.long()
    if regions.shape != scores[:, 0].shape:
        raise ValueError(f"regions: expected {tuple(scores[:, 0].shape)} as scores, got {tuple(regions.shape)}")
    unknown = regions[(regions < 0) | ((regions >= scores.shape[1]) & (regions != VOID))].unique().tolist()
    if unknown:
        raise ValueError(f"regions: expected class ids below {scores.shape[1]} or {VOID}, got {unknown}")
    height, width = regions.shape[1:]
    shuffled = _order(0, height, width, scores.device).argsort()
    by_lead = _leads(scores, regions).flatten(1)[:, shuffled].argsort(dim=1, descending=True, stable=True)
    by_lead, flat = shuffled[by_lead], regions.flatten(1)
    # Sorted by region, and inside a region by the lead: the first share of each run is confident.
    grouped = by_lead.gather(1, flat.gather(1, by_lead).argsort(dim=1, stable=True))
    classes = flat.gather(1, grouped)
    starts, ends = torch.searchsorted(classes, classes), torch.searchsorted(classes, classes, right=True)
    rank = torch.arange(classes.shape[1], device=classes.device) - starts
    labels = torch.where(rank < (share * (ends - starts)).ceil(), classes, VOID)
    return labels.scatter(1, grouped, labels).view(-1, height, width)


def _leads(scores: Tensor, regions: Tensor) -> Tensor:
    """Return how much the score of each pixel's class exceeds the best other one, (B, H, W)."""
    index = torch.where(regions == VOID, 0, regions)[:, None]
    own = scores.gather(1, index)
    others = scores.scatter(1, index, -torch.inf).amax(1)
    return (own[:, 0] - others).nan_to_num(nan=-torch.inf)  # nan: a region of a class that is absent


def _order(seed: int, height: int, width: int, device: torch.device) -> Tensor:
    """Return a hash of the seed and of each pixel's coordinates, (H * W,): sorted by it, pixels are in random order."""
    rows, columns = torch.arange(height, device=device)[:, None], torch.arange(width, device=device)
    return hash_integers(seed, rows, columns).flatten()
