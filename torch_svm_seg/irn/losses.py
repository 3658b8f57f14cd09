"""The loss that trains class boundaries: affinities of pairs of neighbouring cells with sure labels.

Ahn et al., CVPR 2019, section 4.2. Cells of one class should have no boundary between them, cells of different classes
one. Each term is a mean over its pairs in the whole batch: when several processes share a batch, pairs are counted over
all of them. The mean of the processes' own means would weight their pairs differently, and be another loss.
"""

from enum import IntEnum

import torch
from torch import Tensor

from torch_svm_seg.data.constants import VOID
from torch_svm_seg.irn.paths import CellLine, Paths, path_maxima
from torch_svm_seg.training.distributed import process_number, sum_over_processes

_EPSILON = 1e-5

# Share of each kind of pair in the loss: of equal pairs, background and objects count half each; equal and different
# pairs count half each again.
_SHARES = (0.0, 0.25, 0.25, 0.5)


class Pair(IntEnum):
    """The kinds of pairs of cells, by their labels.

    Examples:
        >>> [pair.name for pair in Pair]
        ['UNSURE', 'BACKGROUND', 'OBJECT', 'DIFFERENT']
    """

    UNSURE, BACKGROUND, OBJECT, DIFFERENT = range(4)


def affinity_loss(boundary: Tensor, labels: Tensor, paths: Paths) -> Tensor:
    """Return the cross entropy of the affinities of all pairs of cells with sure labels.

    Args:
        boundary: Strength of the class boundary from 0 to 1, (B, h, w).
        labels: Class ids (B, h, w), 255 where not sure.
        paths: The pairs.

    Returns:
        A scalar, differentiable with respect to the boundary.

    Examples:
        >>> labels = torch.tensor([[[0, 0, 7, 7]]])
        >>> right = affinity_loss(torch.tensor([[[0.0, 0.0, 1.0, 0.0]]]), labels, Paths(2))
        >>> none = affinity_loss(torch.zeros(1, 1, 4), labels, Paths(2))
        >>> bool(right < none)
        True
    """
    pairs = pair_kinds(labels, paths)
    count = sum_over_processes(torch.bincount(pairs.flatten(), minlength=len(Pair)).float()) / process_number()
    weight = (1 / (count + _EPSILON)).to(boundary) * boundary.new_tensor(_SHARES)
    affinity = 1 - path_maxima(boundary, paths)
    right = torch.where(pairs == Pair.DIFFERENT, 1 - affinity, affinity)
    return -(weight[pairs] * (right + _EPSILON).log()).sum()


def pair_kinds(labels: Tensor, paths: Paths) -> Tensor:
    """Return the :class:`Pair` kind of each cell and the end of each path from it, int64 (B, P, h, w).

    Examples:
        >>> pair_kinds(torch.tensor([[[0, 0, 7, 255]]]), Paths(2))[0, 0].tolist()  # with the right neighbour
        [[1, 3, 0, 0]]
    """
    end = _ends(labels, paths)
    start = labels[:, None]
    equal = torch.where(start == 0, Pair.BACKGROUND, Pair.OBJECT)
    kinds = torch.where(start == end, equal, Pair.DIFFERENT)
    return torch.where((start == VOID) | (end == VOID), Pair.UNSURE, kinds)


def _ends(labels: Tensor, paths: Paths) -> Tensor:
    """Return the labels at the end of each path from each cell, (B, P, h, w); 255 outside the grid."""
    line = CellLine.of(labels, paths.reach)
    written = line.write(labels, outside=VOID)
    ends = [line.after(line.step(end), written) for end in paths.ends]
    return line.grid(torch.stack(ends, -2))
