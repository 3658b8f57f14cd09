"""Inner products of interpolated pixels, from those of the cells that they lie between."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from torch_svm_seg.interpolation import FEW_CHANNELS, Neighbours, cell_rows


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
