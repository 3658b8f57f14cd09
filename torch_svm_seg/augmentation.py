"""The random crops that classifiers train on (the recipe of IRN, CVPR 2019, and SIPE, CVPR 2022)."""

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms  # type: ignore[import-untyped]

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
    crop, valid = fill.expand(3, size, size).float(), torch.zeros(size, size, dtype=torch.bool)
    crop = crop.clone()
    from_rows, to_rows = _overlap(image.shape[1], size, generator)
    from_columns, to_columns = _overlap(image.shape[2], size, generator)
    crop[:, to_rows, to_columns] = image[:, from_rows, from_columns].float()
    valid[to_rows, to_columns] = True
    return crop, valid


def resize_longest_side(image: Tensor, length: int, multiple: int = 1) -> Tensor:
    """Resizes an image (3, H, W) so that its longest side has a length, and both sides are multiples of a number."""
    factor = length / max(image.shape[1:]) / multiple
    size = [max(1, round(side * factor)) * multiple for side in image.shape[1:]]
    resized: Tensor = transforms.resize(image, size, antialias=True)
    return resized


def _overlap(side: int, size: int, generator: torch.Generator) -> tuple[slice, slice]:
    """Where an image side and a crop side of other length overlap, the shorter one at a random place of the longer."""
    start = int(torch.randint(abs(side - size) + 1, (), generator=generator))
    whole, part = slice(0, min(side, size)), slice(start, start + min(side, size))
    return (part, whole) if side > size else (whole, part)
