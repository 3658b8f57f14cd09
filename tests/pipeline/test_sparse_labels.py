"""Points, scribbles and boxes as supervision, on a data set of three images of 60x80."""

import math
from pathlib import Path

import pytest
import torch
from conftest import CAT, PERSON, TINY_IDS, VOID

from torch_svm_seg.data.boxes import Box
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import save_mask
from torch_svm_seg.data.points import ImagePoints, Point
from torch_svm_seg.data.voc import voc2012
from torch_svm_seg.pipeline.sparse_labels import (
    NO_BACKGROUND,
    BoxLabels,
    PointLabels,
    ScribbleLabels,
    border_far_from,
    box_activation,
)

ID = TINY_IDS[0]


@pytest.fixture
def dataset(tiny_voc: Path) -> ImageDataset:
    return voc2012(tiny_voc)


def read_points_of(dataset: ImageDataset, *points: Point, size: tuple[int, int] | None = None, radius: float = 0):
    return PointLabels({ID: ImagePoints(points, size)}, radius).read(dataset, 0)


def test_points_become_labels_with_their_certainty(dataset: ImageDataset) -> None:
    read = read_points_of(dataset, Point(3.5, 2.5, CAT, 0.25), Point(70, 50, 0))
    assert read.known.shape == read.certainty.shape == (60, 80)
    assert (read.known != VOID).nonzero().tolist() == [[2, 3], [50, 70]]
    assert (int(read.known[2, 3]), int(read.known[50, 70])) == (CAT, 0)
    assert (float(read.certainty[2, 3]), float(read.certainty[50, 70])) == (0.25, 1)
    assert read.notes == ()


def test_points_that_cannot_be_used_are_left_out_and_noted(dataset: ImageDataset) -> None:
    clashing = (Point(5, 5, CAT), Point(5.5, 5.5, PERSON))
    read = read_points_of(dataset, Point(3, 2, CAT), Point(200, 3, 0), *clashing, Point(70, 50, 0))
    assert int((read.known != VOID).sum()) == 2
    assert len(read.notes) == 2 and "outside" in read.notes[0] and "different classes" in read.notes[1]


def test_far_border_stands_for_a_background_without_labels(dataset: ImageDataset) -> None:
    read = read_points_of(dataset, Point(0.5, 0.5, CAT))
    rows, columns = (read.known == 0).nonzero().unbind(1)
    assert len(rows) == (2 * 80 + 2 * 58) // 2  # of 276 pixels of the border, one is the click
    assert bool(((rows == 0) | (rows == 59) | (columns == 0) | (columns == 79)).all())
    nearest = min(map(math.hypot, rows.tolist(), columns.tolist()))
    others = (read.known[0] == VOID).nonzero()[:, 0]
    assert others.max() <= math.ceil(nearest)  # along the first row, only what is nearer is left out
    assert read.notes == (NO_BACKGROUND,)
    assert bool((read.certainty[read.known == 0] == 1).all())


@pytest.mark.parametrize(
    ("points", "size", "message"),
    [
        ((), None, "has no points"),
        ((Point(500, 500, CAT),), None, "none of its pixels is labelled"),
        ((Point(3, 3, CAT),), (60, 81), "points were set on 81x60 pixels, the image has 80x60"),
        ((Point(3, 3, CAT),), (80, 60), "turned by its EXIF tag"),
    ],
)
def test_image_whose_points_cannot_be_used_is_refused_by_name(
    dataset: ImageDataset, points: tuple[Point, ...], size: tuple[int, int] | None, message: str
) -> None:
    with pytest.raises(InputError, match=f"{ID}: .*{message}"):
        read_points_of(dataset, *points, size=size)


def test_scribbles_are_labels(dataset: ImageDataset, tmp_path: Path) -> None:
    drawn = torch.full((60, 80), VOID)
    drawn[10:12, 5:30], drawn[50, 3:70] = CAT, 0
    save_mask(tmp_path / f"{ID}.png", drawn)
    labels = ScribbleLabels(tmp_path)
    assert torch.equal(labels.read(dataset, 0).known, drawn)
    assert tmp_path / f"{ID}.png" in labels.sources(dataset, 0)
    with pytest.raises(InputError, match=TINY_IDS[1]):
        labels.read(dataset, 1)


def test_sources_tell_changed_points_apart(dataset: ImageDataset) -> None:
    one, other = ({ID: ImagePoints((Point(x, 3, CAT),))} for x in (3, 4))
    assert PointLabels(one).sources(dataset, 0) != PointLabels(other).sources(dataset, 0)
    assert PointLabels(one).sources(dataset, 1) == PointLabels(other).sources(dataset, 1)


def test_smallest_box_around_a_pixel_is_its_largest_activation(dataset: ImageDataset) -> None:
    boxes = [Box(10, 10, 50, 50, PERSON), Box(20, 20, 30, 30, CAT), Box(28, 20, 29, 25, PERSON)]
    read = BoxLabels({ID: boxes}).read(dataset, 0)
    assert read.classes == (0, CAT, PERSON)
    best = read.known.argmax(0)
    assert [int(best[y, x]) for y, x in ((5, 5), (15, 15), (22, 22), (22, 28), (27, 28))] == [0, 2, 1, 2, 1]
    assert bool(
        (read.known[1] > -torch.inf).nonzero().equal((box_activation(boxes[1:2], (60, 80), (0, CAT))[1] > 0).nonzero())
    )
    with pytest.raises(InputError, match=f"{TINY_IDS[1]}: has no boxes"):
        BoxLabels({ID: boxes}).read(dataset, 1)


def test_border_is_none_of_the_labelled_pixels() -> None:
    labels = torch.full((5, 6), VOID)
    labels[0] = 3
    far = border_far_from(labels)
    assert not bool(far[0].any()) and bool(far[4].all()) and not bool(far[1:4, 1:5].any())
