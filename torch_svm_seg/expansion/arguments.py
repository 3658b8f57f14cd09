"""Checks of what an expander is given."""

import torch
from torch import Tensor

from torch_svm_seg.data.constants import VOID


def check_maps(maps: list[Tensor]) -> None:
    """Raise ValueError unless the maps are finite, (B, C, h, w), with one B."""
    if not maps:
        raise ValueError("features: expected at least one map, got none")
    shapes = [tuple(features.shape) for features in maps]
    floating = all(features.dtype.is_floating_point for features in maps)
    if not floating or any(len(shape) != 4 or 0 in shape or shape[0] != shapes[0][0] for shape in shapes):
        raise ValueError(
            "features: expected, with one B, floating point (B, C, h, w), got "
            + ", ".join(f"{found.dtype} {tuple(found.shape)}" for found in maps)
        )
    finite = torch.stack([features.isfinite().flatten(1).all(1) for features in maps]).all(0)
    if not bool(finite.all()):
        raise ValueError(
            f"features: expected finite values, got nan or inf in image(s) {(~finite).nonzero()[:, 0].tolist()}"
        )


def check_labels(labels: Tensor, weights: Tensor | None, images: int, num_classes: int | None) -> None:
    """Check labels (B, H, W) and their weights.

    Args:
        labels: Class ids, 255 where there is none.
        weights: Weight of each label.
        images: Number of images, B.
        num_classes: Number of classes; None for any.

    Raises:
        ValueError: They are not as ``SVMExpander.forward`` documents them.
    """
    if labels.dim() != 3 or labels.dtype.is_floating_point or len(labels) != images:
        raise ValueError(
            f"labels: expected integer (B, H, W) with B = {images}, got {labels.dtype} {tuple(labels.shape)}"
        )
    if weights is not None:
        if weights.shape != labels.shape:
            raise ValueError(f"weights: expected {tuple(labels.shape)} as labels, got {tuple(weights.shape)}")
        if not bool((weights.isfinite() & (weights >= 0)).all()):
            raise ValueError("weights: expected finite weights >= 0, got a negative or non-finite one")
    wrong = labels[(labels < 0) | (labels > VOID if num_classes is None else labels >= num_classes)]
    wrong = wrong[wrong != VOID].unique().tolist()
    if wrong:
        raise ValueError(f"labels: expected class ids below {num_classes or VOID} or {VOID}, got {wrong}")
    check_labelled(labels)


def check_labelled(labels: Tensor) -> None:
    """Raise ValueError unless every image has a label other than 255."""
    unlabelled = (labels == VOID).flatten(1).all(1)
    if bool(unlabelled.any()):
        images = unlabelled.nonzero()[:, 0].tolist()
        raise ValueError(f"labels: expected a labelled pixel of weight > 0 in every image, got none in {images}")
