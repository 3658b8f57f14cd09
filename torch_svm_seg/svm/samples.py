"""The samples of binary problems: the space of any few of them, and values of its elements at all.

``SVM.fit`` meets samples as features, or as whatever has their inner products (:class:`InnerProducts`); the solver
meets them as :class:`Samples`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from torch_svm_seg.svm.kernels import gaussian_kernel, kernel_blocks, multiply_by_kernel
from torch_svm_seg.svm.spaces import FeatureSpace, KernelSpace, Space, product, solve_gram, solve_positive
from torch_svm_seg.tensors import first_true, spread_rows, take_rows


class Samples(Protocol):
    """All N samples of P problems: the space of any few of them, and values of its elements at all of them."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of the samples and of the matrices made from them."""

    def double(self) -> "Samples":
        """Return the same samples in double precision."""

    def space(self, rows: Tensor) -> Space:
        """Return the space of the samples ``rows`` (P, n)."""

    def evaluate(self, rows: Tensor, element: Tensor) -> Tensor:
        """Return the inner products (P, N) of an element of ``space(rows)`` with all samples."""

    def squared_norm(self, element: Tensor, values: Tensor) -> Tensor:
        """Return the squared norms (P,) of elements of the space of all samples, ``values`` (P, N) at these."""

    def whole(self, rows: Tensor, element: Tensor) -> Tensor:
        """Return an element of ``space(rows)`` as one of the space of all samples."""

    def part(self, rows: Tensor, element: Tensor) -> Tensor:
        """Return an element of the space of all samples as one of ``space(rows)``, as far as that holds it."""


@runtime_checkable
class KernelSamples(Samples, Protocol):
    """Samples whose elements are the coefficients of expansions in themselves."""

    def kernel_blocks(self) -> Callable[[Tensor], Callable[[Tensor], Tensor]]:
        """Return a function of columns (n,) whose value, a function of rows (m,), computes a block (m, n); P = 1."""

    def diagonal(self) -> Tensor:
        """Return the diagonal of the kernel matrix, (P, N)."""


class DifferentiableSamples(Samples, Protocol):
    """Samples through which a solution has a gradient (``torch_svm_seg.svm.implicit_diff``)."""

    def detach(self) -> "DifferentiableSamples":
        """Return the same samples without a graph."""

    def combine(self, coefficients: Tensor) -> Tensor:
        """Return the element sum_i coefficients_i phi(x_i) of the space of all samples; coefficients (P, N)."""

    def evaluate_at(self, rows: Tensor, element: Tensor) -> Tensor:
        """Return the inner products (P, n) of samples ``rows`` (P, n) with an element of the space of all samples."""

    def solve(self, rows: Tensor, diagonal: Tensor, valid: Tensor, right: Tensor) -> Tensor:
        """Solve (M + diag(diagonal)) s = right, M the inner products of few samples, in double precision.

        Args:
            rows: The samples, (P, A).
            diagonal: > 0, (P, A).
            valid: Which of them take part, bool (P, A).
            right: Right sides (P, A, m), 0 where not valid, as the solution is.
        """


class InnerProducts(Protocol):
    """N samples of B images that are known by their inner products, at less cost than by D features.

    The exact kernels need no more of samples than that: |x - z|^2 = |x|^2 - 2 x . z + |z|^2 for any origin.
    """

    @property
    def origin(self) -> Tensor:
        """Point of each image that the products are about, (B, D)."""

    @property
    def squared_norms(self) -> Tensor:
        """Squared norms of the samples about the origin, (B, N)."""

    def samples(self, image: Tensor, gamma: Tensor | None) -> Samples:
        """Return the samples of problems of the images ``image`` (P,), whose elements are coefficients of samples.

        Args:
            image: The image of each problem, (P,).
            gamma: Coefficient of the Gaussian kernel, (P, 1, 1); None for the linear kernel about the origin.
        """


