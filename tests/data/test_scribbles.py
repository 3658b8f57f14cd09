"""Scribbles as masks and as ScribbleSup's XML."""

from pathlib import Path

import pytest
import torch

from torch_svm_seg.data.constants import VOC_CLASSES, VOID
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import save_mask
from torch_svm_seg.data.scribbles import Scribble, draw_scribbles, read_scribble_lines, read_scribbles

SIZE = (6, 8)


def xml(
    *lines: tuple[str, list[tuple[object, object]]], size: str = "<size><width>8</width><height>6</height></size>"
) -> str:
    """An annotation in ScribbleSup's form."""
    polygons = "".join(
        f"<polygon><tag>{tag}</tag>{''.join(f'<point><X>{x}</X><Y>{y}</Y></point>' for x, y in points)}</polygon>"
        for tag, points in lines
    )
    return f"<annotation><filename>a.jpg</filename>{size}<segmented>1</segmented>{polygons}</annotation>"


def test_masks_and_lines_are_read_alike(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(xml(("background", [(0, 0), (7, 0)]), ("plane", [(1, 3), (1, 5)])))
    expected = torch.full(SIZE, VOID)
    expected[0], expected[3:, 1] = 0, 1
    assert torch.equal(read_scribbles(tmp_path, "a", SIZE, VOC_CLASSES, width=1), expected)
    save_mask(tmp_path / "b.png", expected)
    assert torch.equal(read_scribbles(tmp_path, "b", SIZE, VOC_CLASSES), expected)


def test_short_names_do_not_replace_a_class_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(xml(("table", [(1, 1)])))
    lines, size = read_scribble_lines(tmp_path / "a.xml", ("background", "diningtable", "table"))
    assert (lines, size) == ((Scribble(((1, 1),), 2),), SIZE)


def test_what_lies_outside_is_cut_off() -> None:
    labels = draw_scribbles([Scribble(((-5, 2), (50, 2)), 3), Scribble(((40, 40),), 4)], SIZE, width=1)
    assert labels.unique().tolist() == [3, VOID]
    assert bool((labels[2] == 3).all())


def test_crossings_are_of_no_class() -> None:
    labels = draw_scribbles([Scribble(((0, 2), (7, 2)), 0), Scribble(((4, 0), (4, 5)), 1)], SIZE, width=1)
    assert labels[2, 4] == VOID
    assert labels[2, 3] == 0
    assert labels[1, 4] == 1


def test_a_single_corner_is_a_dot() -> None:
    assert int((draw_scribbles([Scribble(((4, 3),), 1)], SIZE, width=3) == 1).sum()) >= 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (xml(("cow", [(1, 1)]), size="<size><width>6</width><height>8</height></size>"), "an image of 6x8 pixels, but"),
        (xml(("ant", [(1, 1)])), "tag: unknown class 'ant'"),
        (xml(("cow", [])), "a polygon of cow without points"),
        (xml(("cow", [("left", 1)])), "X: expected a number, got 'left'"),
        ("<annotation><polygon></annotation>", "not XML"),
        ('<!DOCTYPE a [<!ENTITY b "cow">]><annotation><polygon><tag>&b;</tag></polygon></annotation>', "document type"),
    ],
)
def test_bad_xml_is_named_with_the_reason(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.xml").write_text(content)
    with pytest.raises(InputError, match=rf"a\.xml: .*{message}"):
        read_scribbles(tmp_path, "a", SIZE, VOC_CLASSES)


def test_bad_masks_are_named_with_the_reason(tmp_path: Path) -> None:
    save_mask(tmp_path / "a.png", torch.full(SIZE, 30))
    with pytest.raises(InputError, match=r"a\.png: unknown class ids \[30\]; there are 21 classes"):
        read_scribbles(tmp_path, "a", SIZE, VOC_CLASSES)
    with pytest.raises(InputError, match=r"a\.png: made for an image of 8x6 pixels, but the image has 6x8"):
        read_scribbles(tmp_path, "a", (8, 6), VOC_CLASSES)
    (tmp_path / "a.xml").write_text(xml())
    with pytest.raises(InputError, match=r"a\.png: expected this file or a\.xml, found both"):
        read_scribbles(tmp_path, "a", SIZE, VOC_CLASSES)
    with pytest.raises(InputError, match=r"b\.png: expected this file or b\.xml, found neither"):
        read_scribbles(tmp_path, "b", SIZE, VOC_CLASSES)
