"""One-vs-rest least-squares classifiers of any number of samples, from sums over them.

The least-squares SVM (Suykens and Vandewalle, 1999) replaces the hinge by the squared distance to the target, 1 for the
class and 0 for the rest. With a linear kernel its solution depends on the samples through their number, sum and second
moment alone, class by class. These add up over blocks, images and processes, so that ten million samples need no more
memory than ten, and every choice of class weights and regularisation is solved from one pass.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from torch_svm_seg.tensors import deviation, rounding


class LinearScores(NamedTuple):
    """A linear decision function of K classes.

    Attributes:
        weight: One row per feature, one column per class, (D, K).
        intercept: Intercept of each class, (K,); -inf for a class without samples.

    Examples:
        >>> scores = LinearScores(torch.eye(2), torch.zeros(2))
        >>> scores(torch.tensor([[3.0, 1.0]]))
        tensor([[3., 1.]])
    """

    weight: Tensor
    intercept: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Return the scores (..., K) of samples (..., D)."""
        return x @ self.weight + self.intercept


class ClassMoments(NamedTuple):
    """Number, sum and second moment of the samples of each class, in double precision.

    Attributes:
        counts: Number of samples of each class, or the sum of their weights, (K,).
        sums: Their sums, (K, D).
        products: Sums of their outer products, (K, D, D).

    Examples:
        >>> moments = ClassMoments.zeros(num_classes=2, channels=3)
        >>> moments.add(torch.rand(5, 3), torch.tensor([0, 0, 1, 1, 1]))
        >>> moments.counts.tolist()
        [2.0, 3.0]
    """

    counts: Tensor
    sums: Tensor
    products: Tensor

    @classmethod
    def zeros(cls, num_classes: int, channels: int) -> "ClassMoments":
        """Return the moments of no samples."""
        shape = (num_classes, channels)
        return cls(*(torch.zeros(size, dtype=torch.float64) for size in (shape[:1], shape, (*shape, channels))))

    def add(self, x: Tensor, y: Tensor, weights: Tensor | None = None) -> None:
        """Add samples.

        Args:
            x: Samples (N, D), floating point.
            y: Their class ids (N,), integer.
            weights: Their weights >= 0, (N,): a sample of weight 2 counts as two; 1 by default.

        Raises:
            ValueError: The samples are not finite, or an argument is not as above. Nothing is added then.
        """
        weights = torch.ones_like(y) if weights is None else weights
        self._check(x, y, weights)
        for id in y.unique().tolist():
            own, weight = x[y == id].double(), weights[y == id].double()
            weighted = weight[:, None] * own
            self.counts[id] += weight.sum().cpu()
            self.sums[id] += weighted.sum(0).cpu()
            self.products[id] += (own.mT @ weighted).cpu()

    def solve(self, ridge: float = 0.5) -> LinearScores:
        """Return the classifiers with the least squared error and ridge penalty.

        A sample weighs 1 / sqrt(n), of a class with n samples. Channels that are constant but for rounding get weight
        0.

        Args:
            ridge: Penalty > 0 of the squared weights of channels scaled to variance 1, in parts of the samples' mean
                loss.

        Raises:
            ValueError: ``ridge`` is not positive, or there are no samples.
        """
        if not ridge > 0:
            raise ValueError(f"ridge: expected more than 0, got {ridge}")
        if not bool(self.counts.any()):
            raise ValueError("moments: expected samples, got none")
        weight = self.counts.clamp_min(1).rsqrt()
        weight = weight / (weight * self.counts).sum()
        mean = weight @ self.sums
        products = torch.einsum("k,kij->ij", weight, self.products)
        covariance = products - mean[:, None] * mean
        # Scores are computed in single precision.
        scale = deviation(covariance.diagonal(), rounding(products.diagonal().sqrt(), torch.float32))
        correlation = covariance / (scale[:, None] * scale) + ridge * torch.eye(len(mean), dtype=mean.dtype)
        targets = weight[:, None] * (self.sums - self.counts[:, None] * mean)
        solution = torch.linalg.solve(correlation, (targets / scale).mT) / scale[:, None]
        intercept = weight * self.counts - mean @ solution
        intercept = torch.where(self.counts > 0, intercept, -torch.inf)
        return LinearScores(solution.float(), intercept.float())

    def _check(self, x: Tensor, y: Tensor, weights: Tensor) -> None:
        """Raise ValueError unless samples, class ids and weights are as :meth:`add` documents them."""
        classes, channels = self.sums.shape
        if x.dim() != 2 or x.shape[1] != channels or not x.dtype.is_floating_point:
            raise ValueError(f"x: expected floating point (N, {channels}), got {x.dtype} {tuple(x.shape)}")
        if not bool(x.isfinite().all()):
            raise ValueError("x: expected finite samples, got nan or inf")
        if y.shape != x.shape[:1] or y.dtype.is_floating_point:
            raise ValueError(f"y: expected integer ({len(x)},), got {y.dtype} {tuple(y.shape)}")
        if bool(((y < 0) | (y >= classes)).any()):
            raise ValueError(f"y: expected class ids in 0 to {classes - 1}, got {int(y.min())} to {int(y.max())}")
        if weights.shape != y.shape:
            raise ValueError(f"weights: expected ({len(x)},), got {tuple(weights.shape)}")
        if not bool((weights.isfinite() & (weights >= 0)).all()):
            raise ValueError("weights: expected finite weights >= 0, got a negative or non-finite one")
