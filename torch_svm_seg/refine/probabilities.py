"""Class probabilities: from labels, and checked before refinement."""

import warnings

import torch
from torch import Tensor

from torch_svm_seg.data.constants import VOID


def checked(images: Tensor, probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """Return images (B, 3, H, W) and probabilities (B, K, H, W) in one precision, if they are fit for refinement.

    Raises:
        ValueError: Shapes do not match or values are out of range.

    Examples:
        >>> checked(torch.zeros(1, 3, 4, 5, dtype=torch.uint8), torch.rand(1, 2, 4, 5))[0].dtype
        torch.float32
    """
    if probabilities.dim() != 4 or not probabilities.dtype.is_floating_point or 0 in probabilities.shape:
        shape = tuple(probabilities.shape)
        raise ValueError(f"probabilities: expected floating point (B, K, H, W), got {probabilities.dtype} {shape}")
    expected = (probabilities.shape[0], 3, *probabilities.shape[2:])
    if images.shape != expected:
        raise ValueError(f"images: expected {expected} to match probabilities, got {tuple(images.shape)}")
    if not bool(probabilities.isfinite().all()):
        raise ValueError("probabilities: expected finite values, got nan or inf")
    if bool((probabilities < 0).any()):
        raise ValueError(f"probabilities: expected values >= 0, got {float(probabilities.min()):.3g}")
    if probabilities.dtype != torch.float64:
        probabilities = probabilities.float()
    images = images.detach().to(probabilities.dtype)
    if not bool(((images >= 0) & (images <= 255)).all()):
        least, most = float(images.min()), float(images.max())
        raise ValueError(f"images: expected RGB from 0 to 255, got values from {least:.3g} to {most:.3g}")
    if 0 < float(images.max()) <= 1:
        warnings.warn("images: expected RGB from 0 to 255, got none above 1; were they scaled to 0..1?", stacklevel=4)
    return images, probabilities


def label_probabilities(labels: Tensor, number: int, confidence: float = 0.7, present: Tensor | None = None) -> Tensor:
    """Return probabilities that trust labels to a degree, as pydensecrf's ``unary_from_labels`` does.

    Args:
        labels: Class ids from 0 to number - 1, and 255 where nothing is known, (B, H, W).
        number: Number of classes, K.
        confidence: Probability of a label, > 0 and < 1; the other classes present share the rest. IRN's is 0.7.
        present: The classes of each image, those of its labels among them, bool (B, K); by default all.

    Returns:
        (B, K, H, W), summing to 1 over K; 0 for absent classes, equal for all others where nothing is known, and 1 for
        a single class.

    Raises:
        ValueError: Values are out of range.

    Examples:
        >>> label_probabilities(torch.tensor([[[0, 1, 255]]]), 2)[0, :, 0]
        tensor([[0.7000, 0.3000, 0.5000],
                [0.3000, 0.7000, 0.5000]])
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
