"""Image-level labels in the forms that code bases write, each of which says cat and person of the image a."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from torch_svm_seg.data.constants import VOC_CLASSES
from torch_svm_seg.data.errors import LONGEST_MESSAGE, InputError
from torch_svm_seg.data.image_labels import by_number, labels_from_annotations, read_labels

CAT, PERSON = 8, 15
BOTH = (CAT, PERSON)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def one_hot(*ids: int, background: bool = False) -> np.ndarray:
    values = np.zeros(21, np.float32)
    values[list(ids)] = 1
    return values if background else values[1:]


def coco_file(path: Path, names: tuple[str, ...] = ("cat", "person")) -> Path:
    content = {
        "images": [{"id": 5, "file_name": "a.jpg", "height": 4, "width": 4}, {"id": 6, "file_name": "b.jpg"}],
        "categories": [{"id": 17, "name": names[0]}, {"id": 1, "name": names[1]}],
        "annotations": [{"image_id": 5, "category_id": 17}, {"image_id": 5, "category_id": 1, "iscrowd": 1}],
    }
    return write(path, json.dumps(content))


@pytest.mark.parametrize(
    ("name", "text", "form"),
    [
        ("a.json", '{"a": ["cat", "person"]}', "json"),
        ("a.json", '{"a": ["cat"], "a": ["person"]}', "json"),
        ("a.json", '{"a": ["cat"], "a.jpg": ["person"]}', "json"),
        ("a.csv", "a,cat,person\n", "csv"),
        ("a.csv", "a,cat\na,person\n", "csv"),
        ("a.csv", "a.jpg,cat\na,person\nb,dog\n", "csv"),
        ("a.csv", "image,label\na,cat\na,person\n", "csv"),
        ("a.csv", "name,dog,cat,person\na,0,1,1\nb,1,0,0\n", "table"),
        ("a.csv", "name,cat,person\na.jpg,1.0,1.0\n", "table"),
        ("train_cls.txt", "a 7 14\nb 0\n", "ids"),
        ("train_cls.txt", "a 7 14\n", "ids"),
        ("train_cls.txt", "a.jpg 7\na 14\n", "ids"),
        ("a.txt", "a 8 15\nb 20\n", "ids"),
        ("a.txt", "a " + " ".join("1" if id in BOTH else "0" for id in range(1, 21)) + "\n", "one_hot"),
        ("a.csv", "a," + ",".join("1" if id in BOTH else "0" for id in range(21)) + "\n", "one_hot"),
        ("a.csv", "a," + ",".join("1.0" if id in BOTH else "0.0" for id in range(1, 21)) + "\n", "one_hot"),
        ("a.csv", "a," + ",".join("1" if id in BOTH else "-1" for id in range(1, 21)) + "\n", "one_hot"),
    ],
)
def test_text_files(tmp_path: Path, name: str, text: str, form: str) -> None:
    found = read_labels(write(tmp_path / name, text), VOC_CLASSES)
    assert (found.labels["a"], found.form) == (BOTH, form)


@pytest.mark.parametrize("key", ["a", "2007_000032", 2007000032, np.int32(2007000032), np.str_("2007_000032")])
@pytest.mark.parametrize("background", [False, True])
def test_cls_labels_npy(tmp_path: Path, key: object, background: bool) -> None:
    np.save(tmp_path / "cls_labels.npy", {key: one_hot(*BOTH, background=background)}, allow_pickle=True)
    labels = read_labels(tmp_path / "cls_labels.npy", VOC_CLASSES).labels
    assert labels == {"a" if key == "a" else "2007_000032": BOTH}


def test_numbers_stand_for_images_of_coco(tmp_path: Path) -> None:
    """Of 2017, whose names are the number, and of 2014, whose names end in it."""
    values = {9: one_hot(*BOTH), 581921: torch.tensor(one_hot(CAT))}
    np.save(tmp_path / "cls_labels.npy", values, allow_pickle=True)
    labels = read_labels(tmp_path / "cls_labels.npy", VOC_CLASSES).labels
    assert labels == {"000000000009": BOTH, "000000581921": (CAT,)}
    names = ["COCO_val2014_000000000009", "COCO_val2014_000000000010", "000000000009"]
    assert by_number(labels, names) == {names[0]: BOTH}


@pytest.mark.parametrize(("text", "shown"), [("a,1,0\nb,0,1\n", {"a": (1,), "b": (2,)}), ("a,0,1\n", {"a": (1, 2)})])
def test_one_0_or_1_for_each_of_two_classes_does_not_ascend(
    tmp_path: Path, text: str, shown: dict[str, tuple[int, ...]]
) -> None:
    assert read_labels(write(tmp_path / "a.csv", text), ["background", "cat", "dog"]).labels == shown


def test_lines_of_0_and_1_are_not_ids_without_a_word(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="image a: 3 values, expected one for each of 20 classes"):
        read_labels(write(tmp_path / "a.txt", "a 0 1 0\nb 0 1 1\n"), VOC_CLASSES)
    (note,) = read_labels(write(tmp_path / "a.txt", "a 0\nb 1\n"), VOC_CLASSES).notes
    assert note == "a.txt: no numbers but 0 and 1, taken for the ids of aeroplane and bicycle"


def test_cls_labels_npy_runs_nothing(tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self):
            return Path.mkdir, (tmp_path / "run",)

    np.save(tmp_path / "a.npy", {"a": Malicious()}, allow_pickle=True)
    with pytest.raises(InputError, match=r"a\.npy: not read \(holds .* could run code"):
        read_labels(tmp_path / "a.npy", VOC_CLASSES)
    assert not (tmp_path / "run").exists()


def test_coco_s_annotations_are_labels(tmp_path: Path) -> None:
    found = read_labels(coco_file(tmp_path / "instances.json"), VOC_CLASSES)
    assert found.labels == {"a": BOTH, "b": ()} and found.form == "coco"


def test_coco_s_annotations_of_other_classes_are_one_short_error(tmp_path: Path) -> None:
    path = coco_file(tmp_path / "instances.json", ("cat", "teddy bear"))
    with pytest.raises(InputError, match=r"instances\.json: unknown class teddy bear") as caught:
        read_labels(path, VOC_CLASSES)
    assert len(str(caught.value)) <= LONGEST_MESSAGE


def test_lists_of_voc_s_main_folder(tmp_path: Path) -> None:
    write(tmp_path / "cat_train.txt", "a  1\nb -1\nc  0\n")
    write(tmp_path / "person_val.txt", "a  1\nb  1\nc -1\n")
    write(tmp_path / "train.txt", "a\nb\n")
    write(tmp_path / "notes_about.txt", "not a list\n")
    assert read_labels(tmp_path, VOC_CLASSES).labels == {"a": BOTH, "b": (PERSON,), "c": (CAT,)}
    one = read_labels(tmp_path / "cat_train.txt", VOC_CLASSES)
    assert one.labels == {"a": (CAT,), "b": (), "c": (CAT,)} and one.notes == ("cat_train.txt: only cat is labelled",)


def test_a_folder_of_annotations(tmp_path: Path) -> None:
    objects = "".join(f"<object><name>{name}</name></object>" for name in ("person", "cat"))
    write(tmp_path / "a.xml", f"<annotation>{objects}</annotation>")
    assert read_labels(tmp_path, VOC_CLASSES).labels == {"a": BOTH}


def test_where_numbers_count_from_is_told_by_all_of_them_and_else_said(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    assert read_labels(write(path, "a 7 14\nb 0\n"), VOC_CLASSES).notes == ()
    assert read_labels(write(path, "a 8 15\nb 20\n"), VOC_CLASSES).notes == (
        "a.txt: class ids count from 1, the background being 0",
    )
    doubtful = read_labels(write(path, "a 7 14\n"), VOC_CLASSES)
    assert doubtful.labels == {"a": BOTH} and "--labels-form ids_from_1" in doubtful.notes[0]
    assert read_labels(write(path, "a 8 15\n"), VOC_CLASSES, "ids_from_1").labels == {"a": BOTH}
    with pytest.raises(InputError, match=r"a\.txt: class ids 0 to 20; expected 0 to 19, or 1 to 20"):
        read_labels(write(path, "a 0 20\n"), VOC_CLASSES)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b'{"a": ' * 2000 + b"1" + b"}" * 2000, "too deeply nested"),
        ("a.json", b"[" * 100_000, "too deeply nested"),
        ("a.csv", b'a,"' + b"x" * 200_000 + b'"\n', "field larger than field limit"),
        ("a.txt", b"a 1 2\nb x\n", "unknown classes"),
        ("a.csv", b"name,cat,person\na,1\n", "image a: 1 values for 2 classes"),
        ("a.npy", pickle.dumps({"a": 1}), "not read"),
    ],
)
def test_files_that_make_readers_fail_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name}: .*{message}"):
        read_labels(tmp_path / name, VOC_CLASSES)


@pytest.mark.parametrize(
    ("values", "message"),
    [(np.ones(7), "7 values, expected one for each of 20 classes"), (np.full(20, 0.5), "expected 0 and 1, got 0.5")],
)
def test_arrays_of_another_kind_are_named(tmp_path: Path, values: np.ndarray, message: str) -> None:
    np.save(tmp_path / "a.npy", {"x": values}, allow_pickle=True)
    with pytest.raises(InputError, match=rf"a\.npy: image x: {message}"):
        read_labels(tmp_path / "a.npy", VOC_CLASSES)


@pytest.mark.parametrize(
    "xml",
    [
        b'<?xml version="1.0" encoding="nobody-knows"?><annotation/>',
        b'<?xml version="1.0" encoding="utf-7"?><annotation/>',
        b'<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "' + b"&b;" * 10_000 + b'">]><a>' + b"&c;" * 10_000 + b"</a>",
        b"\0\0\0\0",
    ],
)
def test_annotations_that_make_the_parser_fail_are_named(tmp_path: Path, xml: bytes) -> None:
    (tmp_path / "a.xml").write_bytes(xml)
    with pytest.raises(InputError, match=r"a\.xml: not XML"):
        labels_from_annotations(tmp_path, ["a"], VOC_CLASSES)


def test_an_unknown_form_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--labels-form: expected one of annotations, main_folder, .* got 'x'"):
        read_labels(write(tmp_path / "a.csv", "a,cat\n"), VOC_CLASSES, "x")
