"""Normalisation of feature maps: z-scores, and maps of different depth fused inside one SVM.

Joined as they are, maps of z-scored channels weigh in a distance or an inner product by their number of channels, so
the widest drowns the rest. Here each map weighs alike: it is scaled by sqrt(C / (J C_j)), where C_j are its channels
and C those of all J maps. Then every map contributes 1/J of the variance, which stays 1 a channel on average, and a
single map stays as it is. For the kernels this means

- linear: the kernel of the joined maps is the mean of theirs, each divided by its number of channels, times C;
- Gaussian: it is the product of theirs, each with its gamma divided by J, if gamma is ``"scale"``.

Both are kernels of joined channels, so one SVM of the usual kind learns from all maps; and both read a map only
through inner products, linear in its features, so each map is read and projected on its own grid.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from torch_svm_seg.tensors import deviation, rounding


def z_score(features: Tensor) -> Tensor:
    """Return each image's channels (B, C, h, w) moved to mean 0 and scaled to standard deviation 1.

    Constant channels become 0.

    Examples:
        >>> z_score(torch.tensor([[[[1.0, 3.0]], [[7.0, 7.0]]]])).tolist()
        [[[[-1.0, 1.0]], [[0.0, 0.0]]]]
    """
    largest = features.detach().abs().amax((2, 3), keepdim=True)
    # Times a power of two: exact, and no square can over- or underflow.
    features = torch.ldexp(features, -torch.frexp(largest).exponent)
    centred = features - features.mean((2, 3), keepdim=True)
    variance = centred.square().mean((2, 3), keepdim=True)
    return centred / deviation(variance, rounding(features.abs().amax((2, 3), keepdim=True), features.dtype))


def equalize_maps(maps: Sequence[Tensor]) -> list[Tensor]:
    """Scale maps of z-scored channels so that each contributes the same variance.

    Args:
        maps: Feature maps (B, C_j, h_j, w_j).

    Examples:
        >>> shallow, deep = equalize_maps([torch.ones(1, 1, 8, 8), torch.ones(1, 3, 2, 2)])
        >>> [round(float(features[0, :, 0, 0].square().sum()), 3) for features in (shallow, deep)]
        [2.0, 2.0]
    """
    factors = equal_factors([features.shape[1] for features in maps])
    return [features * factor for features, factor in zip(maps, factors, strict=True)]


def equal_factors(channels: Sequence[int]) -> list[float]:
    """Return the factor of each map, sqrt(C / (J C_j)), from the numbers of their channels.

    Examples:
        >>> equal_factors([4, 4]), equal_factors([1, 7])[0]
        ([1.0, 1.0], 2.0)
    """
    return [math.sqrt(sum(channels) / (len(channels) * number)) for number in channels]


def fused_stages(feature: str) -> list[str]:
    """Return the stages that a feature names.

    Examples:
        >>> fused_stages("F1+F3+F4"), fused_stages("F5")
        (['F1', 'F3', 'F4'], ['F5'])
    """
    return feature.split("+")
