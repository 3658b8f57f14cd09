"""Points from JSON and CSV, and as discs in a mask."""

import json
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.points import DrawnPoints, ImagePoints, Point, draw_points, points_as_json, read_points

NAMES = ("background", "cat", "dog")
POINTS = {"one": ImagePoints((Point(1.5, 2, 1), Point(0, 3, 0))), "sub/two": ImagePoints((Point(4, 5, 2),))}


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "a.json",
            {
                "one.jpg": [{"x": 1.5, "y": 2, "cls": 1, "rank": 1}, {"x": 0, "y": 3, "cls": "background"}],
                "sub/two": [{"x": 4, "y": 5, "cls": "dog"}],
            },
        ),
        (
            "a.json",
            {
                "one": {"fg": [{"x": 1.5, "y": 2, "cls": 1}], "bg": [{"x": 0, "y": 3}]},
                "sub/two": {"fg": [{"x": 4, "y": 5, "cls": 2}]},
            },
        ),
        ("a.csv", "id,x,y,class\none.jpg, 1.5, 2, cat\none,0,3,background\n\nsub/two,4,5,2\n"),
        ("a.csv", "sub/two,4,5,dog\none,1.5,2,1\none,0,3,0\n"),
    ],
)
def test_all_forms_give_the_same_points(tmp_path: Path, name: str, content: object) -> None:
    assert read_points(write(tmp_path / name, content), NAMES) == POINTS


def test_size_and_certainty_are_read(tmp_path: Path) -> None:
    content = {"one": {"size": [40, 30], "fg": [{"x": 1, "y": 2, "cls": 1, "certainty": 0.5}], "bg": []}}
    found = read_points(write(tmp_path / "a.json", content), NAMES)["one"]
    assert found == ImagePoints((Point(1, 2, 1, 0.5),), (30, 40))
    assert read_points(write(tmp_path / "a.csv", "one,1,2,cat,0.5\n"), NAMES)["one"].points == found.points


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", {"one": [{"x": 1, "y": 2, "cls": "cow"}]}, "image one: unknown class 'cow'"),
        ("a.json", {"one": [{"x": 1, "y": 2, "cls": 3}]}, "image one: unknown class 3"),
        ("a.json", {"one": [{"x": 1, "cls": 1}]}, "image one: a point without y"),
        ("a.json", {"one": [{"x": "left", "y": 2, "cls": 1}]}, "image one: x: expected a number, got 'left'"),
        ("a.json", {"one": [[1, 2, 1]]}, "image one: expected a point as an object"),
        ("a.json", {"one": {"points": []}}, "image one: expected a list of points, or an object of size, fg and bg"),
        ("a.json", {"one": {"fg": 3}}, "image one: expected fg and bg as lists"),
        ("a.json", {"one": {"fg": [], "size": [3]}}, r"image one: expected size as \[width, height\]"),
        ("a.json", {"one": {"fg": [], "size": [3, 2.5]}}, r"image one: expected size as \[width, height\]"),
        ("a.json", {"one": [{"x": 1, "y": 2, "cls": 1, "certainty": 0}]}, "image one: certainty: expected more than 0"),
        ("a.json", {"one": [], "one.png": []}, "image one occurs twice"),
        ("a.json", [1], "expected an object of image ids and points"),
        ("a.csv", "one,1,2\n", "expected lines id,x,y,class"),
        ("a.csv", "one,1,nan,cat\n", "image one: y: expected a number"),
        ("a.csv", "one,1,2,cat,2\n", "image one: certainty: expected more than 0 and at most 1, got 2"),
        ("a.txt", "", "expected points as .json or .csv"),
    ],
)
def test_bad_files_are_named_with_the_reason(tmp_path: Path, name: str, content: object, message: str) -> None:
    with pytest.raises(InputError, match=f"{name}: {message}"):
        read_points(write(tmp_path / name, content), NAMES)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.text("abc/", min_size=1, max_size=5),
        st.builds(
            ImagePoints,
            st.lists(st.builds(Point, st.floats(0, 1e3), st.floats(0, 1e3), st.integers(1, 2), st.floats(1e-3, 1)))
            .map(tuple),
            st.none() | st.tuples(st.integers(1, 999), st.integers(1, 999)),
        ),
    )
)  # fmt: skip
def test_points_are_read_as_they_were_written(points: dict[str, ImagePoints]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert read_points(write(Path(folder) / "a.json", points_as_json(points)), NAMES) == points


def brute_force(points: list[Point], size: tuple[int, int], radius: float) -> torch.Tensor:
    """The class of the nearest pixel that was clicked, pixel by pixel."""
    labels = torch.full(size, 255)
    for row in range(size[0]):
        for column in range(size[1]):
            distances = [((int(p.y) - row) ** 2 + (int(p.x) - column) ** 2, p.class_id) for p in points]
            near = [pair for pair in distances if pair[0] <= radius**2]
            classes = {class_id for distance, class_id in near if distance == min(near)[0]}
            if len(classes) == 1:
                labels[row, column] = classes.pop()
    return labels


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 8.9), st.floats(0, 6.9)), min_size=1, max_size=6, unique_by=lambda p: tuple(map(int, p))
    ),
    st.sampled_from([0, 1, 1.5, 2, 4]),
    st.data(),
)
def test_pixels_belong_to_the_nearest_point(
    places: list[tuple[float, float]], radius: float, data: st.DataObject
) -> None:
    points = [Point(x, y, data.draw(st.integers(0, 2))) for x, y in places]
    drawn = draw_points(points, (7, 9), radius)
    assert torch.equal(drawn.labels, brute_force(points, (7, 9), radius))
    assert torch.equal(drawn.certainty > 0, drawn.labels != 255)


def test_points_outside_are_left_out_and_counted() -> None:
    points = [Point(3.01, 1, 1), Point(-0.1, 1, 1), Point(1, 2.5, 1), Point(3, 2, 2)]
    drawn = draw_points(points, (2, 3))
    assert drawn.outside == 3
    assert drawn.labels.tolist() == [[255, 255, 255], [255, 255, 2]]  # the far corner belongs to the last pixel


def test_contradictions_are_left_out_and_counted() -> None:
    points = [Point(1.2, 1.7, 1), Point(1.9, 1.1, 2), Point(3, 3, 2)]
    drawn = draw_points(points, (4, 4), radius=1)
    assert drawn.contradicted == 2
    assert set(drawn.labels[:2, :2].flatten().tolist()) == {255}
    assert drawn.labels[3, 3] == 2


def test_certainty_follows_the_point() -> None:
    drawn = draw_points([Point(0, 0, 1, 0.5), Point(3, 0, 1)], (1, 5), radius=1)
    assert drawn.certainty.tolist() == [[0.5, 0.5, 1, 1, 1]]


def test_no_points_are_no_labels() -> None:
    drawn = draw_points([], (2, 2), radius=3)
    assert isinstance(drawn, DrawnPoints)
    assert bool((drawn.labels == 255).all())
