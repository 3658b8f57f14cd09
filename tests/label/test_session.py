"""Strokes, what is saved of them, and what several tabs do to each other."""

import io
import json
import os
from pathlib import Path

import pytest
import torch
from label_files import GREEN, GREY, NAMES, RED, SIZE, open_session, stroke, truth, write_images
from PIL import Image

from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.folder import folder
from torch_svm_seg.data.io import read_mask
from torch_svm_seg.data.points import Point, read_points
from torch_svm_seg.data.scribbles import read_scribbles
from torch_svm_seg.label.pictures import image_png
from torch_svm_seg.label.session import Session
from torch_svm_seg.label.strokes import draw_strokes, stroke_from_json
from torch_svm_seg.pipeline.sparse_labels import PointLabels


@pytest.fixture
def session(tmp_path: Path) -> Session:
    write_images(tmp_path / "images")
    return open_session(tmp_path)


def test_strokes_of_all_classes_make_the_mask(session: Session) -> None:
    for entry in (RED, GREEN, GREY):
        state = session.add(1, entry)
    assert state.labelled is not None
    assert float((state.labelled.mask == truth()).float().mean()) > 0.99
    assert [entry["labelled"] for entry in session.overview()] == [False, True, False]


def test_all_is_written_in_the_forms_that_the_readers_read(session: Session, tmp_path: Path) -> None:
    session.add(1, stroke(2, (50.5, 40.2), key="click", width=1))
    state = session.add(1, RED)
    labels = tmp_path / "labels"
    assert state.labelled is not None
    assert torch.equal(read_mask(labels / "masks" / "image1.png"), state.labelled.mask)
    drawn = draw_strokes(state.strokes, SIZE)
    assert torch.equal(read_scribbles(labels / "scribbles", "image1", SIZE, NAMES), drawn)
    assert drawn[40, 50] == 2
    points = read_points(labels / "points.json", NAMES)
    assert points["image1"].points == (Point(50.5, 40.2, 2),)
    assert points["image1"].size == SIZE


def test_another_session_goes_on(session: Session, tmp_path: Path) -> None:
    for entry in (RED, GREY):
        before = session.add(0, entry)
    (tmp_path / "labels" / "masks" / "image0.png").unlink()  # the program was killed before it was written
    after = open_session(tmp_path)
    state = after.open(0)
    assert state.strokes == before.strokes
    assert after.overview()[0]["labelled"]
    assert after.open(1).labelled is None
    assert len(after.undo(0, "grey").strokes) == 1


def test_strokes_on_an_image_with_an_exif_turn_stay_where_the_page_shows_them(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 1)
    path, exif = tmp_path / "images" / "image0.png", Image.Exif()
    exif[0x0112] = 6  # orientation: a viewer turns it by 90 degrees
    with Image.open(path) as stored:
        stored.copy().save(path, exif=exif)
    session = open_session(tmp_path)
    for entry in (RED, GREEN, GREY, stroke(2, (50.5, 40.2), key="click", width=1)):
        state = session.add(0, entry)
    assert state.labelled is not None and float((state.labelled.mask == truth()).float().mean()) > 0.99
    with Image.open(io.BytesIO(image_png(session.dataset.image(0)))) as shown:
        assert shown.size == SIZE[::-1] and not shown.getexif()
    points = PointLabels(read_points(tmp_path / "labels" / "points.json", NAMES), radius=0)
    assert points.read(folder(tmp_path / "images"), 0).known[40, 50] == 2


def test_a_class_alone_has_the_whole_image(session: Session) -> None:
    state = session.add(0, GREY)
    assert state.labelled is not None
    assert state.labelled.mask.unique().tolist() == [0]
    assert bool((state.labelled.margin == torch.inf).all())


def test_undo_of_all_strokes_leaves_nothing(session: Session, tmp_path: Path) -> None:
    session.add(0, stroke(1, (3, 3), key="click"))
    assert session.undo(0, "unknown").strokes != ()
    state = session.undo(0, "click")
    assert state.strokes == ()
    assert state.labelled is None
    assert read_points(tmp_path / "labels" / "points.json", NAMES) == {}
    assert not (tmp_path / "labels" / "masks" / "image0.png").exists()
    assert not session.overview()[0]["labelled"]