@dataclass
class FeatureSamples:
    """Samples with explicit features (P, N, E).

    Examples:
        >>> samples = FeatureSamples(torch.rand(2, 50, 3))
        >>> samples.evaluate(torch.zeros(2, 4, dtype=torch.long), torch.rand(2, 3)).shape
        torch.Size([2, 50])
    """

    features: Tensor

    @property
    def dtype(self) -> torch.dtype:
        """Type of the samples and of the matrices made from them."""
        return self.features.dtype

    def double(self) -> "FeatureSamples":
        """Return the same samples in double precision."""
        return FeatureSamples(self.features.double())

    def detach(self) -> "FeatureSamples":
        """Return the same samples without a graph."""
        return FeatureSamples(self.features.detach())

    def space(self, rows: Tensor) -> FeatureSpace:
        """Return the space of the samples ``rows`` (P, n)."""
        return FeatureSpace(take_rows(self.features, rows))

    def evaluate(self, rows: Tensor, element: Tensor) -> Tensor:
        """Return the inner products (P, N) of an element of ``space(rows)`` with all samples."""
        return product(self.features, element)

    def squared_norm(self, element: Tensor, values: Tensor) -> Tensor:
        """Return the squared norms (P,) of elements of the space of all samples, ``values`` (P, N) at these."""
        return element.square().sum(1)

    def combine(self, coefficients: Tensor) -> Tensor:
        """Return the element sum_i coefficients_i phi(x_i); coefficients (P, N)."""
        return product(self.features.mT, coefficients)

    def evaluate_at(self, rows: Tensor, element: Tensor) -> Tensor:
        """Return the inner products (P, n) of the samples ``rows`` (P, n) with an element."""
        return product(take_rows(self.features, rows), element)

    def solve(self, rows: Tensor, diagonal: Tensor, valid: Tensor, right: Tensor) -> Tensor:
        """Solve (M + diag(diagonal)) s = right; see :class:`DifferentiableSamples`."""
        chosen = take_rows(self.features, rows).double() * valid[..., None]
        if chosen.shape[1] <= chosen.shape[2]:
            return solve_gram(chosen @ chosen.mT, diagonal, valid, right)
        # Fewer features than samples: their own system is the smaller one (Woodbury's identity).
        scaled = chosen / diagonal[..., None]
        system = chosen.mT @ scaled
        system.diagonal(dim1=1, dim2=2).add_(1)
        return right / diagonal[..., None] - scaled @ solve_positive(system, scaled.mT @ right)

    def whole(self, rows: Tensor, element: Tensor) -> Tensor:
        """Return an element of ``space(rows)`` as one of the space of all samples."""
        return element

    def part(self, rows: Tensor, element: Tensor) -> Tensor:
        """Return an element of the space of all samples as one of ``space(rows)``."""
        return element


@dataclass
class GaussianSamples:
    """Samples x (P, N, D) under the kernel exp(-gamma |x - z|^2), gamma (P, 1, 1).

    Examples:
        >>> samples = GaussianSamples(torch.rand(2, 50, 3), torch.ones(2, 1, 1))
        >>> samples.space(torch.arange(4).expand(2, -1)).kernel.shape
        torch.Size([2, 4, 4])
    """

    x: Tensor
    gamma: Tensor

    @property
    def dtype(self) -> torch.dtype:
        """Type of the samples and of the matrices made from them."""
        return self.x.dtype

    def double(self) -> "GaussianSamples":
        """Return the same samples in double precision."""
        return GaussianSamples(self.x.double(), self.gamma.double())

    def detach(self) -> "GaussianSamples":
        """Return the same samples without a graph."""
        return GaussianSamples(self.x.detach(), self.gamma.detach())

    def kernel_blocks(self) -> Callable[[Tensor], Callable[[Tensor], Tensor]]:
        """Return a function of columns (n,) whose value, a function of rows (m,), computes a block (m, n); P = 1."""
        return kernel_blocks(self.x, self.gamma)

    def diagonal(self) -> Tensor:
        """Return the diagonal of the kernel matrix, (P, N)."""
        return torch.ones_like(self.x[..., 0])

    def space(self, rows: Tensor) -> KernelSpace:
        """Return the space of the samples ``rows`` (P, n)."""
        chosen = take_rows(self.x, rows)
        return KernelSpace(gaussian_kernel(chosen, chosen, self.gamma))

    def evaluate(self, rows: Tensor, element: Tensor) -> Tensor:
        """Return the inner products (P, N) of an element of ``space(rows)`` with all samples."""
        return self._evaluate(self.x, self.whole(rows, element))

    def squared_norm(self, element: Tensor, values: Tensor) -> Tensor:
        """Return the squared norms (P,) of elements of the space of all samples, ``values`` (P, N) at these."""
        return (element * values).sum(1)

    def combine(self, coefficients: Tensor) -> Tensor:
        """Return the element sum_i coefficients_i phi(x_i); coefficients (P, N)."""
        return coefficients

    def evaluate_at(self, rows: Tensor, element: Tensor) -> Tensor:
        """Return the inner products (P, n) of the samples ``rows`` (P, n) with an element."""
        return self._evaluate(take_rows(self.x, rows), element)

    def _evaluate(self, points: Tensor, element: Tensor) -> Tensor:
        carrying, _ = first_true(element != 0)
        coefficients = element.gather(1, carrying)[..., None].to(self.x.dtype)
        return multiply_by_kernel(points, take_rows(self.x, carrying), self.gamma, coefficients)[..., 0].double()

    def solve(self, rows: Tensor, diagonal: Tensor, valid: Tensor, right: Tensor) -> Tensor:
        """Solve (M + diag(diagonal)) s = right; see :class:`DifferentiableSamples`."""
        chosen = take_rows(self.x, rows).double()
        return solve_gram(gaussian_kernel(chosen, chosen, self.gamma.double()), diagonal, valid, right)

    def whole(self, rows: Tensor, element: Tensor) -> Tensor:
        """Return an element of ``space(rows)`` as one of the space of all samples."""
        return spread_rows(element, rows, self.x.shape[1])

    def part(self, rows: Tensor, element: Tensor) -> Tensor:
        """Return an element of the space of all samples as one of ``space(rows)``."""
        return element.gather(1, rows)
