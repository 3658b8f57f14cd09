"""Pixel-adaptive refinement of masks by the colours of their neighbourhoods."""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torch_svm_seg.refine.probabilities import checked
from torch_svm_seg.svm.arguments import check_count
from torch_svm_seg.tensors import full_precision

DILATIONS = (1, 2, 4, 8, 12, 24)
RADIUS = max(DILATIONS)
RING = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1) if row or column]
OFFSETS = [(dilation * row, dilation * column) for dilation in DILATIONS for row, column in RING]
# Affinities held at once while they are computed: small enough for a cache.
BLOCK_ENTRIES = 2**19
TINY = 1e-8


class PAMR(nn.Module):
    """Iterated averages over neighbours of similar colour.

    A pixel's neighbours are the 8 around it at distances of 1, 2, 4, 8, 12 and 24 pixels; beyond the border, pixels
    repeat. In each step every probability becomes the sum of its neighbours', weighted by affinities:

    * ``"pamr"`` (Araslanov and Roth, CVPR 2020): the softmax, over the neighbours, of -|difference of colour| / (0.1
      standard deviation), averaged over the channels.
    * ``"par"`` (Ru et al., Learning affinity from attention, CVPR 2022): likewise of -(difference / (0.3 standard
      deviation))^2, plus 0.01 times the softmax of the same function of the neighbours' distances. As published, its
      affinities sum to 1.01: the result does not sum to 1, but to 1.01^steps.

    The standard deviation is that of the neighbours' colours, in each channel; for ``"pamr"``, the pixel's own colour
    counts as one more neighbour at each distance.

    Args:
        kind: ``"pamr"`` or ``"par"``.
        steps: Number of steps, >= 0.

    Shape:
        Images (B, 3, H, W), RGB from 0 to 255, of any type; probabilities (B, K, H, W), >= 0. Result (B, K, H, W), in
        single precision, or in double where the probabilities are. It is differentiable with respect to the
        probabilities.

    Examples:
        >>> images = torch.zeros(1, 3, 2, 6)
        >>> images[..., 3:] = 255
        >>> probabilities = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0, 0.0]).expand(1, 1, 2, 6)
        >>> (PAMR()(images, probabilities) > 0.5)[0, 0, 0].tolist()
        [True, True, True, False, False, False]
    """

    def __init__(self, kind: Literal["pamr", "par"] = "pamr", steps: int = 10) -> None:
        super().__init__()
        if kind not in ("pamr", "par"):
            raise ValueError(f"kind: expected 'pamr' or 'par', got {kind!r}")
        check_count("steps", steps, at_least=0)
        self.kind, self.steps = kind, steps

    @property
    def reach(self) -> int:
        """Distance in pixels beyond which pixels have no influence on each other."""
        return self.steps * RADIUS

    def extra_repr(self) -> str:
        """Return the parameters for the module's representation."""
        return f"kind={self.kind!r}, steps={self.steps}"

    def forward(self, images: Tensor, probabilities: Tensor) -> Tensor:
        """Return refined probabilities.

        Raises:
            ValueError: Shapes do not match or values are out of range.
        """
        images, probabilities = checked(images, probabilities)
        with full_precision(images.device):
            with torch.no_grad():
                affinities = self._affinities(images)
            for _ in range(self.steps):
                probabilities = _step(probabilities, affinities)
        return probabilities

    def _affinities(self, images: Tensor) -> Tensor:
        """Return affinities (48, B, 1, H, W), computed in blocks of rows."""
        number, channels, height, width = images.shape
        padded = _pad(images)
        rows = max(BLOCK_ENTRIES // (len(OFFSETS) * number * channels * width), 1)
        affinities = images.new_empty(len(OFFSETS), number, 1, height, width)
        for top in range(0, height, rows):
            block = _neighbours(padded[..., top : top + rows + 2 * RADIUS, :])
            block -= images[..., top : top + rows, :]
            affinities[..., top : top + rows, :] = _pamr(block) if self.kind == "pamr" else _par(block)
        return affinities


def _pamr(differences: Tensor) -> Tensor:
    """Return affinities (48, B, 1, h, w) from the neighbours' differences to the pixel, (48, B, 3, h, w)."""
    deviation = _deviation(differences, own=len(DILATIONS))
    return (differences.abs_() / -(0.1 * deviation + TINY)).mean(2, keepdim=True).softmax(0)


def _par(differences: Tensor) -> Tensor:
    """Return affinities as :func:`_pamr` does."""
    width = 0.3 * (_deviation(differences, own=0) + TINY)
    distance = differences.new_tensor([math.hypot(*offset) for offset in OFFSETS])
    by_distance = -(distance / (0.3 * (distance.std() + TINY))).square()
    by_colour = -(differences / width).square_().mean(2, keepdim=True)
    return by_colour.softmax(0) + 0.01 * by_distance.softmax(0).view(-1, 1, 1, 1, 1)


def _deviation(differences: Tensor, own: int) -> Tensor:
    """Return the standard deviation (B, C, h, w) of the neighbours' colours, the pixel's own counted ``own`` times.

    It is computed from differences to the pixel (48, B, C, h, w), which are 0 for the pixel itself.
    """
    number = len(differences) + own
    mean = differences.sum(0) / number
    squares = (differences - mean).square_().sum(0) + own * mean.square()
    return (squares / (number - 1)).sqrt_()


def _step(probabilities: Tensor, affinities: Tensor) -> Tensor:
    """Return the sum of each pixel's neighbours, weighted by their affinities (48, B, 1, H, W)."""
    padded, result = _pad(probabilities), torch.zeros_like(probabilities)
    height, width = probabilities.shape[2:]
    for affinity, (row, column) in zip(affinities, OFFSETS, strict=True):
        neighbour = padded.narrow(2, RADIUS + row, height).narrow(3, RADIUS + column, width)
        result.addcmul_(affinity, neighbour)
    return result


def _pad(values: Tensor) -> Tensor:
    return F.pad(values, 4 * [RADIUS], mode="replicate")


def _neighbours(padded: Tensor) -> Tensor:
    """Return the neighbours (48, B, C, h, w) of pixels, from these with a border of RADIUS, (B, C, h + 48, w + 48)."""
    height, width = (size - 2 * RADIUS for size in padded.shape[2:])
    return torch.stack(
        [
            padded[..., RADIUS + row : RADIUS + row + height, RADIUS + column : RADIUS + column + width]
            for row, column in OFFSETS
        ]
    )
