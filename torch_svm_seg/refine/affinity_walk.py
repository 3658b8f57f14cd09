r"""Maps spread over the image by the similarity of its features, without any training.

With x_i the feature of cell i less the image's mean, a step replaces the values v of the cells by

    v_i <- sum over j of a_ij v_j / sqrt(d_i d_j),    a_ij = max(cos(x_i, x_j), 0)^power,    d_i = sum over j of a_ij.

Features of a self-supervised transformer tell an object from what is around it, wherever it ends in the image; so one
step gives all of it what the most telling part has. The symmetric normalisation is that of spectral clustering and of
label propagation (Zhou et al., NeurIPS 2003): what covers much of the image, and is alike to itself, does not count for
more by that. CLIP-ES (Lin et al., CVPR 2023, section 3.3) spreads maps by the attention of its network; PSA and IRN
(Ahn and Kwak, CVPR 2018; Ahn et al., CVPR 2019) train a network for it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torch_svm_seg.svm.arguments import check_count
from torch_svm_seg.tensors import full_precision, resize, rounding

# Affinities held at once, 8 MB in single precision: rows of the matrix are made, used and forgotten.
_ENTRIES = 2**21


class AffinityWalk(nn.Module):
    """A walk between the cells of a grid whose features are alike.

    The affinities of all cells are never held at once, unless a gradient needs them: memory is linear in the cells.

    Args:
        power: Exponent of the similarity, > 0: larger ones keep the walk among more similar cells.
        steps: Number of steps, >= 0.
        centre: Take the image's mean feature off first. What all cells share says nothing about objects.
        nearest: Number of cells from which a step takes a cell's value, the most similar ones, >= 1; by default all.
        threshold: Similarity, from 0 below 1, under which cells do not reach each other.

    Shape:
        maps (B, K, h, w), floating point; features (B, C, h, w), or several such maps, whose similarities are averaged,
        each on any grid: they are interpolated to that of the maps; regions (B, K, h, w) and valid (B, h, w), bool.
        Result (B, K, h, w), in single precision, or in double where the maps are; linear in the maps, differentiable
        with respect to maps and features.

    Examples:
        >>> maps = torch.tensor([1.0, 0.0, 0.0, 0.0]).view(1, 1, 1, 4)
        >>> features = torch.tensor([[1.0, 1.0, -1.0, -1.0], [0.0, 0.0, 0.0, 0.0]]).view(1, 2, 1, 4)
        >>> AffinityWalk()(maps, features).flatten()
        tensor([0.5000, 0.5000, 0.0000, 0.0000])
    """

    def __init__(
        self,
        power: float = 3.0,
        steps: int = 1,
        centre: bool = True,
        nearest: int | None = None,
        threshold: float = 0.0,
    ) -> None:
        super().__init__()
        if not power > 0:
            raise ValueError(f"power: expected a number > 0, got {power}")
        check_count("steps", steps, at_least=0)
        if nearest is not None:
            check_count("nearest", nearest)
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold: expected 0 to less than 1, got {threshold}")
        self.power, self.steps, self.centre = power, steps, centre
        self.nearest, self.threshold = nearest, threshold

    def extra_repr(self) -> str:
        """Return the parameters for the module's representation."""
        return (
            f"power={self.power}, steps={self.steps}, centre={self.centre}, nearest={self.nearest}, "
            f"threshold={self.threshold}"
        )

    def forward(
        self,
        maps: Tensor,
        features: Tensor | Sequence[Tensor],
        regions: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Spread maps.

        Args:
            maps: See the class.
            features: See the class.
            regions: Where a map may start from; its values elsewhere do not spread. See :func:`boxes_above`.
            valid: Cells of the image, where others pad it to a batch's size; those keep their value and reach none.

        Raises:
            ValueError: Naming the argument, where shapes do not match, or features are not finite.
        """
        given = [features] if isinstance(features, Tensor) else list(features)
        _check(maps, given, regions, valid)
        with full_precision(maps.device):
            dtype = torch.promote_types(maps.dtype, torch.float32)
            rows = torch.ones_like(maps[:, 0], dtype=torch.bool) if valid is None else valid
            rows = rows.flatten(1)[..., None]
            parts = [_directions(resize(part.to(dtype), maps.shape[2:]), rows, self.centre) for part in given]
            directions = torch.cat(parts, 2) / len(parts) ** 0.5
            values = (maps if regions is None else maps * regions).to(dtype).flatten(2).mT
            blocks = _Again(partial(self._affinities, directions), len(maps) * directions.shape[1] ** 2)
            degree = torch.cat([affinity.sum(2, keepdim=True) for affinity in blocks], 1)
            for _ in range(self.steps):
                values = _step(blocks, degree, values)
            result: Tensor = values.mT.unflatten(2, maps.shape[2:])
            return result

    def _affinities(self, directions: Tensor) -> Iterator[Tensor]:
        """Yield the affinities of some cells after the others to all, (B, n, N)."""
        images, cells = directions.shape[:2]
        for rows in directions.split(max(_ENTRIES // (images * cells), 1), 1):
            yield self._affinity(rows @ directions.mT)

    def _affinity(self, similarity: Tensor) -> Tensor:
        if self.nearest is not None and self.nearest < similarity.shape[2]:
            least = similarity.topk(self.nearest, 2, sorted=True).values[..., -1:]
            similarity = similarity.masked_fill(similarity < least, 0)
        alike = similarity > self.threshold
        # The slope of a power < 1 is infinite at 0, and must not be multiplied by 0.
        affinity: Tensor = torch.where(alike, similarity, 1) ** self.power
        return affinity * alike


class _Again:
    """Blocks that can be iterated again: kept if they are few, else made again."""

    def __init__(self, make: Callable[[], Iterator[Tensor]], entries: int) -> None:
        self._make, self._kept = make, list(make()) if entries <= _ENTRIES else None

    def __iter__(self) -> Iterator[Tensor]:
        return self._make() if self._kept is None else iter(self._kept)


def _step(blocks: Iterable[Tensor], degree: Tensor, values: Tensor) -> Tensor:
    """Take a step from values (B, N, K) by blocks of rows of the affinities; a cell without any keeps its own."""
    scale = torch.where(degree > 0, degree, 1).rsqrt()
    scaled = scale * values
    sums = torch.cat([affinity @ scaled for affinity in blocks], 1)
    return torch.where(degree > 0, scale * sums, values)


def boxes_above(maps: Tensor, threshold: float = 0.4) -> Tensor:
    """Return the boxes around the connected regions in which maps reach a threshold, as CLIP-ES restricts its walk.

    Args:
        maps: (B, K, h, w), from 0 to 1.
        threshold: CLIP-ES's is 0.4 on VOC and 0.7 on COCO.

    Returns:
        Cells that lie in any box of their map, bool (B, K, h, w).

    Examples:
        >>> boxes_above(torch.eye(3)[None, None]).all()  # cells that touch at a corner are connected
        tensor(True)
    """
    above = maps >= threshold
    cells = torch.arange(1, maps.shape[2] * maps.shape[3] + 1, device=maps.device, dtype=torch.float64)
    # Each region takes the largest number of its cells.
    labels = above * cells.view(maps.shape[2:])
    while True:
        grown = F.max_pool2d(labels, 3, stride=1, padding=1) * above
        if torch.equal(grown, labels):
            break
        labels = grown
    boxes = torch.zeros_like(above)
    for image, channel in above.flatten(2).any(2).nonzero().tolist():
        found = labels[image, channel]
        for label in found[found > 0].unique():
            rows, columns = (found == label).nonzero(as_tuple=True)
            boxes[image, channel, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
    return boxes


def _directions(features: Tensor, valid: Tensor, centre: bool) -> Tensor:
    """Return unit features (B, N, C); of no length where a cell is not valid or does not differ from the mean.

    Args:
        features: Maps (B, C, h, w).
        valid: Cells of the image, bool (B, N, 1).
        centre: Whether to take the mean off.
    """
    rows = features.flatten(2).mT * valid
    # What is left of equal features is no direction.
    noise = rounding(rows.norm(dim=2, keepdim=True).amax(1, keepdim=True), rows.dtype)
    if centre:
        rows = rows - rows.sum(1, keepdim=True) / valid.sum(1, keepdim=True).clamp_min(1)
    length = rows.norm(dim=2, keepdim=True)
    known = valid & (length > noise)
    return torch.where(known, rows, 0) / torch.where(known, length, 1)


def _check(maps: Tensor, features: Sequence[Tensor], regions: Tensor | None, valid: Tensor | None) -> None:
    if maps.dim() != 4 or not maps.dtype.is_floating_point or 0 in maps.shape:
        raise ValueError(f"maps: expected floating point (B, K, h, w), got {maps.dtype} {tuple(maps.shape)}")
    if not features:
        raise ValueError("features: expected at least one map, got none")
    for part in features:
        _check_features(part, len(maps))
    for name, given, shape in (("regions", regions, maps.shape), ("valid", valid, maps[:, 0].shape)):
        if given is not None and (given.shape != shape or given.dtype != torch.bool):
            raise ValueError(f"{name}: expected bool {tuple(shape)}, got {given.dtype} {tuple(given.shape)}")


def _check_features(part: Tensor, images: int) -> None:
    if part.dim() != 4 or not part.dtype.is_floating_point or len(part) != images or 0 in part.shape:
        given = f"{part.dtype} {tuple(part.shape)}"
        raise ValueError(f"features: expected floating point (B, C, h, w) with B = {images}, got {given}")
    if not bool(part.isfinite().all()):
        raise ValueError("features: expected finite values, got nan or inf")
