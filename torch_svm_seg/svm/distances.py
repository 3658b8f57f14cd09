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

    half: Array  # half the diagonal of the kernel matrix, (n,)
    least: np.floating  # what is added to all distances

    def row(self, sample: int, likely: Array) -> Array:
        """Return a row (n,), not to be changed; where it is computed, so are those most ``likely`` (n,) next."""


class DistancesOfAll:
    """Distances of all samples, made from the rows of the kernel matrix as they are needed.

    Args:
        kernel: The kernel matrix.
        ridge: What is added to its diagonal, (N,).

    Examples:
        >>> import torch
        >>> from torch_svm_seg.svm.samples import GaussianSamples
        >>> kernel = KernelRows(GaussianSamples(torch.tensor([[[0.0], [99.0]]]), torch.ones(1, 1, 1)))
        >>> DistancesOfAll(kernel, np.zeros(2)).row(1, likely=np.zeros(2)).round(3).tolist()
        [1.0, 0.0]
    """

    def __init__(self, kernel: KernelRows, ridge: Array) -> None:
        self.half, self.least, self._kernel = ((kernel.diagonal + ridge) / 2).astype(kernel.dtype), kernel.least, kernel
        self._half_ridge = (ridge / 2).astype(kernel.dtype) if ridge.any() else None

    def row(self, sample: int, likely: Array) -> Array:
        """Return a row (N,); see :class:`Distances`."""
        row = self._kernel.distances(sample, likely)
        if self._half_ridge is None:
            return row
        further: Array = row + (self._half_ridge[sample] + self._half_ridge)
        further[sample] = self.least
        return further


class DistancesOfFew:
    """Distances of a few samples, which are kept.

    Args:
        kernel: Kernel matrix of all samples.
        few: The samples, (n,).
        ridge: What is added to the kernel's diagonal, (n,).

    Examples:
        >>> import torch
        >>> from torch_svm_seg.svm.samples import GaussianSamples
        >>> kernel = KernelRows(GaussianSamples(torch.tensor([[[0.0], [9.0], [99.0]]]), torch.ones(1, 1, 1)))
        >>> DistancesOfFew(kernel, np.array([0, 2]), np.zeros(2)).row(1, likely=np.zeros(2)).round(3).tolist()
        [1.0, 0.0]
    """

    def __init__(self, kernel: KernelRows, few: Indices, ridge: Array) -> None:
        self.least, self._few, self._block = kernel.least, few, kernel.block(few)
        self.half = ((kernel.diagonal[few] + ridge) / 2).astype(kernel.dtype)
        self._rows = kernel.memory(len(few))
        # Slot of each sample's row, -1 for nowhere; and which are nowhere.
        self._slot, self._missing, self._filled = [-1] * len(few), np.ones(len(few), bool), 0

    def row(self, sample: int, likely: Array) -> Array:
        """Return a row (n,); see :class:`Distances`."""
        if self._slot[sample] < 0:
            self._compute(most_likely(sample, likely, self._missing, AT_ONCE))
        row: Array = self._rows[self._slot[sample]]
        return row

    def _compute(self, chosen: Indices) -> None:
        size = len(chosen)
        rows = self._rows[self._filled : self._filled + size]
        np.subtract(self.half, self._block(self._few[chosen]), out=rows)
        rows += self.half[chosen, None] + self.least
        rows[np.arange(size), chosen] = self.least
        for slot, one in enumerate(chosen.tolist(), self._filled):
            self._slot[one] = slot
        self._missing[chosen] = False
        self._filled += size
