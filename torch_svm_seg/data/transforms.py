"""The random crops that networks train on, by the recipes of IRN (CVPR 2019), SIPE (CVPR 2022) and DeepLab."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode  # type: ignore[import-untyped]
from torchvision.transforms.v2 import functional as transforms  # type: ignore[import-untyped]

from torch_svm_seg.data.constants import VOID

# The longest side becomes 320 to 640 for crops of 512.
_LONGEST = (0.625, 1.25)


@dataclass(frozen=True)
class Placement:
    """A square view of an image: resized, mirrored or not, and cut or padded.

    Attributes:
        size: Side of the square, in pixels.
        resized: Height and width that the image gets.
        mirrored: Whether left and right are exchanged.
        shown: Rows and columns of the resized image that are in the square.
        place: Rows and columns of the square where they are.

    Examples:
        >>> shown, place = (slice(0, 2), slice(0, 4)), (slice(1, 3), slice(0, 4))
        >>> placement = Placement(4, resized=(2, 4), mirrored=True, shown=shown, place=place)
        >>> placement.apply(torch.zeros(1, 4, 8), fill=torch.ones(1, 1, 1)).mean((0, 2))
        tensor([1., 0., 0., 1.])
    """

    size: int
    resized: tuple[int, int]
    mirrored: bool
    shown: tuple[slice, slice]
    place: tuple[slice, slice]

    def apply(self, image: Tensor, fill: Tensor, nearest: bool = False) -> Tensor:
        """Make the square.

        Args:
            image: (C, H, W).
            fill: What the image does not cover, (C, 1, 1).
            nearest: Whether to resize to the nearest pixel's value, as labels must be.

        Returns:
            (C, size, size), of the fill's type.
        """
        mode = InterpolationMode.NEAREST_EXACT if nearest else InterpolationMode.BILINEAR
        image = transforms.resize(image, self.resized, mode, antialias=not nearest)
        if self.mirrored:
            image = image.flip(-1)
        square = fill.expand(-1, self.size, self.size).clone()
        square[(slice(None), *self.place)] = image[(slice(None), *self.shown)].to(square)
        return square


def random_placement(
    image_size: Sequence[int], size: int, longest: tuple[float, float], generator: torch.Generator
) -> Placement:
    """Choose at random how to resize an image, whether to mirror it, and where to cut a square.

    Args:
        image_size: Height and width of the image.
        size: Side of the square, in pixels.
        longest: Least and largest length of the image's longest side, in sides of the square.
        generator: Source of the choices.

    Examples:
        >>> random_placement((60, 80), 32, (1.0, 1.0), torch.Generator().manual_seed(0)).resized
        (24, 32)
    """
    least, largest = longest
    factor = least + (largest - least) * float(torch.rand((), generator=generator))
    resized = _longest_side(image_size, round(size * factor))
    mirrored = bool(torch.rand((), generator=generator) < 0.5)
    rows, columns = (_overlap(side, size, generator) for side in resized)
    return Placement(size, resized, mirrored, (rows[0], columns[0]), (rows[1], columns[1]))


def random_crop(image: Tensor, size: int, fill: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Show an image in a square, at random, by the recipe of SIPE and of IRN's classifier.

    What the image does not cover is padded. Filled with the mean that a network subtracts, it is zero after
    normalisation, as in the recipe.

    Args:
        image: RGB 0..255, uint8 of shape (3, H, W).
        size: Side of the square, in pixels; the image's longest side becomes 0.625 to 1.25 times as long.
        fill: Colour of the padding, (3, 1, 1).
        generator: Source of the choices.

    Returns:
        The crop, RGB 0..255, float32 of shape (3, size, size), and where it is not padding, bool (size, size).

    Examples:
        >>> image, fill = torch.zeros(3, 60, 80, dtype=torch.uint8), torch.zeros(3, 1, 1)
        >>> crop, shown = random_crop(image, 32, fill, torch.Generator().manual_seed(0))
        >>> crop.shape, shown.shape
        (torch.Size([3, 32, 32]), torch.Size([32, 32]))
    """
    placement = random_placement(image.shape[1:], size, _LONGEST, generator)
    valid = torch.zeros(size, size, dtype=torch.bool)
    valid[placement.place] = True
    return placement.apply(image, fill.float()), valid


def random_masked_crop(
    image: Tensor,
    mask: Tensor,
    size: int,
    scales: tuple[float, float],
    fill: Tensor,
    generator: torch.Generator,
    weights: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Show an image and its mask in a square, at random, by the recipe of DeepLab.

    Args:
        image: RGB 0..255, uint8 of shape (3, H, W).
        mask: Class ids, int64 of shape (H, W).
        size: Side of the square, in pixels.
        scales: Smallest and largest factor on the image's size.
        fill: Colour of the padding, (3, 1, 1).
        generator: Source of the choices.
        weights: Weight of each label, (H, W).

    Returns:
        The crop, RGB 0..255, float32 of shape (3, size, size), its class ids, int64 (size, size), 255 in padding, and
        their weights, 0 in padding, if there are any.

    Examples:
        >>> image, mask = torch.zeros(3, 60, 80, dtype=torch.uint8), torch.zeros(60, 80, dtype=torch.long)
        >>> generator = torch.Generator().manual_seed(0)
        >>> crop, labels = random_masked_crop(image, mask, 32, (0.5, 1.5), torch.zeros(3, 1, 1), generator)
        >>> crop.shape, labels.shape
        (torch.Size([3, 32, 32]), torch.Size([32, 32]))
    """
    longest = max(mask.shape) / size
    placement = random_placement(mask.shape, size, (scales[0] * longest, scales[1] * longest), generator)
    crop = placement.apply(image, fill.float())
    labels = placement.apply(mask[None], torch.full((1, 1, 1), VOID), nearest=True)[0]
    if weights is None:
        return crop, labels
    return crop, labels, placement.apply(weights[None], torch.zeros(1, 1, 1), nearest=True)[0]


def resize_longest_side(image: Tensor, length: int, multiple: int = 1) -> Tensor:
    """Resize an image (3, H, W) so that its longest side has a length, and both sides are multiples of a number.

    Examples:
        >>> resize_longest_side(torch.zeros(3, 60, 80), 40).shape
        torch.Size([3, 30, 40])
    """
    resized: Tensor = transforms.resize(image, _longest_side(image.shape[1:], length, multiple), antialias=True)
    return resized


def _longest_side(image_size: Sequence[int], length: int, multiple: int = 1) -> tuple[int, int]:
    height, width = image_size
    factor = length / max(height, width) / multiple
    return max(1, round(height * factor)) * multiple, max(1, round(width * factor)) * multiple


def _overlap(side: int, size: int, generator: torch.Generator) -> tuple[slice, slice]:
    """Return the overlap of an image side and a crop side of other length, the shorter one at a random place."""
    start = int(torch.randint(abs(side - size) + 1, (), generator=generator))
    whole, part = slice(0, min(side, size)), slice(start, start + min(side, size))
    return (part, whole) if side > size else (whole, part)
