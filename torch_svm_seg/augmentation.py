"""The random crops that networks train on.

Those of classifiers follow IRN (CVPR 2019) and SIPE (CVPR 2022), those of segmentation networks DeepLab (Chen et al.,
TPAMI 2018).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode  # type: ignore[import-untyped]
from torchvision.transforms.v2 import functional as transforms  # type: ignore[import-untyped]

from torch_svm_seg.sampling import VOID

# The longest side becomes 320 to 640 for crops of 512.
_SMALLEST, _LARGEST = 0.625, 1.25


def random_crop(image: Tensor, size: int, fill: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Resizes an image at random, mirrors it or not, and cuts a square at a random place.

    What the image does not cover is padded. Filled with the mean that a network subtracts, it is zero after
    normalisation, as in the recipe.

    Args:
        image: RGB 0..255, uint8 of shape (3, H, W).
        size: side of the square, in pixels; the image's longest side becomes 0.625 to 1.25 times as long.
        fill: colour of the padding, (3, 1, 1).
        generator: source of the choices.

    Returns:
        The crop, RGB 0..255, float32 of shape (3, size, size), and where it is not padding, bool (size, size).
    """
    factor = _SMALLEST + (_LARGEST - _SMALLEST) * float(torch.rand((), generator=generator))
    image = resize_longest_side(image, round(size * factor))
    if torch.rand((), generator=generator) < 0.5:
        image = image.flip(-1)
    valid = torch.zeros(size, size, dtype=torch.bool)
    from_image, to_crop = _overlap(image.shape[1:], size, generator)
    valid[to_crop] = True
    return _cut(image, from_image, to_crop, fill.expand(3, size, size)), valid


def random_masked_crop(
    image: Tensor, mask: Tensor, size: int, scales: tuple[float, float], fill: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Resizes an image and its mask at random, mirrors them or not, and cuts a square at a random place.

    Args:
        image: RGB 0..255, uint8 of shape (3, H, W).
        mask: class ids, int64 of shape (H, W).
        size: side of the square, in pixels.
        scales: smallest and largest factor on the image's size.
        fill: colour of the padding, (3, 1, 1).
        generator: source of the choices.

    Returns:
        The crop, RGB 0..255, float32 of shape (3, size, size), and its class ids, int64 (size, size), 255 in padding.
    """
    smallest, largest = scales
    factor = smallest + (largest - smallest) * float(torch.rand((), generator=generator))
    sides = [max(1, round(side * factor)) for side in image.shape[1:]]
    image = transforms.resize(image, sides, antialias=True)
    mask = transforms.resize(mask[None], sides, InterpolationMode.NEAREST_EXACT)
    if torch.rand((), generator=generator) < 0.5:
        image, mask = image.flip(-1), mask.flip(-1)
    from_image, to_crop = _overlap(sides, size, generator)
    unlabelled = torch.full((1, size, size), VOID)
    return (
        _cut(image, from_image, to_crop, fill.expand(3, size, size)),
        _cut(mask, from_image, to_crop, unlabelled).long()[0],
    )


def resize_longest_side(image: Tensor, length: int, multiple: int = 1) -> Tensor:
    """Resizes an image (3, H, W) so that its longest side has a length, and both sides are multiples of a number."""
    factor = length / max(image.shape[1:]) / multiple
    size = [max(1, round(side * factor)) * multiple for side in image.shape[1:]]
    resized: Tensor = transforms.resize(image, size, antialias=True)
    return resized


Window = tuple[slice, slice]
"""Rows and columns."""


def _overlap(sides: Sequence[int], size: int, generator: torch.Generator) -> tuple[Window, Window]:
    """Where an image and a square crop overlap, the smaller at a random place of the larger: in image and in crop."""
    rows, columns = (_side_overlap(side, size, generator) for side in sides)
    return (rows[0], columns[0]), (rows[1], columns[1])


def _side_overlap(side: int, size: int, generator: torch.Generator) -> tuple[slice, slice]:
    start = int(torch.randint(abs(side - size) + 1, (), generator=generator))
    whole, part = slice(0, min(side, size)), slice(start, start + min(side, size))
    return (part, whole) if side > size else (whole, part)


def _cut(values: Tensor, source: Window, target: Window, background: Tensor) -> Tensor:
    """Copies a window of values (C, H, W) into a window of a background (C, size, size), as float32."""
    crop = background.float().clone()
    crop[:, target[0], target[1]] = values[:, source[0], source[1]].float()
    return crop
