"""Probabilities from hard labels."""

import torch
from torch import Tensor

from torch_svm_seg.sampling import VOID


def label_probabilities(labels: Tensor, number: int, confidence: float = 0.7, present: Tensor | None = None) -> Tensor:
    """Probabilities that trust labels to a degree, as in pydensecrf's ``unary_from_labels``.

    Args:
        labels: Class ids from 0 to number - 1, and 255 where nothing is known, (B, H, W).
        number: K, of classes.
        confidence: Probability of a label, > 0 and < 1; the other classes present share the rest. IRN's is 0.7.
        present: Which classes each image has, those of its labels among them, (B, K) of bool; by default all.

    Returns:
        (B, K, H, W), summing to 1 over K; 0 for absent classes, equal for all others where nothing is known, and 1 for
        a single class.

    Raises:
        ValueError: Naming the argument, where values are not as above.
    """
    if labels.dim() != 3 or labels.dtype.is_floating_point:
        raise ValueError(f"labels: expected integers (B, H, W), got {labels.dtype} {tuple(labels.shape)}")
    if not 1 <= number <= VOID:
        raise ValueError(f"number: expected 1 to {VOID} classes, got {number}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a number > 0 and < 1, got {confidence}")
    labels = labels[:, None].long()
    unsure = labels == VOID
    unknown = labels[((labels < 0) | (labels >= number)) & ~unsure].unique().tolist()
    if unknown:
        raise ValueError(f"labels: expected 0 to {number - 1} or {VOID}, got {unknown}")
    present = labels.new_ones(len(labels), number) if present is None else present
    present = present.float()[:, :, None, None]
    count = present.sum(1, keepdim=True)
    classes = torch.arange(number, device=labels.device)[:, None, None]
    probabilities = torch.where(labels == classes, confidence, (1 - confidence) / (count - 1).clamp_min(1))
    return present * torch.where(unsure | (count == 1), 1 / count, probabilities)
