"""The kernel matrix of one image's samples: blocks of it, and its rows, shared by all of the image's problems."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from torch_svm_seg.svm.samples import KernelSamples

Array = NDArray[np.floating]
Indices = NDArray[np.integer]

# Bytes of rows that are kept.
KEPT_BYTES = 176 * 2**20
# Half the squared distances of mapped samples are kept, too, where they take at most so many.
DISTANCES_BYTES = 4 * 2**20
# What is added to the curvature along a pair, in units of the kernel's diagonal: equal samples have none.
LEAST_CURVATURE = 1e-4
# Rows that are computed at once, as one alone takes several times as long.
BLOCK = 64


class KernelRows:
    """A kernel matrix (N, N): the latest rows that were needed are kept, in bounded memory.

    Args:
        samples: The samples, P = 1, on the CPU.

    Attributes:
        diagonal: Its diagonal, (N,).
        least: What is added to distances of mapped samples, > 0: equal samples have none.

    Examples:
        >>> from torch_svm_seg.svm.samples import GaussianSamples
        >>> rows = KernelRows(GaussianSamples(torch.zeros(1, 4, 2), torch.ones(1, 1, 1)))
        >>> rows.product(np.array([0.0, 2.0, 0.0, 1.0])).tolist()
        [3.0, 3.0, 3.0, 3.0]
    """

    def __init__(self, samples: KernelSamples) -> None:
        self.diagonal: Array = samples.diagonal()[0].numpy()
        self._half: Array = self.diagonal / 2
        self.least = self.dtype.type(LEAST_CURVATURE * float(self.diagonal.mean()))
        self._blocks, number = samples.kernel_blocks(), len(self.diagonal)
        self._read = self._blocks(torch.arange(number))
        capacity = min(number, max(KEPT_BYTES // (number * self.dtype.itemsize), 4 * BLOCK))
        self._rows, self._memory = np.empty((capacity, number), self.dtype), np.empty(0, self.dtype)
        # Slot of each sample's row, -1 for nowhere; whose row each slot has; and when that was last needed.
        self._slot, self._owner, self._needed = np.full(number, -1), np.full(capacity, -1), np.zeros(capacity, int)
        self._time = 0
        small = number**2 * self.dtype.itemsize <= DISTANCES_BYTES
        self._near, self._known = np.empty((number, number) if small else (0, 0), self.dtype), [False] * number

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """Type of the kernel's values."""
        return self.diagonal.dtype

    @property
    def whole(self) -> bool:
        """Whether all rows can be kept."""
        return len(self._rows) == len(self._slot)

    def block(self, columns: Indices) -> Callable[[Indices], Array]:
        """Return a function of samples (m,) that computes their kernel values (m, n) with samples ``columns`` (n,)."""
        read = self._blocks(torch.from_numpy(columns))

        def block(samples: Indices) -> Array:
            values: Array = read(torch.from_numpy(samples)).numpy()
            return values

        return block

    def memory(self, size: int) -> Array:
        """Return memory (size, size), the same at each call: to use some for the first time takes long."""
        if self._memory.size < size**2:
            self._memory = np.empty(size**2, self.dtype)
        memory: Array = self._memory[: size**2].reshape(size, size)
        return memory

    def fetch(self, sample: int, likely: Array) -> Array:
        """Return a row (N,); where it has to be computed, so are those of the samples most ``likely`` (N,) needed."""
        self._time += 1
        if self._slot[sample] < 0:
            some = most_likely(sample, likely, self._slot < 0, BLOCK)
            self._keep(some, self._read(torch.from_numpy(some)).numpy())
        self._needed[self._slot[sample]] = self._time
        row: Array = self._rows[self._slot[sample]]
        return row

    def distances(self, sample: int, likely: Array) -> Array:
        """Return half the squared distances (N,) of a mapped sample from all, not to be changed; see :meth:`fetch`."""
        if self._known[sample]:
            kept: Array = self._near[sample]
            return kept
        row: Array = (self._half[sample] + self.least) + self._half
        row -= self.fetch(sample, likely)
        row[sample] = self.least
        if len(self._near):
            self._near[sample], self._known[sample] = row, True
        return row

    def product(self, coefficients: Array) -> Array:
        """Return the kernel matrix times coefficients (N,), summed in double."""
        self._time += 1
        total, carrying, kept = np.zeros(len(coefficients)), coefficients != 0, self._slot >= 0
        for chosen in ((carrying & kept).nonzero()[0], (carrying & ~kept).nonzero()[0]):
            for some in np.array_split(chosen, -(-len(chosen) // BLOCK)) if len(chosen) else []:
                total += coefficients[some] @ self._fetch(some).astype(np.float64)
        return total

    def _fetch(self, samples: Indices) -> Array:
        """Return the rows (m, N) of samples of which all or none are kept, and keep them."""
        slots = self._slot[samples]
        if (slots >= 0).all():
            self._needed[slots] = self._time
            kept: Array = self._rows[slots]
            return kept
        rows: Array = self._read(torch.from_numpy(samples)).numpy()
        self._keep(samples, rows)
        return rows

    def _keep(self, samples: Indices, rows: Array) -> None:
        """Keep rows in the place of those that have not been needed for the longest."""
        size = len(samples)
        slots = np.argpartition(self._needed, size - 1)[:size]
        self._slot[self._owner[slots][self._owner[slots] >= 0]] = -1
        self._rows[slots], self._owner[slots], self._slot[samples] = rows, samples, slots
        self._needed[slots] = self._time


def most_likely(sample: int, likely: Array, missing: NDArray[np.bool_], most: int) -> Indices:
    """Return up to ``most`` of the samples ``missing``, bool (n,): a needed one and those most ``likely`` (n,) so.

    Examples:
        >>> most_likely(0, np.array([0.0, 3.0, -np.inf, 5.0]), np.array([True, True, True, False]), most=2)
        array([0, 1])
    """
    # What is there must not be chosen, however unlikely the others are.
    wanted = np.where(missing, np.maximum(likely, np.finfo(likely.dtype).min), -np.inf)
    wanted[sample] = np.inf
    size = min(most, int(missing.sum()))
    chosen: Indices = np.argpartition(-wanted, size - 1)[:size]
    return chosen