def test_the_eraser_takes_labels_away(session: Session, tmp_path: Path) -> None:
    session.add(0, stroke(1, (10, 10), key="click"))
    state = session.add(0, stroke(255, (0, 0), (63, 47), key="eraser", width=200))
    assert state.labelled is None
    assert read_points(tmp_path / "labels" / "points.json", NAMES) == {}
    assert len(session.undo(0, "eraser").strokes) == 1


def test_two_tabs_lose_nothing(tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    session = open_session(tmp_path)
    first = session.open(0)
    session.add(0, RED)  # of one tab
    state = session.add(0, GREY)  # of another, which had opened the image before
    assert first.strokes == ()
    assert [entry.key for entry in state.strokes] == ["red", "grey"]
    assert session.add(0, RED).strokes == state.strokes  # repeated, since its answer had not arrived


def test_other_classes_are_refused(session: Session, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"class_names.txt: other classes, background, red, green; give those"):
        open_session(tmp_path, ("background", "green", "red"))


def test_a_damaged_file_is_named_and_kept(session: Session, tmp_path: Path) -> None:
    session.add(0, RED)
    file = tmp_path / "labels" / "strokes" / "image0.json"
    for content in ('[{"key": "a"', '{"key": "a"}', json.dumps([RED | {"class_id": 7}])):
        file.write_text(content)
        with pytest.raises(InputError, match=r"image0\.json: "):
            session.add(0, GREY)
        assert file.read_text() == content


def test_a_full_disk_keeps_what_was_there(session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session.add(0, RED)
    before = {file: file.read_bytes() for file in (tmp_path / "labels").rglob("*") if file.is_file()}

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        session.add(0, GREY)
    monkeypatch.undo()
    assert {file: file.read_bytes() for file in (tmp_path / "labels").rglob("*") if file.is_file()} == before
    assert len(session.open(0).strokes) == 1


@pytest.mark.parametrize(
    "entry",
    [
        None,
        [],
        {"key": "a"},
        stroke(3, (1, 1)),
        stroke(-1, (1, 1)),
        stroke(1),
        stroke(1, (1, 1), key=""),
        stroke(1, (1, 1), key="../a"),
        stroke(1, (1, 1), width=0),
        stroke(1, (1, 1), width=10**6),
        stroke(1, (float("nan"), 1)),
        stroke(1, (1e9, 1)),
        stroke(1, (1, 1)) | {"corners": [[1, 2, 3]]},
        stroke(1, (1, 1)) | {"corners": "ab"},
        stroke(1, (1, 1)) | {"class_id": True},
        stroke(1, (1, 1)) | {"more": 1},
        stroke(1, *[(1, 1)] * 5001),
    ],
)
def test_what_is_no_stroke_is_refused(session: Session, entry: object) -> None:
    with pytest.raises(InputError, match="stroke: "):
        session.add(0, entry)
    assert session.open(0).strokes == ()


def test_unknown_images_are_refused(session: Session) -> None:
    for index in (-1, 3):
        with pytest.raises(InputError, match=f"image {index}: there are 3"):
            session.open(index)


def test_strokes_outside_the_image_label_nothing(session: Session) -> None:
    assert session.add(0, stroke(1, (500, 500), (600, 600))).labelled is None


def test_features_are_computed_once_and_given_up_for_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path / "images")
    features = open_session(tmp_path).labeller.features
    first = features.maps(0)
    assert features.maps(0) is first
    features._most = 2 * first[0].numel() * 4
    for index in (1, 0, 2):
        features.maps(index)
    assert [index in features for index in range(3)] == [True, False, True]


def test_strokes_survive_json() -> None:
    found = stroke_from_json(RED, 3)
    assert stroke_from_json(json.loads(json.dumps(found.as_json())), 3) == found
