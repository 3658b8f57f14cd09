"""Refinement of class probabilities by regions of the image that belong together, whatever they are."""

import torch
from torch import Tensor, nn

from torch_svm_seg.data.constants import NO_REGION
from torch_svm_seg.refine.probabilities import checked


class RegionVote(nn.Module):
    """The vote of all pixels of a region: each gets the mean of their probabilities.

    Regions come from elsewhere, such as superpixels or the masks of Segment Anything; pixels in none stay as they are.

    Args:
        regions: Number of each pixel's region, from 0 on in each image, and -1 where it lies in none, int64 (B, H, W).

    Shape:
        As :class:`~torch_svm_seg.refine.DenseCRF`: images (B, 3, H, W), RGB from 0 to 255, of which only the
        shape matters; probabilities (B, K, H, W), >= 0. Result (B, K, H, W). It is differentiable with respect to the
        probabilities.

    Raises:
        ValueError: The regions are of another type or shape, or numbered otherwise.

    Examples:
        >>> vote = RegionVote(torch.tensor([[[0, 0, -1]]]))
        >>> vote(torch.zeros(1, 3, 1, 3), torch.tensor([[[[0.9, 0.3, 1.0]], [[0.1, 0.7, 0.0]]]]))[0, 0]
        tensor([[0.6000, 0.6000, 1.0000]])
    """

    def __init__(self, regions: Tensor) -> None:
        super().__init__()
        if regions.dim() != 3 or regions.dtype != torch.int64:
            raise ValueError(f"regions: expected int64 (B, H, W), got {regions.dtype} {tuple(regions.shape)}")
        if bool((regions < NO_REGION).any()):
            raise ValueError(f"regions: expected numbers from 0 on, or {NO_REGION}, got {int(regions.min())}")
        self.regions = regions

    def forward(self, images: Tensor, probabilities: Tensor) -> Tensor:
        """Return refined probabilities.

        Raises:
            ValueError: Shapes do not match, or values are out of range.
        """
        _, probabilities = checked(images, probabilities)
        number, _, height, width = probabilities.shape
        if self.regions.shape != (number, height, width):
            found = tuple(self.regions.shape)
            raise ValueError(f"regions: expected {(number, height, width)} to match probabilities, got {found}")
        each = zip(probabilities.flatten(2), self.regions.flatten(1).to(probabilities.device), strict=True)
        return torch.stack([_voted(*one) for one in each]).view_as(probabilities)


def _voted(probabilities: Tensor, regions: Tensor) -> Tensor:
    """Return the mean over its region at each pixel, (K, N), of regions (N,)."""
    numbers = regions - NO_REGION  # those in no region are number 0
    pixels = torch.bincount(numbers).clamp_min(1)
    sums = probabilities.new_zeros(len(probabilities), len(pixels)).index_add(1, numbers, probabilities)
    return torch.where(regions == NO_REGION, probabilities, (sums / pixels)[:, numbers])
