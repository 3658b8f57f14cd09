"""The scores of all pixels of images, from decision functions on coarser feature maps."""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from torch_svm_seg.expansion.interpolation import FEW_CHANNELS, Neighbours, cell_rows, feature_maps
from torch_svm_seg.svm.decisions import DecisionFunction, LinearDecision
from torch_svm_seg.svm.kernels import block_entries
from torch_svm_seg.tensors import first_true, resize

# Between pixels that agree, all with at least this margin between their best two scores, all pixels agree: on
# images, 7 in 10,000 pixels do not at worst, none in features of a stride of 8 and more, 2 in 100,000 in
# fused ones.
SAFE_MARGIN = 1.0

COARSEST_PITCH = 4


class PixelScorer:
    """Evaluates a decision function at any pixels of images whose features lie on coarser grids.

    Args:
        decision: Decision function of the B images, for rows of all maps' channels.
        features: (B, C, h, w), or several such maps on grids of their own.
        size: Size (H, W) of the images.

    Examples:
        >>> from torch_svm_seg.svm.decisions import LinearDecision
        >>> decision = LinearDecision(torch.rand(1, 8, 3), torch.zeros(1, 1, 3))
        >>> scorer = PixelScorer(decision, torch.rand(1, 8, 4, 5), (16, 20))
        >>> scorer(torch.tensor([[0, 7, 319]])).shape
        torch.Size([1, 3, 3])
    """

    def __init__(self, decision: DecisionFunction, features: Tensor | Sequence[Tensor], size: tuple[int, int]) -> None:
        self.decision, self.size = decision, size
        self.maps = feature_maps(features)
        ends = list(accumulate(features.shape[1] for features in self.maps))
        self._channels = [slice(end - features.shape[1], end) for end, features in zip(ends, self.maps, strict=True)]
        self._parts = [_Part(decision, *part, size) for part in zip(self.maps, self._channels, strict=True)]
        width = sum(part.width for part in self._parts)
        self._block = max(block_entries(self.maps[0]) // width // self.maps[0].shape[0], 1)

    @property
    def stride(self) -> float:
        """Number of pixels from cell to cell of the coarsest map."""
        height, width = self.size
        return max(min(height / features.shape[2], width / features.shape[3]) for features in self.maps)

    def __call__(self, positions: Tensor) -> Tensor:
        """Return the scores (B, N, K) at flat pixel positions (B, N)."""
        return torch.cat([self._score(part) for part in positions.split(self._block, dim=1)], 1)

    def _score(self, positions: Tensor) -> Tensor:
        if not any(part.project_first for part in self._parts):
            scores: Tensor = self.decision(torch.cat([part.read(positions) for part in self._parts], 2))
            return scores
        projections, squared_norms = zip(*(part.project(positions) for part in self._parts), strict=True)
        return self.decision.evaluate(_sum(projections), _sum(squared_norms))

    def linear(self) -> Tensor:
        """Return the scores of all pixels, (B, K, H, W); a linear decision function commutes with interpolation."""
        planes = [
            self.decision.project(cell_rows(features), channels).mT.unflatten(2, features.shape[2:])
            for features, channels in zip(self.maps, self._channels, strict=True)
        ]
        return _sum([resize(plane, self.size) for plane in planes]) + self.decision.intercept.mT[..., None]


class _Part:
    """The contribution of one map to a decision function: interpolated and then projected, or the other way about."""

    def __init__(self, decision: DecisionFunction, features: Tensor, channels: slice, size: tuple[int, int]) -> None:
        self._decision, self._channels, self._size = decision, channels, size
        self._grid = (features.shape[2], features.shape[3])
        self.project_first = features.shape[1] > FEW_CHANNELS
        rows = cell_rows(features)
        if self.project_first:
            rows = decision.centre(rows, channels)
            self._table = decision.project(rows, channels).flatten(0, 1)
            self._products = _neighbour_products(rows.mT.unflatten(2, self._grid))
        else:
            self._table = rows.flatten(0, 1).contiguous()

    @property
    def width(self) -> int:
        """Number of entries read for a pixel."""
        return self._table.shape[1]

    def read(self, positions: Tensor) -> Tensor:
        """Interpolated rows at pixels (B, N): of channels, or of projections."""
        return self._neighbours(positions).read(self._table)

    def project(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Contribution to the projections (B, N, P) and to the squared norms (B, N) of pixels (B, N)."""
        neighbours = self._neighbours(positions)
        read = neighbours.read(self._table)
        if self.project_first:
            return read, _squared_norms(self._products, neighbours)
        read = self._decision.centre(read, self._channels)
        return self._decision.project(read, self._channels), read.square().sum(2)

    def _neighbours(self, positions: Tensor) -> Neighbours:
        return Neighbours.of(positions, self._grid, self._size, self._table.dtype)


def _neighbour_products(features: Tensor) -> Tensor:
    """Return products of each cell with itself, its right, lower and lower right one; of the right with the lower."""
    right = torch.cat([features[..., 1:], features[..., -1:]], 3)
    lower = torch.cat([features[..., 1:, :], features[..., -1:, :]], 2)
    lower_right = torch.cat([right[..., 1:, :], right[..., -1:, :]], 2)
    pairs = ((features, features), (features, right), (features, lower), (features, lower_right), (right, lower))
    return torch.stack([(first * second).sum(1) for first, second in pairs], -1).flatten(0, 2)


def _squared_norms(products: Tensor, neighbours: Neighbours) -> Tensor:
    """Return |x|^2 of interpolated rows (B, N), exact: a quadratic form of the neighbours' inner products."""
    a, b, c, d = neighbours.weights.unbind(-1)
    at_a, at_b, at_c, at_d = products[neighbours.indices].unbind(-2)
    own = a * a * at_a[..., 0] + b * b * at_b[..., 0] + c * c * at_c[..., 0] + d * d * at_d[..., 0]
    sideways = a * b * at_a[..., 1] + c * d * at_c[..., 1]
    upright = a * c * at_a[..., 2] + b * d * at_b[..., 2]
    diagonal = a * d * at_a[..., 3] + b * c * at_a[..., 4]
    return own + 2 * (sideways + upright + diagonal)


def score_pixels(scorer: PixelScorer, every_pixel: bool = False) -> Tensor:
    """Return the scores of all pixels, (B, K, H, W), from coarse to fine.

    At first a pixel of each cell of the coarsest map is scored, or every fourth along each axis where cells are
    larger; then those between, by halving the distance: exactly where the pixels around disagree or are unsure,
    and by interpolation of their scores where all agree with a safe margin. Linear decision functions commute with
    interpolation, and are scored on the features' grid.

    Args:
        scorer: Scorer of any pixels.
        every_pixel: Score every pixel exactly.

    Examples:
        >>> from torch_svm_seg.svm.decisions import LinearDecision
        >>> decision = LinearDecision(torch.rand(1, 8, 3), torch.zeros(1, 1, 3))
        >>> score_pixels(PixelScorer(decision, torch.rand(1, 8, 4, 5), (16, 20))).shape
        torch.Size([1, 3, 16, 20])
    """
    if isinstance(scorer.decision, LinearDecision):
        return scorer.linear()
    height, width = scorer.size
    pitch = 1
    while not every_pixel and pitch < COARSEST_PITCH and 2 * pitch <= scorer.stride:
        pitch *= 2
    images, device = scorer.maps[0].shape[0], scorer.maps[0].device
    positions = _positions(height, width, pitch, device)
    scores = scorer(positions.flatten().expand(images, -1))
    scores = scores.mT.unflatten(2, positions.shape)
    while pitch > 1:
        pitch //= 2
        scores = _refine(scorer, scores, _positions(height, width, pitch, device))
    return scores


def _positions(height: int, width: int, pitch: int, device: torch.device) -> Tensor:
    rows, columns = torch.arange(0, height, pitch, device=device), torch.arange(0, width, pitch, device=device)
    return rows[:, None] * width + columns


def _refine(scorer: PixelScorer, scores: Tensor, positions: Tensor) -> Tensor:
    """Return scores at pixels (2h or 2h - 1, 2w or 2w - 1) from those at every other one, (B, K, h, w)."""
    rows, columns = positions.shape
    top, bottom = _between(rows, scores.shape[2], scores.device)
    left, right = _between(columns, scores.shape[3], scores.device)
    finer = (scores[:, :, top] + scores[:, :, bottom]) / 2
    finer = (finer[..., left] + finer[..., right]) / 2
    best = scores.topk(min(2, scores.shape[1]), dim=1)
    label = best.indices[:, 0]
    sure = (
        (best.values[:, 0] - best.values[:, -1] >= SAFE_MARGIN)
        if scores.shape[1] > 1
        else torch.ones_like(label).bool()
    )
    corners = [(y, x) for y in (top, bottom) for x in (left, right)]
    first = label[:, top][..., left]
    safe = torch.stack([(label[:, y][..., x] == first) & sure[:, y][..., x] for y, x in corners]).all(0)
    known = ((torch.arange(rows) % 2 == 0)[:, None] & (torch.arange(columns) % 2 == 0)).to(safe.device)
    chosen, valid = first_true((~safe & ~known).flatten(1))
    exact = scorer(positions.flatten()[chosen])
    image, entry = valid.nonzero(as_tuple=True)
    finer = finer.flatten(2).mT.contiguous()
    finer[image, chosen[image, entry]] = exact[image, entry]
    return finer.mT.reshape(*scores.shape[:2], rows, columns)


def _between(fine: int, coarse: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the coarse entries before and after each of ``fine`` entries at half their distance."""
    index = torch.arange(fine, device=device)
    return (index // 2).clamp(max=coarse - 1), ((index + 1) // 2).clamp(max=coarse - 1)


def _sum(terms: Sequence[Tensor]) -> Tensor:
    return sum(terms[1:], terms[0])
