"""The spaces that the problems of an SVM are solved in, and the decision functions that solutions become.

A model ties the two together: with explicit features, elements of the space are weights of the features; with the exact
kernel, or with inner products alone, they are coefficients of the samples.
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from torch_svm_seg.svm.decisions import DecisionFunction, GaussianDecision, LinearDecision
from torch_svm_seg.svm.feature_maps import FeatureMap, LinearMap
from torch_svm_seg.svm.samples import FeatureSamples, GaussianSamples, InnerProducts, Samples


class Model(Protocol):
    """The samples of B images as the solver meets them, and the decision functions of its solutions."""

    @property
    def rounds_again(self) -> bool:
        """Whether decision functions store something else than the elements, with a rounding of its own."""

    def samples(self, image: Tensor) -> Samples:
        """Return the samples of problems of the images ``image`` (P,)."""

    def decision(self, element: Tensor, intercept: Tensor) -> DecisionFunction:
        """Return the decision function of elements (B, E, K) and intercepts (B, 1, K)."""


class FeatureModel:
    """Explicit features of samples x (B, N, D).

    Examples:
        >>> import torch
        >>> from torch_svm_seg.svm.feature_maps import LinearMap
        >>> FeatureModel(LinearMap(), torch.rand(2, 5, 3)).samples(torch.tensor([0, 0, 1])).features.shape
        torch.Size([3, 5, 3])
    """

    def __init__(self, feature_map: FeatureMap, x: Tensor) -> None:
        self.feature_map, self.features = feature_map, feature_map.features(x)
        self.rounds_again = not isinstance(feature_map, LinearMap)

    def samples(self, image: Tensor) -> FeatureSamples:
        """Return the features of the images' samples."""
        return FeatureSamples(_of_problems(self.features, image))

    def decision(self, element: Tensor, intercept: Tensor) -> DecisionFunction:
        """Return the decision function of the map."""
        return self.feature_map.decision(element, intercept)


@dataclass
class GaussianModel:
    """Samples x (B, N, D) under the exact Gaussian kernel, gamma (B, 1, 1).

    Examples:
        >>> import torch
        >>> model = GaussianModel(torch.rand(2, 5, 3), torch.ones(2, 1, 1))
        >>> model.samples(torch.tensor([0, 0, 1])).x.shape
        torch.Size([3, 5, 3])
    """

    x: Tensor
    gamma: Tensor
    rounds_again = False

    def samples(self, image: Tensor) -> GaussianSamples:
        """Return the images' samples under the kernel."""
        return GaussianSamples(_of_problems(self.x, image), _of_problems(self.gamma, image))

    def decision(self, element: Tensor, intercept: Tensor) -> GaussianDecision:
        """Return the decision function with the samples that carry weight."""
        return GaussianDecision.of_samples(self.x, element, self.gamma, intercept)


@dataclass
class ProductModel:
    """Samples x (B, N, D) that are known by their inner products: see :class:`InnerProducts`.

    Attributes:
        products: Inner products about their origin.
        x: The samples themselves, for the decision function.
        gamma: Coefficients of the RBF kernel, (B, 1, 1); None for the linear kernel.
    """

    products: InnerProducts
    x: Tensor
    gamma: Tensor | None

    @property
    def rounds_again(self) -> bool:
        """Whether decision functions store something else than the elements: the linear kernel's weights."""
        return self.gamma is None

    def samples(self, image: Tensor) -> Samples:
        """Return the images' samples by their inner products."""
        return self.products.samples(image, None if self.gamma is None else self.gamma[image])

    def decision(self, element: Tensor, intercept: Tensor) -> DecisionFunction:
        """Return the decision function; a linear one's weights are made from the coefficients of the samples."""
        if self.gamma is not None:
            return GaussianDecision.of_samples(self.x, element, self.gamma, intercept)
        origin = self.products.origin[:, None]
        weights = (self.x - origin).mT @ element
        return LinearDecision(weights, intercept - origin @ weights)


def _of_problems(values: Tensor, image: Tensor) -> Tensor:
    # All problems of a single image share its samples, uncopied.
    return values.expand(len(image), -1, -1) if len(values) == 1 else values[image]
