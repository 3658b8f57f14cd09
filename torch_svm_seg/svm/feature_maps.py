"""Explicit feature maps, in which a kernel SVM is a linear one: exact, Nyström's, and random Fourier features."""

import math
from typing import Protocol

import torch
from torch import Tensor

from torch_svm_seg.svm.decisions import DecisionFunction, FourierDecision, GaussianDecision, LinearDecision
from torch_svm_seg.svm.kernels import gaussian_kernel
from torch_svm_seg.tensors import position_hash, take_rows


class FeatureMap(Protocol):
    """An explicit map of x (B, N, D) to features (B, N, E), in which a kernel SVM is a linear one."""

    def features(self, x: Tensor) -> Tensor:
        """Return features (B, N, E)."""

    def decision(self, weights: Tensor, intercept: Tensor) -> DecisionFunction:
        """Return the decision function features(x) . weights + intercept; weights (B, E, K), intercept (B, 1, K)."""


class LinearMap:
    """The identity: the linear kernel.

    Examples:
        >>> LinearMap().features(torch.ones(1, 2, 3)).shape
        torch.Size([1, 2, 3])
    """

    def features(self, x: Tensor) -> Tensor:
        """Return x."""
        return x

    def decision(self, weights: Tensor, intercept: Tensor) -> DecisionFunction:
        """Return x . weights + intercept."""
        return LinearDecision(weights, intercept)


class NystroemMap:
    """Features of the Gaussian kernel restricted to the span of landmarks (Williams and Seeger, NIPS 2000).

    Half of the landmarks are a scattered choice of the valid samples; the other half are those of a larger scattered
    choice that the first half represents worst.

    Args:
        x: Samples (B, N, D).
        valid: Which of them are not padding, bool (B, N).
        gamma: Coefficient of each image's kernel, > 0, (B, 1, 1).
        components: Number of landmarks; all samples are landmarks where there are no more, and the map is exact.
        seed: Seed of the scattered choice.

    Examples:
        >>> x, valid = torch.rand(2, 50, 3), torch.ones(2, 50, dtype=torch.bool)
        >>> NystroemMap(x, valid, torch.ones(2, 1, 1), components=16).features(x).shape
        torch.Size([2, 50, 16])
    """

    def __init__(self, x: Tensor, valid: Tensor, gamma: Tensor, components: int, seed: int = 0) -> None:
        self.gamma = gamma
        order = position_hash(valid, seed).argsort(1)
        if valid.shape[1] > components:
            scattered, candidates = order[:, : components // 2], order[:, components // 2 : 4 * components]
            self._take_landmarks(x, valid, scattered)
            unexplained = self.residual(take_rows(x, candidates)) * valid.gather(1, candidates)
            worst = unexplained.topk(components - components // 2, dim=1).indices
            order = torch.cat([scattered, candidates.gather(1, worst)], 1)
        self._take_landmarks(x, valid, order)

    def _take_landmarks(self, x: Tensor, valid: Tensor, rows: Tensor) -> None:
        self.landmarks = take_rows(x, rows)
        taken = valid.gather(1, rows).double()
        # Double precision: the kernel matrix of many landmarks is nearly singular.
        gram = gaussian_kernel(self.landmarks.double(), self.landmarks.double(), self.gamma.double())
        gram = gram * taken[:, :, None] * taken[:, None, :]
        gram.diagonal(dim1=1, dim2=2).add_(1e-6 + (1 - taken))
        factor = torch.linalg.cholesky(gram)
        # Landmarks that are padding get no features.
        self._whitening: Tensor = (torch.linalg.inv(factor) * taken[:, None, :] * taken[:, :, None]).mT.to(x.dtype)

    def features(self, x: Tensor) -> Tensor:
        """Return one feature per landmark, (B, N, E)."""
        return gaussian_kernel(x, self.landmarks, self.gamma) @ self._whitening

    def residual(self, x: Tensor) -> Tensor:
        """Return 1 - |features(x)|^2, (B, N): the part of the kernel's value at x that the landmarks miss, 0 to 1."""
        return 1 - self.features(x).square().sum(-1)

    def decision(self, weights: Tensor, intercept: Tensor) -> DecisionFunction:
        """Return the decision function, whose centres are the landmarks."""
        return GaussianDecision(self.landmarks, self._whitening @ weights, self.gamma, intercept)


class FourierMap:
    """Random Fourier features of the Gaussian kernel (Rahimi and Recht, NIPS 2007).

    Args:
        x: Samples (B, N, D), for their shape and type.
        gamma: Coefficient of each image's kernel, > 0, (B, 1, 1).
        components: Number of features.
        seed: Seed of the random frequencies and phases, which are the same for all images but for gamma.

    Examples:
        >>> x = torch.rand(2, 50, 3)
        >>> FourierMap(x, torch.ones(2, 1, 1), components=16).features(x).shape
        torch.Size([2, 50, 16])
    """

    def __init__(self, x: Tensor, gamma: Tensor, components: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        frequencies = torch.randn(1, x.shape[-1], components, generator=generator, dtype=torch.float64)
        phases = 2 * math.pi * torch.rand(1, 1, components, generator=generator, dtype=torch.float64)
        self.frequencies: Tensor = frequencies.to(x) * (2 * gamma).sqrt()
        self.phases: Tensor = phases.to(x).expand(x.shape[0], -1, -1)
        self.scale = math.sqrt(2 / components)

    def features(self, x: Tensor) -> Tensor:
        """Return one feature per random frequency, (B, N, E)."""
        features: Tensor = torch.cos(x @ self.frequencies + self.phases) * self.scale
        return features

    def decision(self, weights: Tensor, intercept: Tensor) -> DecisionFunction:
        """Return the decision function, a sum of cosines."""
        return FourierDecision(self.frequencies, self.phases, self.scale * weights, intercept)
