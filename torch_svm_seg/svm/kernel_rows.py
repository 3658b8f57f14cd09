"""Rows of one image's kernel matrix, computed when they are needed and shared by all of its problems."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.floating]

# Bytes of rows that are kept.
KEPT_BYTES = 240 * 2**20
# Rows that are computed at once, as one alone takes several times as long: where all fit, and where a row that is not
# needed takes the place of one that is.
BLOCK, SMALL_BLOCK = 64, 16


class KernelRows:
    """The latest rows of a kernel matrix (N, N) that were needed, in bounded memory.

    Args:
        read: Returns the rows (m, N) of chosen samples (m,).
        diagonal: The matrix's diagonal, (N,).

    Example:
        >>> rows = KernelRows(lambda chosen: torch.eye(4)[chosen], diagonal=torch.ones(4))
        >>> rows.fetch(2, likely=np.zeros(4)).tolist()
        [0.0, 0.0, 1.0, 0.0]
    """

    def __init__(self, read: Callable[[Tensor], Tensor], diagonal: Tensor) -> None:
        self._read, number = read, len(diagonal)
        self.diagonal: Array = diagonal.numpy()
        scattered = np.linspace(0, number - 1, min(BLOCK, number)).astype(int)
        first = read(torch.from_numpy(scattered)).numpy()
        capacity = min(number, max(KEPT_BYTES // first[0].nbytes, 4 * BLOCK))
        self._block = BLOCK if capacity == number else SMALL_BLOCK
        self._rows = np.empty((capacity, number), first.dtype)
        # Where each sample's row is, -1 for nowhere; whose row is at each place; and when that was last needed.
        self._place, self._owner, self._needed = np.full(number, -1), np.full(capacity, -1), np.zeros(capacity, int)
        self._time = 0
        self._keep(scattered, first)

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """Type of the kernel's values."""
        dtype: np.dtype[np.floating] = self._rows.dtype
        return dtype

    def fetch(self, sample: int, likely: Array) -> Array:
        """Return a row (N,); where it has to be computed, so are those of the samples most ``likely`` (N,) needed."""
        if self._place[sample] < 0:
            wanted = np.where(self._place < 0, likely, -np.inf)
            wanted[sample] = np.inf
            size = min(self._block, int((self._place < 0).sum()))
            chosen = np.argpartition(-wanted, size - 1)[:size]
            self._keep(chosen, self._read(torch.from_numpy(chosen)).numpy())
        place = self._place[sample]
        self._time += 1
        self._needed[place] = self._time
        row: Array = self._rows[place]
        return row

    def product(self, coefficients: Array) -> Array:
        """Return the kernel matrix times coefficients (N,), summed in double."""
        carrying = coefficients.nonzero()[0]
        total = np.zeros(len(coefficients))
        for some in np.array_split(carrying, -(-len(carrying) // BLOCK)) if len(carrying) else []:
            kept = (self._place[some] >= 0).all()
            rows = self._rows[self._place[some]] if kept else self._read(torch.from_numpy(some)).numpy()
            total += coefficients[some] @ rows.astype(np.float64)
        return total

    def _keep(self, samples: NDArray[np.integer], rows: Array) -> None:
        """Keep rows in the place of those that have not been needed for the longest."""
        size = len(samples)
        places = np.argpartition(self._needed, size - 1)[:size]
        self._place[self._owner[places][self._owner[places] >= 0]] = -1
        self._rows[places], self._owner[places], self._place[samples] = rows, samples, places
        self._needed[places] = self._time
