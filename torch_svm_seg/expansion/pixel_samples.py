"""Inner products of interpolated pixels, from those of the cells that they lie between."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from torch_svm_seg.expansion.interpolation import FEW_CHANNELS, Neighbours, cell_rows
from torch_svm_seg.svm.kernels import BLOCK_ENTRIES, LOG2_E
from torch_svm_seg.svm.spaces import KernelSpace
from torch_svm_seg.tensors import first_true, spread_rows

# Samples whose products with the cells are held at once: tables of so many columns stay in a cache.
COLUMNS = 1024


@dataclass
class PixelProducts:
    """Inner products of N pixels of B images whose features are interpolated from G cells, about the cells' mean.

    Interpolation is linear: the inner product of two pixels is a weighted sum of 4 x 4 of those of the cells, however
    many channels there are. With 1,024 channels that takes a fortieth of the time of multiplying the pixels' features.

    Attributes:
        features: Of the cells, less their mean, (B, G, C).
        mean: (B, C).
        indices, weights: Of the four cells around each pixel, (B, N, 4).
        cells: Inner products of the cells, (B, G, G).
        norms: Squared norms of the pixels, (B, N).
    """

    features: Tensor
    mean: Tensor
    indices: Tensor
    weights: Tensor
    cells: Tensor
    norms: Tensor

    @classmethod
    @torch.no_grad()
    def of_pixels(cls, features: Tensor, positions: Tensor, size: tuple[int, int]) -> "PixelProducts":
        """Of the flat pixel positions (B, N), in images of ``size`` (H, W), between features (B, C, h, w)."""
        grid = (features.shape[2], features.shape[3])
        rows = cell_rows(features)
        mean = rows.mean(1)
        neighbours = Neighbours.of(positions, grid, size, features.dtype)
        return cls._of_cells(rows - mean[:, None], mean, neighbours.indices % rows.shape[1], neighbours.weights)

    @classmethod
    def _of_cells(cls, features: Tensor, mean: Tensor, indices: Tensor, weights: Tensor) -> "PixelProducts":
        cells = features @ features.mT
        image = torch.arange(len(cells), device=cells.device)[:, None, None, None]
        around = cells[image, indices[..., :, None], indices[..., None, :]]  # (B, N, 4, 4)
        norms = (weights[..., None, :] @ around @ weights[..., :, None])[..., 0, 0]
        return cls(features, mean, indices, weights, cells, norms)

    def double(self) -> "PixelProducts":
        """The products in double precision."""
        return self._of_cells(self.features.double(), self.mean.double(), self.indices, self.weights.double())

    @property
    def number(self) -> int:
        """Of an image's pixels, N."""
        return self.norms.shape[1]

    def with_cells(self, images: Tensor, pixels: Tensor) -> Tensor:
        """Inner products of the cells of images (P,) with chosen pixels (P, n) of them, (P, G, n)."""
        return self._read(self.cells, images, images, pixels).mT.contiguous()

    def read(self, table: Tensor, images: Tensor, pixels: Tensor) -> Tensor:
        """Rows (P, n, E) of tables (P, G, E), interpolated at chosen pixels (P, n) of images (P,)."""
        return self._read(table, torch.arange(len(table), device=table.device), images, pixels)

    def _read(self, tables: Tensor, chosen: Tensor, images: Tensor, pixels: Tensor) -> Tensor:
        indices = self.indices[images[:, None], pixels] + tables.shape[1] * chosen[:, None, None]
        weights = self.weights[images[:, None], pixels]
        read: Tensor = F.embedding_bag(
            indices.flatten(0, 1), tables.flatten(0, 1), per_sample_weights=weights.flatten(0, 1), mode="sum"
        )
        return read.view(*pixels.shape, tables.shape[2])


@dataclass
class PixelSamples:
    """Samples that are pixels between the cells of a grid: inner products are interpolated from those of the cells.

    Attributes:
        products: Of B images' pixels.
        images: The image that each of P problems is of, (P,).
        gamma: Of the Gaussian kernel, (P, 1, 1); ``None`` for the linear one, whose origin is the cells' mean.
    """

    products: PixelProducts
    images: Tensor
    gamma: Tensor | None = None

    @property
    def dtype(self) -> torch.dtype:
        return self.products.cells.dtype

    def double(self) -> "PixelSamples":
        return PixelSamples(self.products.double(), self.images, None if self.gamma is None else self.gamma.double())

    def space(self, rows: Tensor) -> KernelSpace:
        kernel = self.products.cells.new_empty(*rows.shape, rows.shape[1])
        for columns, part in zip(rows.split(COLUMNS, dim=1), kernel.split(COLUMNS, dim=2), strict=True):
            part.copy_(self._kernel(rows, self._table(columns)))
        return KernelSpace(kernel)

    def evaluate(self, rows: Tensor, element: Tensor) -> Tensor:
        carrying, _ = first_true(element != 0)
        columns, coefficients = rows.gather(1, carrying), element.gather(1, carrying)[..., None].to(self.dtype)
        everyone = torch.arange(self.products.number, device=rows.device).expand(len(rows), -1)
        total = torch.zeros_like(everyone, dtype=torch.float64)
        for some, factors in zip(columns.split(COLUMNS, dim=1), coefficients.split(COLUMNS, dim=1), strict=True):
            table = self._table(some)
            blocks = everyone.split(max(BLOCK_ENTRIES // max(some.numel(), 1), 1), dim=1)
            total += torch.cat([(self._kernel(block, table) @ factors)[..., 0] for block in blocks], 1)
        return total

    def whole(self, rows: Tensor, element: Tensor) -> Tensor:
        return spread_rows(element, rows, self.products.number)

    def part(self, rows: Tensor, element: Tensor) -> Tensor:
        return element.gather(1, rows)

    def _table(self, columns: Tensor) -> Tensor:
        """What the cells contribute to kernel values with the samples ``columns`` (P, n), (P, cells, n)."""
        table = self.products.with_cells(self.images, columns)
        if self.gamma is None:
            return table
        rate = LOG2_E * self.gamma
        return 2 * rate * table - rate * self._squared_norms(columns)[:, None]

    def _kernel(self, rows: Tensor, table: Tensor) -> Tensor:
        """Kernel values (P, m, n) of the samples ``rows`` (P, m) with those of a table."""
        values = self.products.read(table, self.images, rows)
        if self.gamma is None:
            return values
        return (values - LOG2_E * self.gamma * self._squared_norms(rows)[..., None]).exp2_()

    def _squared_norms(self, rows: Tensor) -> Tensor:
        return self.products.norms[self.images[:, None], rows]


def pixel_products(
    maps: Sequence[Tensor], positions: Tensor, size: tuple[int, int]
) -> Callable[[], PixelProducts] | None:
    """What makes the products of pixels, as of ``PixelProducts.of_pixels``; none where they would save no time.

    They pay for a single map of many channels with at least four pixels to a cell: the products of all cells have to be
    computed first.
    """
    features = maps[0]
    many = features.shape[1] > FEW_CHANNELS and 4 * features.shape[2] * features.shape[3] <= positions.shape[1]
    return partial(PixelProducts.of_pixels, features, positions, size) if many and len(maps) == 1 else None
