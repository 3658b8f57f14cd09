"""Kernels, their explicit feature maps, and the decision functions fitted with them.

A decision function first *centres* its input and *projects* it, which commutes with interpolation, a weighted mean, and
then *evaluates* the projections. So an image's features may be projected on their own coarse grid and the projections
interpolated: the dense features of a whole image never need to exist.
"""

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from torch_svm_seg.tensors import position_hash, take_rows

# Kernel values held at once by a product with a kernel matrix: 1 MB in single precision, which stays in a cache.
BLOCK_ENTRIES = 2**18
# exp(t) = 2^(t log2(e)): a power of two is several times quicker to compute, and accurate to 2e-6.
LOG2_E = math.log2(math.e)
ALL = slice(None)


def gaussian_kernel(x: Tensor, z: Tensor, gamma: Tensor) -> Tensor:
    """exp(-gamma |x_i - z_j|^2), (B, N, M), of x (B, N, D) and z (B, M, D) with gamma (B, 1, 1).

    Its exponent, to the base of 2, is a product of two matrices: x and z with their squared norms appended. Both are
    moved to the centre of z first, which changes no distance and keeps the product's cancellation small.
    """
    centre = z.mean(1, keepdim=True)
    return (_left_factor(x, centre, gamma) @ _right_factor(z, centre, gamma)).exp2_()


