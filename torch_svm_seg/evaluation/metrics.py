"""Intersection over union (IoU) the way PASCAL VOC scores segmentation.

One confusion matrix over the whole data set, not one per image. A pixel whose target is 255 (void) is left out. A
prediction of 255 ("unsure") at a labelled pixel is a miss of the true class and no other class's false positive, so
that staying undecided never pays. A class with an empty union, in neither targets nor predictions, has IoU NaN and is
left out of the mean.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from torch_svm_seg.data.constants import VOID

BYTES = 256


class SegmentationResult(NamedTuple):
    """Result of a confusion matrix, as fractions from 0 to 1.

    Attributes:
        per_class: IoU of each class, float64 (classes,) on the CPU; NaN where a class has an empty union.
        miou: Mean of the IoUs that are not NaN; NaN if there are none.
        pixel_accuracy: Share of the labelled pixels that are right; NaN if there are none.
    """

    per_class: Tensor
    miou: float
    pixel_accuracy: float


class SegmentationScore(Metric):
    """Mean IoU of a data set, gathered image by image or batch by batch.

    A torchmetrics metric: ``reset``, ``to``, ``forward``, ``MetricCollection`` and the sum over the processes of
    ``torch.distributed`` work as with any other.

    Examples:
        >>> score = SegmentationScore(num_classes=3)
        >>> score.update(torch.tensor([[0, 0, 1, 255]]), torch.tensor([[0, 1, 1, 255]]))
        >>> result = score.compute()
        >>> result.per_class
        tensor([0.5000, 0.5000,    nan], dtype=torch.float64)
        >>> result.miou
        0.5
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    confusion: Tensor

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        """Start from zero counts.

        Args:
            num_classes: Number of classes, background included, from 2 to 255.
            **kwargs: Keyword arguments of every torchmetrics ``Metric``, such as ``sync_on_compute``.

        Raises:
            ValueError: ``num_classes`` is out of range.
        """
        super().__init__(**kwargs)
        if not 2 <= num_classes <= VOID:
            raise ValueError(f"num_classes: expected 2 to {VOID}, got {num_classes}")
        self.num_classes = num_classes
        self.add_state("confusion", torch.zeros(num_classes, num_classes + 1, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Count the pixels of one image or of a batch; arguments and errors as in ``confusion_matrix``."""
        self.confusion += confusion_matrix(prediction, target, self.num_classes).to(self.confusion.device)

    def compute(self) -> SegmentationResult:
        """Return the IoU of each class, its mean, and the pixel accuracy over everything counted so far."""
        return summarize(self.confusion)


def confusion_matrix(prediction: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Count the labelled pixels by true and by predicted class.

    Args:
        prediction: Class ids of any integer dtype and shape; 255 stands for "unsure".
        target: Class ids of the same shape; 255 is void, not counted.
        num_classes: Number of classes, background included.

    Returns:
        Counts, int64 (num_classes, num_classes + 1): one row per true class, one column per predicted one, and
        "unsure" as the last column; on ``prediction``'s device.

    Raises:
        TypeError: An argument is not of an integer dtype.
        ValueError: The shapes differ, or an id is neither a class nor 255.

    Examples:
        >>> confusion_matrix(torch.tensor([0, 1, 255]), torch.tensor([0, 0, 1]), num_classes=2)
        tensor([[1, 1, 0],
                [0, 0, 1]])
    """
    if prediction.shape != target.shape:
        raise ValueError(
            f"prediction: expected the target's shape {tuple(target.shape)}, got {tuple(prediction.shape)}"
        )
    _check_ids("prediction", prediction, num_classes)
    _check_ids("target", target, num_classes)
    # All pairs of bytes are counted at once, void and "unsure" among them: several times faster than taking the
    # labelled pixels out first, and without the copy for each class that torchmetrics makes in deterministic mode.
    pairs = target.long().to(prediction.device) * BYTES + prediction.long()
    counts = torch.bincount(pairs.flatten(), minlength=BYTES * BYTES).view(BYTES, BYTES)[:num_classes]
    return torch.cat([counts[:, :num_classes], counts[:, VOID:]], dim=1)


def summarize(confusion: Tensor) -> SegmentationResult:
    """Return the IoUs of the counts of :func:`confusion_matrix`, summed over a data set.

    Args:
        confusion: Counts, int64 (classes, classes + 1), true classes down, predicted classes and "unsure" across.

    Examples:
        >>> summarize(torch.tensor([[2, 1, 1], [0, 4, 0]])).per_class
        tensor([0.5000, 0.8000], dtype=torch.float64)
    """
    confusion = confusion.cpu()  # a few hundred counts, and not every accelerator has float64
    hits = confusion.diagonal()
    labelled = confusion.sum(dim=1)
    union = labelled + confusion[:, :-1].sum(dim=0) - hits
    per_class = hits.double() / union.double()  # 0 / 0 is NaN: an empty union
    accuracy = hits.sum().double() / labelled.sum().double()
    return SegmentationResult(per_class, float(per_class.nanmean()), float(accuracy))


def _check_ids(name: str, ids: Tensor, num_classes: int) -> None:
    """Raise unless each id is a class or 255."""
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise TypeError(f"{name}: expected class ids of an integer dtype, got {ids.dtype}")
    ids = ids.long()
    strange = ids[((ids < 0) | (ids >= num_classes)) & (ids != VOID)]
    if strange.numel():
        raise ValueError(f"{name}: expected class ids 0 to {num_classes - 1} or {VOID}, got {int(strange[0])}")
