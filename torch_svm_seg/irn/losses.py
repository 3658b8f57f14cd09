"""What boundaries and displacements are trained by: pairs of neighbouring cells with sure labels.

Ahn et al., CVPR 2019, sections 4.2 and 4.3. Cells of one class should have no boundary between them, cells of
different classes one. The displacement of a cell points to the centre of its object; so two cells of one object should
differ in it by where they stand, and two cells of the background not at all.

Each term is a mean over its pairs in the whole batch, wherever they are: when several processes share a batch, pairs
are counted over all of them. Means of the processes' own means would weigh their pairs differently, and it would be
another loss.
"""

from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor

from torch_svm_seg.data.constants import VOID
from torch_svm_seg.irn.paths import Line, Paths, path_maxima
from torch_svm_seg.training.distributed import process_number, sum_over_processes

_EPSILON = 1e-5


class Pair(IntEnum):
    """What is known about two cells."""

    UNSURE, BACKGROUND, OBJECT, DIFFERENT = range(4)


class PairLosses(NamedTuple):
    """The terms of the loss; their sum is trained on.

    Attributes:
        affinity: cross entropy of affinities, equal and different pairs half each, background and objects half each.
        displacement: L1 error of the displacements' differences, in cells, background and objects half each.
    """

    affinity: Tensor
    displacement: Tensor


def pair_losses(boundary: Tensor, displacement: Tensor, labels: Tensor, paths: Paths) -> PairLosses:
    """Compares predictions with the labels of all pairs of cells.

    Args:
        boundary: strength of the class boundary from 0 to 1, (B, h, w).
        displacement: rows down and columns right, in cells, (B, 2, h, w).
        labels: class ids (B, h, w), 255 where not sure.
        paths: which pairs.
    """
    pairs = pair_kinds(labels, paths)
    count = sum_over_processes(torch.bincount(pairs.flatten(), minlength=len(Pair)).float()) / process_number()
    weight = (1 / (count + _EPSILON)).to(boundary)
    weight[Pair.UNSURE] = 0
    affinity = 1 - path_maxima(boundary, paths)
    # Of equal pairs, background and objects count half each, and equal and different ones again.
    share = weight * weight.new_tensor([0, 0.25, 0.25, 0.5])
    right = torch.where(pairs == Pair.DIFFERENT, 1 - affinity, affinity)
    affinity_loss = -(share[pairs] * (right + _EPSILON).log()).sum()

    target = (pairs == Pair.OBJECT)[:, None] * paths.offsets.T.to(displacement)[:, :, None, None]
    error = (_differences(displacement, paths) - target).abs().mean(1)
    share = weight * weight.new_tensor([0, 0.5, 0.5, 0])
    return PairLosses(affinity_loss, (share[pairs] * error).sum())


def pair_kinds(labels: Tensor, paths: Paths) -> Tensor:
    """Tells what is known about each cell and the end of each path from it, :class:`Pair`, int64 (B, P, h, w)."""
    end = _ends(labels, paths, outside=VOID)
    start = labels[:, None]
    equal = torch.where(start == 0, Pair.BACKGROUND, Pair.OBJECT)
    kinds = torch.where(start == end, equal, Pair.DIFFERENT)
    return torch.where((start == VOID) | (end == VOID), Pair.UNSURE, kinds)


def _differences(displacement: Tensor, paths: Paths) -> Tensor:
    """Displacement of each cell less that of the end of each path from it, (B, 2, P, h, w)."""
    return displacement[:, :, None] - _ends(displacement, paths, outside=0)


def _ends(values: Tensor, paths: Paths, outside: float) -> Tensor:
    """Values (..., h, w) at the end of each path from each cell, (..., P, h, w)."""
    line = Line.of(values, paths.reach)
    written = line.write(values, outside)
    ends = [line.after(line.step(cells[-1]), written) for cells in paths.cells]
    return line.grid(torch.stack(ends, -2))