def multiply_by_kernel(x: Tensor, z: Tensor, gamma: Tensor, coefficients: Tensor) -> Tensor:
    """gaussian_kernel(x, z) @ coefficients in blocks of rows; coefficients (B, M, K), result (B, N, K)."""
    centre = z.mean(1, keepdim=True)
    right = _right_factor(z, centre, gamma)
    block = max(BLOCK_ENTRIES // max(z.shape[0] * z.shape[1], 1), 1)
    thin = coefficients.mT.contiguous().mT  # a product with few columns is quicker if each lies in one piece
    products = [(_left_factor(rows, centre, gamma) @ right).exp2_() @ thin for rows in x.split(block, dim=1)]
    return torch.cat(products, 1)


def _left_factor(x: Tensor, centre: Tensor, gamma: Tensor) -> Tensor:
    """The exponent's left factor, (B, N, D + 2)."""
    x = x - centre
    norm = x.square().sum(-1, keepdim=True)
    return torch.cat([x, -LOG2_E * gamma * norm, torch.ones_like(norm)], -1)


def _right_factor(z: Tensor, centre: Tensor, gamma: Tensor) -> Tensor:
    """The exponent's right factor, (B, D + 2, M)."""
    z = z - centre
    norm = z.square().sum(-1, keepdim=True)
    rate = LOG2_E * gamma
    return torch.cat([2 * rate * z, torch.ones_like(norm), -rate * norm], -1).mT.contiguous()


class DecisionFunction(nn.Module):
    """Scores of B images' own classifiers: K one-vs-rest decision values for every row of x (B, M, D).

    Shape:
        Input (B, M, D), output (B, M, K); a class that an image does not have scores -inf.
    """

    intercept: Tensor  # (B, 1, K)

    def __init__(self, **fitted: Tensor) -> None:
        super().__init__()
        for name, tensor in fitted.items():
            # A buffer follows the module to a device; what was fitted to an image is no part of a network's state.
            self.register_buffer(name, tensor, persistent=False)

    def detach_(self) -> None:
        """Lets go of the graph that the fit has left."""
        for name, tensor in list(self.named_buffers()):
            setattr(self, name, tensor.detach())

    @property
    def width(self) -> int:
        """Number of projections P."""
        raise NotImplementedError

    def centre(self, x: Tensor, channels: slice = ALL) -> Tensor:
        """x, or some of its channels, about the point from which projections and norms lose the least to rounding."""
        return x

    def project(self, x: Tensor, channels: slice = ALL) -> Tensor:
        """The linear part: projections (B, M, P) of centred x; of some of its channels, what these contribute."""
        raise NotImplementedError

    def evaluate(self, projections: Tensor, squared_norms: Tensor) -> Tensor:
        """Scores (B, M, K) from projections (B, M, P) and the centred rows' squared norms (B, M)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        x = self.centre(x)
        return self.evaluate(self.project(x), x.square().sum(-1))


class LinearDecision(DecisionFunction):
    """x . w + b with weights w (B, D, K)."""

    weights: Tensor

    def __init__(self, weights: Tensor, intercept: Tensor) -> None:
        super().__init__(weights=weights, intercept=intercept)

    @property
    def width(self) -> int:
        return self.weights.shape[2]

    def project(self, x: Tensor, channels: slice = ALL) -> Tensor:
        return x @ self.weights[:, channels]

    def evaluate(self, projections: Tensor, squared_norms: Tensor) -> Tensor:
        return projections + self.intercept


class GaussianDecision(DecisionFunction):
    """sum_j coefficients_j exp(-gamma |x - centres_j|^2) + b: centres (B, P, D), coefficients (B, P, K)."""

    centres: Tensor
    coefficients: Tensor
    gamma: Tensor  # (B, 1, 1)
    mean: Tensor  # of the centres, (B, 1, D)
    norms: Tensor  # of the centres about it, squared, (B, 1, P)

    def __init__(self, centres: Tensor, coefficients: Tensor, gamma: Tensor, intercept: Tensor) -> None:
        mean = centres.detach().mean(1, keepdim=True)
        norms = (centres - mean).square().sum(-1)[:, None]
        super().__init__(
            centres=centres, coefficients=coefficients, gamma=gamma, intercept=intercept, mean=mean, norms=norms
        )

    @property
    def width(self) -> int:
        return self.centres.shape[1]

    def centre(self, x: Tensor, channels: slice = ALL) -> Tensor:
        return x - self.mean[..., channels]

    def project(self, x: Tensor, channels: slice = ALL) -> Tensor:
        return x @ (self.centres[..., channels] - self.mean[..., channels]).mT

    def evaluate(self, projections: Tensor, squared_norms: Tensor) -> Tensor:
        rate = LOG2_E * self.gamma
        exponents = torch.addcmul(-rate * self.norms, projections, 2 * rate) - rate * squared_norms[..., None]
        return exponents.exp2_() @ self.coefficients.mT.contiguous().mT + self.intercept

    def forward(self, x: Tensor) -> Tensor:
        return multiply_by_kernel(x, self.centres, self.gamma, self.coefficients) + self.intercept


class FourierDecision(DecisionFunction):
    """sum_j coefficients_j cos(x . frequencies_j + phases_j) + b: frequencies (B, D, P), phases (B, 1, P)."""

    frequencies: Tensor
    phases: Tensor
    coefficients: Tensor

    def __init__(self, frequencies: Tensor, phases: Tensor, coefficients: Tensor, intercept: Tensor) -> None:
        super().__init__(frequencies=frequencies, phases=phases, coefficients=coefficients, intercept=intercept)

    @property
    def width(self) -> int:
        return self.frequencies.shape[2]

    def project(self, x: Tensor, channels: slice = ALL) -> Tensor:
        return x @ self.frequencies[:, channels]

    def evaluate(self, projections: Tensor, squared_norms: Tensor) -> Tensor:
        return (projections + self.phases).cos_() @ self.coefficients + self.intercept


class FeatureMap(Protocol):
    """An explicit map of x (B, N, D) to features (B, N, E), in which a kernel SVM is a linear one."""

    def features(self, x: Tensor) -> Tensor:
        """Features (B, N, E)."""

    def decision(self, weights: Tensor, intercept: Tensor) -> DecisionFunction:
        """The decision function features(x) . weights + intercept; weights (B, E, K), intercept (B, 1, K)."""


class LinearMap:
    """The identity: the linear kernel."""

    def features(self, x: Tensor) -> Tensor:
        return x

    def decision(self, weights: Tensor, intercept: Tensor) -> DecisionFunction:
        return LinearDecision(weights, intercept)


class NystroemMap:
    """Features of the Gaussian kernel restricted to the span of landmarks (Williams and Seeger, NIPS 2000).

    Half of the landmarks are a scattered choice of the valid samples; the other half are those of a larger scattered
    choice that the first half represents worst.

    Args:
        x: Samples (B, N, D).
        valid: Which of them are not padding, bool (B, N).
        gamma: (B, 1, 1).
        components: Number of landmarks; all samples are landmarks where there are no more, and the map is exact.
        seed: Of the scattered choice.
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
        real = valid.gather(1, rows).double()
        # Double precision: the kernel matrix of many landmarks is nearly singular.
        gram = gaussian_kernel(self.landmarks.double(), self.landmarks.double(), self.gamma.double())
        gram = gram * real[:, :, None] * real[:, None, :]
        gram.diagonal(dim1=1, dim2=2).add_(1e-6 + (1 - real))
        factor = torch.linalg.cholesky(gram)
        # Landmarks that are padding get no features.
        self._whitening: Tensor = (torch.linalg.inv(factor) * real[:, None, :] * real[:, :, None]).mT.to(x.dtype)

    def features(self, x: Tensor) -> Tensor:
        return gaussian_kernel(x, self.landmarks, self.gamma) @ self._whitening

    def residual(self, x: Tensor) -> Tensor:
        """1 - |features(x)|^2, (B, N): the part of the kernel's value at x that the landmarks miss, 0 to 1."""
        return 1 - self.features(x).square().sum(-1)

    def decision(self, weights: Tensor, intercept: Tensor) -> DecisionFunction:
        return GaussianDecision(self.landmarks, self._whitening @ weights, self.gamma, intercept)


class FourierMap:
    """Random Fourier features of the Gaussian kernel (Rahimi and Recht, NIPS 2007).

    Args:
        x: Samples (B, N, D), for their shape and type.
        gamma: (B, 1, 1).
        components: Number of features.
        seed: Of the random frequencies and phases, which are the same for all images but for gamma.
    """

    def __init__(self, x: Tensor, gamma: Tensor, components: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        frequencies = torch.randn(1, x.shape[-1], components, generator=generator, dtype=torch.float64)
        phases = 2 * math.pi * torch.rand(1, 1, components, generator=generator, dtype=torch.float64)
        self.frequencies: Tensor = frequencies.to(x) * (2 * gamma).sqrt()
        self.phases: Tensor = phases.to(x).expand(x.shape[0], -1, -1)
        self.scale = math.sqrt(2 / components)

    def features(self, x: Tensor) -> Tensor:
        features: Tensor = torch.cos(x @ self.frequencies + self.phases) * self.scale
        return features

    def decision(self, weights: Tensor, intercept: Tensor) -> DecisionFunction:
        return FourierDecision(self.frequencies, self.phases, self.scale * weights, intercept)
