"""Distances of mapped samples from each other, computed when they are needed."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from torch_svm_seg.svm.kernel_rows import KernelRows, most_likely

Array = NDArray[np.floating]
Indices = NDArray[np.integer]

# Rows that are computed at once, as one alone takes several times as long.
AT_ONCE = 32


class Distances(Protocol):
    """Half the squared distances (n, n) of mapped samples, row by row.

    They are half the curvature of the dual objective along each pair, and their differences are those of the kernel's
    rows, up to a number that all samples share.
    """

    dtype: np.dtype[np.floating]

    def row(self, sample: int, likely: Array) -> Array:
        """Return a row (n,); where it has to be computed, so are those of the samples most ``likely`` (n,) needed."""


class DistancesOfAll:
    """Distances of all samples, made from the rows of the kernel matrix as they are needed.

    Args:
        kernel: The kernel matrix.
        ridge: What is added to its diagonal, (N,).
        least: What is added to all distances, > 0: equal samples have none.

    Example:
        >>> import torch
        >>> from torch_svm_seg.svm.samples import GaussianSamples
        >>> kernel = KernelRows(GaussianSamples(torch.tensor([[[0.0], [99.0]]]), torch.ones(1, 1, 1)))
        >>> DistancesOfAll(kernel, np.zeros(2), least=0.5).row(1, likely=np.zeros(2)).tolist()
        [1.5, 0.5]
    """

    def __init__(self, kernel: KernelRows, ridge: Array, least: float) -> None:
        self.dtype, self._kernel, self._least = kernel.dtype, kernel, least
        self._half = ((kernel.diagonal + ridge) / 2).astype(kernel.dtype)

    def row(self, sample: int, likely: Array) -> Array:
        """Return a row (N,); see :class:`Distances`."""
        row: Array = (self._half[sample] + self._least) + self._half
        row -= self._kernel.fetch(sample, likely)
        row[sample] = self._least
        return row


class DistancesOfFew:
    """Distances of a few samples, which are kept.

    Args:
        kernel: Kernel matrix of all samples.
        few: The samples, (n,).
        ridge: What is added to the kernel's diagonal, (n,).
        least: What is added to all distances, > 0: equal samples have none.

    Example:
        >>> import torch
        >>> from torch_svm_seg.svm.samples import GaussianSamples
        >>> kernel = KernelRows(GaussianSamples(torch.tensor([[[0.0], [9.0], [99.0]]]), torch.ones(1, 1, 1)))
        >>> DistancesOfFew(kernel, np.array([0, 2]), np.zeros(2), least=0.5).row(1, likely=np.zeros(2)).tolist()
        [1.5, 0.5]
    """

    def __init__(self, kernel: KernelRows, few: Indices, ridge: Array, least: float) -> None:
        self.dtype, self._few, self._least, self._block = kernel.dtype, few, least, kernel.block(few)
        self._half = ((kernel.diagonal[few] + ridge) / 2).astype(kernel.dtype)
        self._rows = kernel.memory(len(few))
        # Where each sample's row is, -1 for nowhere; and which are nowhere.
        self._place, self._missing, self._filled = [-1] * len(few), np.ones(len(few), bool), 0

    def row(self, sample: int, likely: Array) -> Array:
        """Return a row (n,); see :class:`Distances`."""
        if self._place[sample] < 0:
            self._compute(most_likely(sample, likely, self._missing, AT_ONCE))
        row: Array = self._rows[self._place[sample]]
        return row

    def _compute(self, chosen: Indices) -> None:
        size = len(chosen)
        rows = self._rows[self._filled : self._filled + size]
        np.subtract(self._half, self._block(self._few[chosen]), out=rows)
        rows += self._half[chosen, None] + self.dtype.type(self._least)
        rows[np.arange(size), chosen] = self._least
        for place, one in enumerate(chosen.tolist(), self._filled):
            self._place[one] = place
        self._missing[chosen] = False
        self._filled += size
