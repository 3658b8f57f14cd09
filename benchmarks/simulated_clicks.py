"""Clicks simulated from the ground truth by the usual protocol: each in the middle of the largest error.

The first ones are in the middle of each class of the image. An error is a region of one class that has another label.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy import ndimage
from torch import Tensor

from torch_svm_seg.data.class_numbers import numbered
from torch_svm_seg.data.constants import VOID
from torch_svm_seg.data.points import Point, draw_points


def among_present(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return labels by the number of their class among those present, and the ids of these."""
    ids = labels[labels != VOID].unique().long()
    return numbered(labels, ids), ids


def simulated(
    scores: Callable[[Tensor, Tensor], Tensor], truth: Tensor, numbers: Sequence[int]
) -> Iterator[tuple[int, Tensor]]:
    """Yield the masks of ascending numbers of clicks: the first ones in the middle of the classes of a truth (H, W)."""
    points = [first_click(truth, id) for id in truth.unique().tolist() if id != VOID]
    for number in numbers:
        while True:
            known, ids = among_present(draw_points(points, (truth.shape[0], truth.shape[1]), 2).labels)
            mask = ids[scores(known[None], ids)[0].argmax(0)]
            if len(points) >= number or not bool((wrong := (mask != truth) & (truth != VOID)).any()):
                break
            points.append(largest_error(wrong, truth))
        yield number, mask


def first_click(truth: Tensor, id: int) -> Point:
    """Return a click in the middle of a class."""
    row, column, _ = middle(truth == id)
    return Point(column + 0.5, row + 0.5, id)


def largest_error(wrong: Tensor, truth: Tensor) -> Point:
    """Return a click in the middle of the largest region of one class that is wrong."""
    found = [(*middle(wrong & (truth == id)), id) for id in truth[wrong].unique().tolist()]
    row, column, _, id = max(found, key=lambda region: region[2])
    return Point(column + 0.5, row + 0.5, id)


def middle(region: Tensor) -> tuple[int, int, int]:
    """Return row and column of the pixel of a region (H, W), bool, that is furthest from its border, and its size."""
    parts, number = ndimage.label(region.numpy())
    sizes = np.bincount(parts.ravel(), minlength=number + 1)[1:]
    inside = np.pad(parts == 1 + sizes.argmax(), 1)
    row, column = np.unravel_index(ndimage.distance_transform_edt(inside)[1:-1, 1:-1].argmax(), region.shape)
    return int(row), int(column), int(sizes.max())
