"""Boxes from VOC's XML and from COCO's JSON."""

import json
from pathlib import Path
from typing import Any

import pytest

from torch_svm_seg.data.boxes import Box, box_classes, read_boxes
from torch_svm_seg.data.errors import InputError

NAMES = ("background", "cat", "dog")


def voc(*boxes: tuple[str, int, int, int, int]) -> str:
    sides = ("xmin", "ymin", "xmax", "ymax")
    objects = "".join(
        f"<object><name>{name}</name><bndbox>"
        + "".join(f"<{side}>{value}</{side}>" for side, value in zip(sides, values, strict=True))
        + "</bndbox><part><name>head</name><bndbox><xmin>1</xmin></bndbox></part></object>"
        for name, *values in boxes
    )
    return f"<annotation>{objects}</annotation>"


def coco(**changes: Any) -> dict[str, Any]:
    content: dict[str, Any] = {
        "images": [{"id": 7, "file_name": "train/one.jpg"}, {"id": 8, "file_name": "two.jpg"}],
        "annotations": [{"image_id": 7, "category_id": 90, "bbox": [2, 1, 3, 4], "iscrowd": 0}],
        "categories": [{"id": 90, "name": "dog"}],
    }
    return content | changes


def test_both_forms_give_the_same_boxes(tmp_path: Path) -> None:
    (tmp_path / "one.xml").write_text(voc(("dog", 3, 2, 5, 5)))
    (tmp_path / "two.xml").write_text(voc())
    (tmp_path / "boxes.json").write_text(json.dumps(coco()))
    expected = {"one": (Box(2, 1, 5, 5, 2),), "two": ()}
    assert read_boxes(tmp_path, ["one", "two", "three"], NAMES) == expected
    assert read_boxes(tmp_path / "boxes.json", ["one", "two", "three"], NAMES) == expected
    assert read_boxes(tmp_path / "boxes.json", ["two"], NAMES) == {"two": ()}


def test_a_pixel_may_have_the_classes_of_the_boxes_around_it() -> None:
    possible = box_classes([Box(2, 1, 5, 5, 2), Box(-3, -3, 2.5, 1.2, 1), Box(90, 90, 99, 99, 1)], (6, 8), 3)
    assert bool(possible[0].all())
    inside = [(y, x) for y in range(6) for x in range(8) if possible[2, y, x]]
    assert inside == [(y, x) for y in range(1, 5) for x in range(2, 5)]
    assert [(y, x) for y in range(6) for x in range(8) if possible[1, y, x]] == [
        (y, x) for y in range(2) for x in range(3)
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (voc(("ant", 1, 1, 2, 2)), "object: unknown class 'ant'"),
        (voc(("cat", 5, 1, 4, 2)), "a box without area"),
        ("<annotation><object><name>cat</name></object></annotation>", "xmin: expected a number, got ''"),
        ('<!DOCTYPE a [<!ENTITY b "cat">]><annotation/>', "document type"),
    ],
)
def test_bad_xml_is_named_with_the_reason(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "one.xml").write_text(content)
    with pytest.raises(InputError, match=rf"one\.xml: .*{message}"):
        read_boxes(tmp_path, ["one"], NAMES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "expected COCO's images, annotations and categories"),
        (coco(images=3), "expected COCO's images, annotations and categories"),
        (coco(images=[{"id": 7}]), "an entry without file_name"),
        (coco(images=[{"id": [7], "file_name": "a"}]), "an entry without id"),
        (coco(images=[{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "a.png"}]), "the same id or file name"),
        (
            coco(annotations=[{"image_id": 9, "category_id": 90, "bbox": [0, 0, 1, 1]}]),
            "image_id 9, category_id 90: one",
        ),
        (coco(annotations=[{"image_id": 7, "category_id": 90, "bbox": [0, 0, 1]}]), "image one: expected a bbox as"),
        (coco(annotations=[{"image_id": 7, "category_id": 90, "bbox": [0, 0, 0, 1]}]), "image one: a box without area"),
        (coco(categories=[{"id": 90, "name": "ant"}]), "image one: unknown class 'ant'"),
    ],
)
def test_bad_json_is_named_with_the_reason(tmp_path: Path, content: object, message: str) -> None:
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"a\.json: .*{message}"):
        read_boxes(tmp_path / "a.json", ["one"], NAMES)
