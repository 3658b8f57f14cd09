"""Inner products of interpolated pixels, from those of the cells that they lie between."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor
from torch.nn import functional as F

from torch_svm_seg.expansion.interpolation import FEW_CHANNELS, Neighbours, cell_rows
from torch_svm_seg.svm.kernels import LOG2_E, block_entries
from torch_svm_seg.svm.spaces import KernelSpace
from torch_svm_seg.tensors import first_true, padded, spread_rows

# Samples whose products with the cells are held at once: tables of so many columns stay in a cache.
COLUMNS = 1024


@dataclass
class PixelProducts:
    """Inner products of N pixels of B images whose features are interpolated from G cells, about the cells' mean.

    Interpolation is linear: the inner product of two pixels is a weighted sum of 4 x 4 of those of the cells, however
    many channels there are. With 1,024 channels that takes a fortieth of the time of multiplying the pixels' features.
    They are what an SVM can be fitted with: see ``torch_svm_seg.svm.samples.InnerProducts``.

    Attributes:
        features: Features of the cells, less their mean, (B, G, C).
        origin: Mean of the cells, (B, C).
        indices, weights: The four cells around each pixel and their shares in it, (B, N, 4).

    Examples:
        >>> features, positions = torch.rand(1, 6, 5, 7), torch.tensor([[0, 3, 99]])
        >>> products = PixelProducts.of_pixels(features, positions, (10, 14))
        >>> tuple(products.cells.shape), tuple(products.squared_norms.shape)
        ((1, 35, 35), (1, 3))
    """

    features: Tensor
    origin: Tensor
    indices: Tensor
    weights: Tensor

    @classmethod
    @torch.no_grad()
    def of_pixels(cls, features: Tensor, positions: Tensor, size: tuple[int, int]) -> "PixelProducts":
        """Return those of flat positions (B, N) in images of ``size`` (H, W), between features (B, C, h, w)."""
        grid = (features.shape[2], features.shape[3])
        rows = cell_rows(features)
        origin = rows.mean(1)
        neighbours = Neighbours.of(positions, grid, size, features.dtype)
        return cls(rows - origin[:, None], origin, neighbours.indices % rows.shape[1], neighbours.weights)

    @classmethod
    def joined(cls, parts: Sequence["PixelProducts"]) -> "PixelProducts":
        """Return the products of the images of all parts, whose numbers of cells and pixels may differ.

        Products with padding mean nothing.
        """
        cells = max(part.features.shape[1] for part in parts)
        pixels = max(part.number for part in parts)
        return cls(
            torch.cat([padded(part.features, cells) for part in parts]),
            torch.cat([part.origin for part in parts]),
            torch.cat([padded(part.indices, pixels) for part in parts]),
            torch.cat([padded(part.weights, pixels) for part in parts]),
        )

    @cached_property
    def cells(self) -> Tensor:
        """Inner products of the cells, (B, G, G)."""
        return self.features @ self.features.mT

    @cached_property
    def squared_norms(self) -> Tensor:
        """Squared norms of the pixels, (B, N)."""
        image = torch.arange(len(self.cells), device=self.cells.device)[:, None, None, None]
        around = self.cells[image, self.indices[..., :, None], self.indices[..., None, :]]  # (B, N, 4, 4)
        squared_norms: Tensor = self.weights[..., None, :] @ around @ self.weights[..., :, None]
        return squared_norms[..., 0, 0]

    def double(self) -> "PixelProducts":
        """Return the products in double precision."""
        return PixelProducts(self.features.double(), self.origin.double(), self.indices, self.weights.double())

    def samples(self, image: Tensor, gamma: Tensor | None) -> "PixelSamples":
        """Return the samples of problems of the images ``image`` (P,), under a kernel of gamma (P, 1, 1)."""
        return PixelSamples(self, image, gamma)

    @property
    def number(self) -> int:
        """Number of an image's pixels, N."""
        return self.indices.shape[1]

    def with_cells(self, images: Tensor, pixels: Tensor) -> Tensor:
        """Return the inner products of the cells of images (P,) with chosen pixels (P, n) of them, (P, G, n)."""
        return self._read(self.cells, images, images, pixels).mT.contiguous()

    def read(self, table: Tensor, images: Tensor, pixels: Tensor) -> Tensor:
        """Return rows (P, n, E) of tables (P, G, E), interpolated at chosen pixels (P, n) of images (P,)."""
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
        products: Inner products of B images' pixels.
        images: The image of each of P problems, (P,).
        gamma: Coefficient of the Gaussian kernel, (P, 1, 1); None for the linear one, about the cells' mean.

    Examples:
        >>> products = PixelProducts.of_pixels(torch.rand(1, 6, 5, 7), torch.tensor([[0, 3, 99]]), (10, 14))
        >>> samples = PixelSamples(products, images=torch.tensor([0, 0]), gamma=torch.ones(2, 1, 1))
        >>> samples.space(torch.tensor([[0, 1], [1, 2]])).kernel.shape
        torch.Size([2, 2, 2])
    """

    products: PixelProducts
    images: Tensor
    gamma: Tensor | None = None

    @property
    def dtype(self) -> torch.dtype:
        """Type of the products."""
        return self.products.features.dtype

    def double(self) -> "PixelSamples":
        """Return the same samples in double precision."""
        return PixelSamples(self.products.double(), self.images, None if self.gamma is None else self.gamma.double())

    def kernel_blocks(self) -> Callable[[Tensor], Callable[[Tensor], Tensor]]:
        """Return a function of columns (n,) whose value, a function of rows (m,), computes a block (m, n); P = 1."""
        return lambda columns: lambda rows: self._kernel(columns[None], self._table(rows[None]))[0].T

    def diagonal(self) -> Tensor:
        """Return the diagonal of the kernel matrix, (P, N)."""
        squared_norms = self.products.squared_norms[self.images]
        return squared_norms if self.gamma is None else torch.ones_like(squared_norms)

    def space(self, rows: Tensor) -> KernelSpace:
        """Return the space of the samples ``rows`` (P, n)."""
        kernel = self.products.cells.new_empty(*rows.shape, rows.shape[1])
        for columns, part in zip(rows.split(COLUMNS, dim=1), kernel.split(COLUMNS, dim=2), strict=True):
            part.copy_(self._kernel(rows, self._table(columns)))
        return KernelSpace(kernel)

    def evaluate(self, rows: Tensor, element: Tensor) -> Tensor:
        """Return the inner products (P, N) of an element of ``space(rows)`` with all samples."""
        carrying, _ = first_true(element != 0)
        columns, coefficients = rows.gather(1, carrying), element.gather(1, carrying)[..., None].to(self.dtype)
        everyone = torch.arange(self.products.number, device=rows.device).expand(len(rows), -1)
        total = torch.zeros_like(everyone, dtype=torch.float64)
        for some, factors in zip(columns.split(COLUMNS, dim=1), coefficients.split(COLUMNS, dim=1), strict=True):
            table = self._table(some)
            blocks = everyone.split(max(block_entries(some) // max(some.numel(), 1), 1), dim=1)
            total += torch.cat([(self._kernel(block, table) @ factors)[..., 0] for block in blocks], 1)
        return total

    def squared_norm(self, element: Tensor, values: Tensor) -> Tensor:
        """Return the squared norms (P,) of elements of the space of all samples, ``values`` (P, N) at these."""
        return (element * values).sum(1)

    def whole(self, rows: Tensor, element: Tensor) -> Tensor:
        """Return an element of ``space(rows)`` as one of the space of all samples."""
        return spread_rows(element, rows, self.products.number)

    def part(self, rows: Tensor, element: Tensor) -> Tensor:
        """Return an element of the space of all samples as one of ``space(rows)``."""
        return element.gather(1, rows)

    def _table(self, columns: Tensor) -> Tensor:
        """Return what the cells contribute to kernel values with the samples ``columns`` (P, n), (P, cells, n)."""
        table = self.products.with_cells(self.images, columns)
        if self.gamma is None:
            return table
        rate = LOG2_E * self.gamma
        return 2 * rate * table - rate * self._squared_norms(columns)[:, None]

    def _kernel(self, rows: Tensor, table: Tensor) -> Tensor:
        """Return the kernel values (P, m, n) of the samples ``rows`` (P, m) with those of a table."""
        values = self.products.read(table, self.images, rows)
        if self.gamma is None:
            return values
        return (values - LOG2_E * self.gamma * self._squared_norms(rows)[..., None]).exp2_()

    def _squared_norms(self, rows: Tensor) -> Tensor:
        return self.products.squared_norms[self.images[:, None], rows]


def pixel_products(
    maps: Sequence[Tensor], positions: Tensor, size: tuple[int, int]
) -> Callable[[], PixelProducts] | None:
    """Return a function that makes the products of pixels, as ``SVM.fit`` takes it; None where it would save no time.

    Products pay for a single map of many channels with at least four pixels to a cell: those of all cells have to be
    computed first.

    Args:
        maps: Feature maps (B, C, h, w).
        positions: Flat pixel positions (B, N).
        size: Size (H, W) of the images.

    Examples:
        >>> positions = torch.randint(0, 64 * 64, (1, 200))
        >>> pixel_products([torch.rand(1, 256, 4, 4)], positions, (64, 64))().squared_norms.shape
        torch.Size([1, 200])
        >>> pixel_products([torch.rand(1, 16, 4, 4)], positions, (64, 64)) is None
        True
    """
    features = maps[0]
    many = features.shape[1] > FEW_CHANNELS and 4 * features.shape[2] * features.shape[3] <= positions.shape[1]
    return partial(PixelProducts.of_pixels, features, positions, size) if many and len(maps) == 1 else None
