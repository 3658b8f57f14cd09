"""Approximations of the Gaussian kernel: settings of an SVM that choose its explicit features."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from torch_svm_seg.svm.arguments import check_count, check_seed
from torch_svm_seg.svm.feature_maps import FeatureMap, FourierMap, NystroemMap

# A Gaussian kernel on so few channels has a low numerical rank: features of this many landmarks miss less of it, on
# average over the samples, than the residual, and are as good as exact.
LOW_RANK_CHANNELS, LOW_RANK, LOW_RANK_RESIDUAL = 4, 256, 1e-3


@dataclass(frozen=True)
class Nystroem:
    """Features from landmarks among the samples (Williams and Seeger, NIPS 2000).

    Args:
        components: Number of landmarks, an integer > 0; exact where there are no more samples.
        seed: Seed of their choice.

    Examples:
        >>> import torch
        >>> from torch_svm_seg import SVM
        >>> svm = SVM(approximation=Nystroem(components=20)).fit(torch.rand(50, 3), torch.arange(50) % 2)
        >>> svm.decision.centres.shape
        torch.Size([1, 20, 3])
    """

    components: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        check_count("components", self.components)
        check_seed(self.seed)

    def feature_map(self, x: Tensor, valid: Tensor, gamma: Tensor) -> FeatureMap:
        """Return the map of samples x (B, N, D), ``valid`` (B, N) where not padding, for gamma (B, 1, 1)."""
        return NystroemMap(x, valid, gamma, self.components, self.seed)


@dataclass(frozen=True)
class Fourier:
    """Random Fourier features (Rahimi and Recht, NIPS 2007), which do not depend on the samples.

    Args:
        components: Number of features, an integer > 0.
        seed: Seed of the random frequencies and phases.

    Examples:
        >>> import torch
        >>> from torch_svm_seg import SVM
        >>> svm = SVM(approximation=Fourier(components=64)).fit(torch.rand(50, 3), torch.arange(50) % 2)
        >>> svm.decision.frequencies.shape
        torch.Size([1, 3, 64])
    """

    components: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        check_count("components", self.components)
        check_seed(self.seed)

    def feature_map(self, x: Tensor, valid: Tensor, gamma: Tensor) -> FeatureMap:
        """Return the map of samples x (B, N, D) for gamma (B, 1, 1)."""
        return FourierMap(x, gamma, self.components, self.seed)


Approximation = Nystroem | Fourier | Literal["auto"] | None


def approximate(approximation: Approximation, x: Tensor, valid: Tensor, gamma: Tensor) -> FeatureMap | None:
    """Return the explicit map to fit with; None for the exact kernel.

    Args:
        approximation: An approximation; None for none; or ``"auto"``: the low rank of few channels where it is as good
            as exact, and none elsewhere.
        x: Samples (B, N, D).
        valid: Which of them are not padding, bool (B, N).
        gamma: Coefficient of each image's kernel, > 0, (B, 1, 1).

    Examples:
        >>> import torch
        >>> x, valid = torch.rand(1, 2000, 3), torch.ones(1, 2000, dtype=torch.bool)
        >>> approximate("auto", x, valid, torch.ones(1, 1, 1)).features(x).shape
        torch.Size([1, 2000, 256])
        >>> approximate("auto", x.repeat(1, 1, 9), valid, torch.ones(1, 1, 1)) is None
        True
    """
    if approximation is None:
        return None
    if approximation != "auto":
        return approximation.feature_map(x, valid, gamma)
    if x.shape[-1] > LOW_RANK_CHANNELS or x.shape[1] <= LOW_RANK:
        return None
    low_rank = NystroemMap(x, valid, gamma, LOW_RANK)
    residual = (low_rank.residual(x) * valid).sum(1) / valid.sum(1)
    return low_rank if bool((residual <= LOW_RANK_RESIDUAL).all()) else None
