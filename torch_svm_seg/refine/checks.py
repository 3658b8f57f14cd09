"""Checks of what refinement is given."""

import warnings

import torch
from torch import Tensor


def checked(image: Tensor, probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """An image (B, 3, H, W) and probabilities (B, K, H, W), found to be fit for refinement, in the same precision.

    Raises:
        ValueError: Naming the argument, what was expected and what came.
    """
    if probabilities.dim() != 4 or not probabilities.dtype.is_floating_point or 0 in probabilities.shape:
        shape = tuple(probabilities.shape)
        raise ValueError(f"probabilities: expected floating point (B, K, H, W), got {probabilities.dtype} {shape}")
    expected = (probabilities.shape[0], 3, *probabilities.shape[2:])
    if image.shape != expected:
        raise ValueError(f"image: expected {expected} to match probabilities, got {tuple(image.shape)}")
    if not bool(probabilities.isfinite().all()):
        raise ValueError("probabilities: expected finite values, got nan or inf")
    if bool((probabilities < 0).any()):
        raise ValueError(f"probabilities: expected values >= 0, got {float(probabilities.min()):.3g}")
    if probabilities.dtype != torch.float64:
        probabilities = probabilities.float()
    image = image.detach().to(probabilities.dtype)
    if not bool(((image >= 0) & (image <= 255)).all()):
        least, most = float(image.min()), float(image.max())
        raise ValueError(f"image: expected RGB from 0 to 255, got values from {least:.3g} to {most:.3g}")
    if 0 < float(image.max()) <= 1:
        warnings.warn("image: expected RGB from 0 to 255, got none above 1; was it scaled to 0..1?", stacklevel=4)
    return image, probabilities
