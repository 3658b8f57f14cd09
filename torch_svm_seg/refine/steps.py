"""Refinement step by step, of large images in overlapping tiles: memory is bounded, time is linear in the pixels."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from torch_svm_seg.data.notes import first_few

MOST_PIXELS = 3_000_000
"""Pixels of a tile, its margin included: a dense CRF takes 400 bytes for each, PAMR 200."""


def refine(steps: Sequence[nn.Module], images: Tensor, probabilities: Tensor) -> Tensor:
    """Refine probabilities of which only those of the classes present take part.

    Args:
        steps: Modules that refine probabilities (B, K, H, W) by images (B, 3, H, W): ``DenseCRF``, ``PAMR``, ...
        images: RGB images from 0 to 255, (B, 3, H, W).
        probabilities: Probabilities of the classes by id, (B, K, H, W); 0 at all pixels of an image for a class that it
            does not have.

    Returns:
        Refined probabilities (B, K, H, W); still 0 for absent classes, which the steps saw only where another image of
        the batch has them.

    Raises:
        ValueError: An image has no class at all; see also the steps.

    Examples:
        >>> from torch_svm_seg.refine import PAMR, DenseCRF
        >>> refine([DenseCRF.preset("psa"), PAMR()], torch.zeros(1, 3, 8, 9), torch.rand(1, 21, 8, 9)).shape
        torch.Size([1, 21, 8, 9])
    """
    present = probabilities.amax((2, 3), keepdim=True) > 0
    if empty := (~present.flatten(1).any(1)).nonzero()[:, 0].tolist():
        raise ValueError(
            f"probabilities: expected a class above 0 in every image, got none in image(s) [{first_few(empty)}]"
        )
    used = present.flatten(1).any(0).nonzero()[:, 0]
    refined = probabilities[:, used]
    for step in steps:
        refined = refine_in_tiles(step, images, refined) * present[:, used]
        refined = refined / refined.sum(1, keepdim=True)  # those of PAR sum to 1.01^steps
    return probabilities.new_zeros(probabilities.shape).index_copy(1, used, refined.to(probabilities))


def refine_in_tiles(step: nn.Module, images: Tensor, probabilities: Tensor, most_pixels: int = MOST_PIXELS) -> Tensor:
    """Apply a refinement to tiles of an image, each with a margin as wide as the refinement reaches.

    An image that is small enough is one tile. A refinement without a ``reach``, the distance in pixels beyond which
    pixels have no influence or next to none, is applied to the whole image.

    Args:
        step: Module that refines probabilities by images, such as :class:`~torch_svm_seg.refine.DenseCRF`.
        images: RGB images from 0 to 255, (B, 3, H, W).
        probabilities: Probabilities (B, K, H, W).
        most_pixels: Most pixels of a tile, its margin included, unless the margin alone has more.

    Examples:
        >>> from torch_svm_seg.refine import PAMR
        >>> refine_in_tiles(PAMR(), torch.zeros(1, 3, 60, 80), torch.rand(1, 2, 60, 80)).shape
        torch.Size([1, 2, 60, 80])
    """
    height, width = images.shape[2:]
    reach = getattr(step, "reach", None)
    if reach is None or height * width <= most_pixels:
        refined: Tensor = step(images, probabilities)
        return refined
    result = torch.empty_like(probabilities)
    side = max(int(math.sqrt(most_pixels)) - 2 * reach, reach)
    for rows, rows_around, rows_inside in _tiles(height, side, reach):
        for columns, columns_around, columns_inside in _tiles(width, side, reach):
            around = (..., rows_around, columns_around)
            result[..., rows, columns] = step(images[around], probabilities[around])[..., rows_inside, columns_inside]
    return result


def _tiles(length: int, side: int, reach: int) -> Iterator[tuple[slice, slice, slice]]:
    """Yield the tiles of an axis: their own part, that with its margin, and where the first lies in the second."""
    number = math.ceil(length / side)
    edges = [round(length * index / number) for index in range(number + 1)]
    for start, stop in pairwise(edges):
        low, high = max(start - reach, 0), min(stop + reach, length)
        yield slice(start, stop), slice(low, high), slice(start - low, stop - low)
