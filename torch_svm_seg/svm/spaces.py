"""Hilbert spaces of mapped samples, in which binary problems are solved: inner products and Newton's directions."""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from torch_svm_seg.tensors import dot, first_true, on_cpu, spread_rows, take_rows

# What is less is the sum of no rows.
NOTHING = 1e-200


def product(matrix: Tensor, vector: Tensor) -> Tensor:
    """Multiply matrices (P, n, m), in their own precision, by double vectors (P, m).

    Examples:
        >>> product(torch.ones(1, 2, 3), torch.ones(1, 3, dtype=torch.float64))
        tensor([[3., 3.]], dtype=torch.float64)
    """
    return torch.bmm(matrix, vector.to(matrix.dtype)[..., None])[..., 0].double()


class Space(Protocol):
    """A Hilbert space holding n mapped samples in each of P problems; its elements w have shape (P, E).

    Matrices are in the samples' precision, and all vectors double: they cost nothing beside the matrices, and a
    duality gap is a small difference of large sums.
    """

    def combine(self, coefficients: Tensor) -> Tensor:
        """Return the element sum_i coefficients_i phi(x_i); coefficients (P, n)."""

    def evaluate(self, element: Tensor) -> Tensor:
        """Return its inner products with all samples, (P, n)."""

    def inner(self, first: Tensor, second: Tensor, second_values: Tensor) -> Tensor:
        """Return the inner products of two elements, (P,); ``second_values`` is ``evaluate(second)``."""

    def evaluate_near(self, element: Tensor, other: Tensor, other_values: Tensor) -> Tensor:
        """Return ``evaluate(element)``, where ``other_values``, those of a similar element, may help."""

    def newton(
        self, rows: Tensor, slopes: Tensor, residual: Tensor, residual_values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return Newton's direction of the element, its values, and the direction (P, 1) of the intercept.

        With Phi the samples ``rows`` (P, A) and S their ``slopes`` (P, A; 0 is padding), the Hessian is I + Phi' S Phi
        in the element and [Phi 1]' S [Phi 1] where the intercept takes part. ``residual`` is the gradient in the
        element; that in the intercept is 0.
        """


@dataclass
class KernelSpace:
    """Samples given by their kernel matrix (P, n, n); elements are the coefficients of expansions in the samples.

    Examples:
        >>> space = KernelSpace(torch.eye(4).expand(2, -1, -1))
        >>> space.evaluate(torch.ones(2, 4)).shape
        torch.Size([2, 4])
    """

    kernel: Tensor

    @cached_property
    def _problems(self) -> Tensor:
        return torch.arange(len(self.kernel), device=self.kernel.device)[:, None]

    def combine(self, coefficients: Tensor) -> Tensor:
        """Return the element sum_i coefficients_i phi(x_i); coefficients (P, n)."""
        return coefficients

    def evaluate(self, element: Tensor) -> Tensor:
        """Return the inner products (P, n) of an element with all samples."""
        if not on_cpu(element):  # which would have to be waited for, to know how many coefficients there are
            return product(self.kernel, element)
        # Most elements are combinations of few samples: only their rows of the matrix are read, and none is copied.
        rows, _ = first_true(element != 0)
        problems, size = element.shape
        table = rows + size * torch.arange(problems, device=rows.device)[:, None]
        coefficients = element.gather(1, rows).to(self.kernel.dtype)
        return F.embedding_bag(table, self.kernel.flatten(0, 1), per_sample_weights=coefficients, mode="sum").double()

    def evaluate_near(self, element: Tensor, other: Tensor, other_values: Tensor) -> Tensor:
        """Return ``evaluate(element)``, by way of the values of a similar element."""
        change = element - other
        if not on_cpu(element) or 2 * int((change != 0).sum()) > int((element != 0).sum()):
            return self.evaluate(element)
        return other_values + self.evaluate(change)

    def inner(self, first: Tensor, second: Tensor, second_values: Tensor) -> Tensor:
        """Return the inner products (P,) of two elements."""
        return dot(first, second_values)

    def newton(
        self, rows: Tensor, slopes: Tensor, residual: Tensor, residual_values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return Newton's direction; see :class:`Space`."""
        block = self.kernel[self._problems, rows]
        gram = block.gather(2, rows[:, None].expand(-1, rows.shape[1], -1))
        multipliers, turn = _newton_by_samples(gram, slopes, residual_values.gather(1, rows))
        correction = spread_rows(multipliers, rows, residual.shape[1])
        return correction - residual, product(block.mT, multipliers) - residual_values, turn


@dataclass
class FeatureSpace:
    """Samples given by explicit features (P, n, E); elements are weight vectors.

    Examples:
        >>> space = FeatureSpace(torch.rand(2, 4, 3))
        >>> space.evaluate(space.combine(torch.ones(2, 4))).shape
        torch.Size([2, 4])
    """

    features: Tensor

    def combine(self, coefficients: Tensor) -> Tensor:
        """Return the element sum_i coefficients_i phi(x_i); coefficients (P, n)."""
        return product(self.features.mT, coefficients)

    def evaluate(self, element: Tensor) -> Tensor:
        """Return the inner products (P, n) of an element with all samples."""
        return product(self.features, element)

    def evaluate_near(self, element: Tensor, other: Tensor, other_values: Tensor) -> Tensor:
        """Return ``evaluate(element)``, by way of the values of a similar element."""
        return self.evaluate(element)

    def inner(self, first: Tensor, second: Tensor, second_values: Tensor) -> Tensor:
        """Return the inner products (P,) of two elements."""
        return dot(first, second)

    def newton(
        self, rows: Tensor, slopes: Tensor, residual: Tensor, residual_values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return Newton's direction; see :class:`Space`."""
        direction, turn = self._newton(
            take_rows(self.features, rows), slopes, residual, residual_values.gather(1, rows)
        )
        return direction, self.evaluate(direction), turn

    @staticmethod
    def _newton(chosen: Tensor, slopes: Tensor, residual: Tensor, residual_values: Tensor) -> tuple[Tensor, Tensor]:
        if chosen.shape[1] <= chosen.shape[2]:
            multipliers, turn = _newton_by_samples(chosen @ chosen.mT, slopes, residual_values)
            return product(chosen.mT, multipliers) - residual, turn
        # Fewer features than samples: their own system is the smaller one.
        hessian = chosen.mT @ (chosen * slopes.to(chosen.dtype)[..., None])
        hessian.diagonal(dim1=1, dim2=2).add_(1)
        mixed = product(chosen.mT, slopes)
        by_residual, by_mixed = solve_positive(hessian, torch.stack([residual, mixed], -1)).unbind(-1)
        curvature = (slopes.sum(1) - (mixed * by_mixed).sum(1))[:, None]
        turn = quotient((mixed * by_residual).sum(1, keepdim=True), curvature)
        return -by_residual - turn * by_mixed, turn


def _newton_by_samples(gram: Tensor, slopes: Tensor, residual_values: Tensor) -> tuple[Tensor, Tensor]:
    """Newton's step by Woodbury's identity: coefficients (P, A) to take from the zone's samples; the intercept's.

    With R = S^(1/2), (K + S^-1)^-1 = R (R K R + I)^-1 R; padding, of slope 0, is not part of that.
    """
    roots = slopes.clamp(min=NOTHING).sqrt() - NOTHING**0.5  # the root of 0 has no derivative
    single = roots.to(gram.dtype)
    system = gram * single[:, :, None] * single[:, None, :]
    system.diagonal(dim1=1, dim2=2).add_(1)
    right = torch.stack([roots * residual_values, roots], -1)
    return without_border(solve_positive(system, right) * roots[..., None])


def with_ones(right: Tensor) -> Tensor:
    """Return a right side (P, A) and, beside it, that of the border: (P, A, 2)."""
    return torch.stack([right, torch.ones_like(right)], -1)


def without_border(solutions: Tensor, total: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return, from solutions (P, A, 2) of M s = (right, 1), that of [M, 1; 1', 0] (solution, border) = (right, total).

    Returns:
        The solution (P, A), and the border's unknown (P, 1), 0 in a problem without rows.
    """
    right_sum, one_sum = solutions.sum(1).split(1, dim=1)
    border = (right_sum if total is None else right_sum - total) / one_sum.clamp(min=NOTHING)
    by_right, by_one = solutions.unbind(-1)
    return torch.addcmul(by_right, border, by_one, value=-1), border


def solve_gram(gram: Tensor, diagonal: Tensor, valid: Tensor, right: Tensor) -> Tensor:
    """Solve (gram + diag(diagonal)) s = right, (P, A, m), on the valid rows and columns, 0 elsewhere; double."""
    gram = gram * (valid[:, :, None] & valid[:, None, :])
    gram.diagonal(dim1=1, dim2=2).add_(torch.where(valid, diagonal, 1).to(gram.dtype))
    return solve_positive(gram, right)


def quotient(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Return their quotient; 0, with a derivative of 0, where the denominator is not positive.

    Examples:
        >>> quotient(torch.tensor([6.0, 1.0]), torch.tensor([3.0, 0.0]))
        tensor([2., 0.])
    """
    positive = denominator > 0
    return numerator * positive / torch.where(positive, denominator, 1)


def solve_positive(system: Tensor, right: Tensor) -> Tensor:
    """Solve positive definite systems; rounding that made one indefinite is met with just enough of a ridge.

    The factor is in the system's precision, the right side (P, n, m) and the solution double. Raises LinAlgError where
    the system is not finite.
    """
    factor, info = torch.linalg.cholesky_ex(system)
    ridge = None
    while bool(info.any()):
        if ridge is None:
            ridge = torch.finfo(system.dtype).eps * system.diagonal(dim1=1, dim2=2).sum(1)[:, None]
        if not bool(ridge.isfinite().all()):
            raise torch.linalg.LinAlgError("system: too large for its precision")  # type: ignore[attr-defined]
        system.diagonal(dim1=1, dim2=2).add_(ridge)
        factor, info = torch.linalg.cholesky_ex(system)
        ridge = ridge * 10
    return torch.cholesky_solve(right.to(factor.dtype), factor).double()
