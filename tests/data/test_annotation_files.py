"""JSON and XML from elsewhere: what is refused, and how."""

from pathlib import Path

import pytest

from torch_svm_seg.data import annotation_files
from torch_svm_seg.data.annotation_files import class_id_in, number_in, read_json, read_xml
from torch_svm_seg.data.errors import InputError

ENTITIES = (
    '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "cat">]><annotation><object><name>&b;</name></object></annotation>'
)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "not JSON"),
        (b'{"a": 1, "a": 2}', "key 'a' occurs twice"),
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": -Infinity}', "-Infinity is no number"),
        (b"\xff\xfe{}", "not JSON"),
        (b"[" * 200_000, "not JSON"),
    ],
)
def test_json_that_means_nothing_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.json: .*{reason}"):
        read_json(file)


def test_json_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": [1.5, "b"]}')
    assert read_json(tmp_path / "a.json") == {"a": [1.5, "b"]}


@pytest.mark.parametrize(
    ("content", "reason"), [("<a>", "no element found"), (ENTITIES, "document type"), ("cat", "syntax error")]
)
def test_xml_that_cannot_be_trusted_is_refused(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "a.xml").write_text(content)
    with pytest.raises(InputError, match=rf"a\.xml: .*{reason}"):
        read_xml(tmp_path / "a.xml")


def test_xml_is_read_in_the_encoding_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_bytes('<?xml version="1.0" encoding="latin-1"?><a><b>Kühe</b></a>'.encode("latin-1"))
    assert read_xml(tmp_path / "a.xml").findtext("b") == "Kühe"


@pytest.mark.parametrize("read", [read_json, read_xml])
def test_missing_and_large_files_are_named(tmp_path: Path, read: object, monkeypatch: pytest.MonkeyPatch) -> None:
    assert callable(read)
    with pytest.raises(InputError, match="none: No such file"):
        read(tmp_path / "none")
    monkeypatch.setattr(annotation_files, "LARGEST_JSON", 10)
    monkeypatch.setattr(annotation_files, "LARGEST_XML", 10)
    (tmp_path / "large").write_text(" " * 11)
    with pytest.raises(InputError, match="large: expected a file of at most 10 bytes, got 11"):
        read(tmp_path / "large")


@pytest.mark.parametrize("value", ["x", None, True, [1], "", "nan", "inf", 10**400])
def test_what_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(InputError, match="here: expected a number"):
        number_in(value, "here")


def test_numbers_are_read_from_text_too() -> None:
    assert [number_in(value, "") for value in ("12.5", " 3 ", 4, 0.5)] == [12.5, 3, 4, 0.5]


def test_classes_go_by_name_or_id() -> None:
    names = ("background", "cat", "7")
    assert [class_id_in(value, names, "") for value in ("cat", 1, "0", " cat ", "7")] == [1, 1, 0, 1, 2]


@pytest.mark.parametrize("value", ["cow", 3, -1, "255", 1.0, True, None, "1e0", "9" * 5000])
def test_unknown_classes_are_refused(value: object) -> None:
    with pytest.raises(InputError, match=r"here: unknown class .*; expected") as error:
        class_id_in(value, ("background", "cat", "dog"), "here")
    assert len(str(error.value)) < 200
