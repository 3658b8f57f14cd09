"""Image-level labels from files, annotations and masks, and what they can get wrong."""

from pathlib import Path

import pytest
import torch
from conftest import TINY_IDS

from torch_svm_seg.data.constants import VOC_CLASSES
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.image_labels import labels_from_annotations, labels_from_masks, read_labels, with_labels
from torch_svm_seg.data.voc import voc2012

NAMES = ("background", "cat", "dining table", "dog")


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{"one.jpg": ["dog", "cat", "cat"], "sub/two": ["dining table"], "three": []}'),
        ("a.csv", 'one.jpg,dog, cat,cat\n\n"sub/two",dining table\nthree\n'),
    ],
)
def test_files_give_class_ids(tmp_path: Path, name: str, text: str) -> None:
    labels = read_labels(write(tmp_path / name, text), NAMES).labels
    assert labels == {"one": (1, 3), "sub/two": (2,), "three": ()}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '{"one": ["cow", "cat", "ant"]}', "image one: unknown classes ant, cow; expected cat, dining table"),
        ("a.json", '{"one": ["background"]}', "image one: unknown classes background"),
        ("a.csv", "one,cow\n", "image one: unknown classes cow"),
        ("a.json", '{"one": "cat"}', "image one: expected a list of class names, got 'cat'"),
        ("a.json", '{"one": [1]}', "image one: expected a list of class names"),
        ("a.json", '["cat"]', "expected an object"),
        ("a.json", "{", "not JSON"),
        ("a.csv", "one;cat;dog\ntwo;dog\n", "expected lines of comma-separated values"),
        ("a.pth", "", r"expected labels as .json or .csv.*, got .pth"),
    ],
)
def test_bad_files_are_named_with_the_reason(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(InputError, match=f"{name}: {message}"):
        read_labels(write(tmp_path / name, text), NAMES)


def test_missing_file_is_named(tmp_path: Path) -> None:
    for name in ("no.json", "no.csv"):
        with pytest.raises(InputError, match=f"{name}: No such file"):
            read_labels(tmp_path / name, NAMES)


def objects(*names: str) -> str:
    parts = "".join(f"<object><name>{name}</name><part><name>head</name></part></object>" for name in names)
    return f"<annotation>{parts}</annotation>"


def test_annotations_list_objects_but_not_their_parts(tmp_path: Path) -> None:
    write(tmp_path / "a.xml", objects("person", "cat", "person"))
    assert labels_from_annotations(tmp_path, ["a"], VOC_CLASSES) == {"a": (8, 15)}
    write(tmp_path / "b.xml", objects("unicorn"))
    write(tmp_path / "c.xml", "<annotation>")
    for name, message in (("b", "unknown classes unicorn"), ("c", "not XML"), ("d", "No such file")):
        with pytest.raises(InputError, match=rf"{name}\.xml: {message}"):
            labels_from_annotations(tmp_path, ["a", name], VOC_CLASSES)


def test_masks_give_their_classes_without_background_and_void(tiny_voc: Path) -> None:
    labels = labels_from_masks(voc2012(tiny_voc))
    assert labels == dict.fromkeys(TINY_IDS[:3], (8, 15))


def test_images_without_a_label_are_left_out_and_listed(tiny_voc: Path) -> None:
    dataset = voc2012(tiny_voc)
    data = with_labels(dataset, {TINY_IDS[2]: (1, 20), TINY_IDS[1]: (), "else": (3,)})
    assert data.dataset.ids == TINY_IDS[2:3] and data.unlabelled == TINY_IDS[:2] and len(data) == 1
    assert data.present.dtype == torch.bool and data.present.shape == (1, 20)
    assert data.classes(0) == (1, 20)
    with pytest.raises(InputError, match="none of the 3 images has a label"):
        with_labels(dataset, {"else": (3,)})
