"""Labelled pixels of images of any sizes, and how they are joined into the samples of one SVM.

Normalisation is linear, and so commutes with interpolation: pixels are read as they are, image by image, and normalised
when the statistics of all images are known.
"""

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from torch_svm_seg.expansion.interpolation import read_pixels
from torch_svm_seg.expansion.normalization import equal_factors
from torch_svm_seg.expansion.sampling import PixelSample
from torch_svm_seg.tensors import deviation, rounding


class ChannelStatistics(NamedTuple):
    """Statistics of a map's channels, in double precision.

    Attributes:
        number: Number of cells.
        mean: Mean over them, (C,).
        squares: Sum of the squared deviations from it, (C,).
        rounding: How far a constant channel may be from its mean, (C,).

    Examples:
        >>> one, other = (ChannelStatistics.of(torch.full((1, 1, 2, 2), value)) for value in (1.0, 3.0))
        >>> one.joined(other).mean.tolist(), one.joined(other).rate.tolist()
        ([2.0], [1.0])
    """

    number: int
    mean: Tensor
    squares: Tensor
    rounding: Tensor

    @classmethod
    def of(cls, features: Tensor) -> "ChannelStatistics":
        """Return the statistics of a map (B, C, h, w)."""
        rows = features.transpose(0, 1).flatten(1).double()
        mean = rows.mean(1)
        squares = (rows - mean[:, None]).square().sum(1)
        return cls(rows.shape[1], mean, squares, rounding(rows.abs().amax(1), features.dtype))

    def joined(self, other: "ChannelStatistics") -> "ChannelStatistics":
        """Return the statistics of the cells of both (Chan, Golub and LeVeque, 1979)."""
        number, apart = self.number + other.number, other.mean - self.mean
        return ChannelStatistics(
            number,
            self.mean + apart * (other.number / number),
            self.squares + other.squares + apart.square() * (self.number * other.number / number),
            torch.maximum(self.rounding, other.rounding),
        )

    @property
    def rate(self) -> Tensor:
        """One by the standard deviation, (C,); 0 for a constant channel."""
        return 1 / deviation(self.squares / self.number, self.rounding)


class LabelledPixels(NamedTuple):
    """Labelled pixels of some images.

    Attributes:
        x: Their features, as they were read, (N, D).
        classes: Their class ids, (N,).
        weights: Their weights in the loss, (N,).
        statistics: Statistics over all cells of the images, of each of the maps whose channels ``x`` joins.

    Examples:
        >>> sample = PixelSample(torch.tensor([[0, 1]]), torch.tensor([[0, 1]]))
        >>> images = [LabelledPixels.of([torch.rand(1, 3, n, n)], sample, torch.ones(1, 2), (n, n)) for n in (2, 4)]
        >>> joined(images).x.shape
        torch.Size([4, 3])
    """

    x: Tensor
    classes: Tensor
    weights: Tensor
    statistics: tuple[ChannelStatistics, ...]

    @classmethod
    def of(
        cls, maps: Sequence[Tensor], sample: PixelSample, weights: Tensor, size: tuple[int, int]
    ) -> "LabelledPixels":
        """Read the pixels of images of one size.

        Args:
            maps: Feature maps (B, C_j, h_j, w_j).
            sample: Which pixels.
            weights: Weight of each of them, (B, N).
            size: Size (H, W) of the images.
        """
        valid = sample.classes >= 0
        x = read_pixels(maps, sample.positions, size)[valid]
        return cls(x, sample.classes[valid], weights[valid].to(x), tuple(map(ChannelStatistics.of, maps)))

    @property
    def channels(self) -> tuple[int, ...]:
        """Number of channels of each map."""
        return tuple(len(one.mean) for one in self.statistics)

    def normalization(self) -> tuple[Tensor, Tensor]:
        """Return what to subtract from each channel, and what to multiply it by then, (D,) each.

        Then channels have mean 0 and standard deviation 1 over the cells of all images, constant ones are 0, and each
        map contributes the same variance (:mod:`~torch_svm_seg.expansion.normalization`).
        """
        factors = equal_factors(self.channels)
        rates = [one.rate * factor for one, factor in zip(self.statistics, factors, strict=True)]
        return torch.cat([one.mean for one in self.statistics]).to(self.x), torch.cat(rates).to(self.x)


def joined(images: Sequence[LabelledPixels]) -> LabelledPixels:
    """Return the pixels of several images as one set.

    Raises:
        ValueError: There are none, or their channels differ.

    Examples:
        >>> joined([])
        Traceback (most recent call last):
        ValueError: images: expected labelled pixels of at least one image, got none
    """
    if not images:
        raise ValueError("images: expected labelled pixels of at least one image, got none")
    if len(channels := {one.channels for one in images}) > 1:
        raise ValueError(f"images: expected maps of the same channels in all, got {sorted(channels)}")
    x, classes, weights, statistics = zip(*images, strict=True)
    merged = (reduce(ChannelStatistics.joined, maps) for maps in zip(*statistics, strict=True))
    return LabelledPixels(torch.cat(x), torch.cat(classes), torch.cat(weights), tuple(merged))
