"""Points: clicks at pixels whose class is known, as JSON or CSV.

- ``{"ID": [{"x": 12.5, "y": 40, "cls": 8}, ...], ...}``: the form of What's the Point (Bearman et al., ECCV 2016).
- ``{"ID": {"size": [WIDTH, HEIGHT], "fg": [...], "bg": [...]}, ...}``: the same with points of the background, which
  need no ``cls``.
- CSV with the columns ``id,x,y,class``, and ``certainty`` if there is a fifth one; a first line of these names is
  skipped.

``x`` counts from the left and ``y`` from the top, in pixels of the image as it is stored, 0 to its width or height; the
pixel is the one that the point lies in. A class is its name or its id. A ``certainty``, above 0 and at most 1, is how
sure the label is: the weight of its loss.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torch_svm_seg.data.annotation_files import class_id_in, number_in, read_json
from torch_svm_seg.data.constants import VOID
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import PathLike
from torch_svm_seg.data.lists import read_lines, without_image_suffix


class Point(NamedTuple):
    """A pixel whose class is known.

    Attributes:
        x: Pixels from the left, 0 to the width.
        y: Pixels from the top, 0 to the height.
        class_id: Its class.
        certainty: How sure the label is, above 0 and at most 1.

    Examples:
        >>> Point(3, 4, class_id=8)
        Point(x=3, y=4, class_id=8, certainty=1.0)
    """

    x: float
    y: float
    class_id: int
    certainty: float = 1.0


@dataclass(frozen=True)
class ImagePoints:
    """The points of one image.

    Attributes:
        points: The points.
        size: Height and width of the image that they were set on, where the file tells them.

    Examples:
        >>> ImagePoints((Point(3, 4, class_id=8),), size=(60, 80)).size
        (60, 80)
    """

    points: tuple[Point, ...]
    size: tuple[int, int] | None = None


def read_points(path: PathLike, class_names: Sequence[str]) -> dict[str, ImagePoints]:
    r"""Read the points of a data set's images.

    Args:
        path: ``*.json`` or ``*.csv``, see the module.
        class_names: Name of each class id, background first.

    Returns:
        Points by image id.

    Raises:
        InputError: The file cannot be read, has another form, or a point an unknown class or a value out of range.

    Examples:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
        ...     _ = file.write("id,x,y,class\ncat1.jpg,12.5,40,cat\ncat1.jpg,3,4,background\n")
        ...     file.flush()
        ...     read_points(file.name, ["background", "cat"])["cat1"].points[0]
        Point(x=12.5, y=40.0, class_id=1, certainty=1.0)
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".json", ".csv"):
        raise InputError(f"{path}: expected points as .json or .csv")
    return _read_json(path, class_names) if suffix == ".json" else _read_csv(path, class_names)


def points_as_json(points: Mapping[str, ImagePoints]) -> dict[str, Any]:
    """Return points in the form with ``fg``, ``bg`` and ``size`` that :func:`read_points` reads.

    Examples:
        >>> points_as_json({"a": ImagePoints((Point(3, 4, class_id=8),), size=(60, 80))})
        {'a': {'size': [80, 60], 'fg': [{'x': 3, 'y': 4, 'cls': 8}], 'bg': []}}
    """
    return {id: _image_as_json(annotated) for id, annotated in points.items()}


def _image_as_json(annotated: ImagePoints) -> dict[str, Any]:
    entries = [
        {"x": point.x, "y": point.y, "cls": point.class_id}
        | ({} if point.certainty == 1 else {"certainty": point.certainty})
        for point in annotated.points
    ]
    size = {"size": list(reversed(annotated.size))} if annotated.size else {}
    return size | {
        "fg": [entry for entry in entries if entry["cls"] != 0],
        "bg": [entry for entry in entries if entry["cls"] == 0],
    }


def _read_json(path: PathLike, class_names: Sequence[str]) -> dict[str, ImagePoints]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected an object of image ids and points")
    found: dict[str, ImagePoints] = {}
    for name, entry in content.items():
        _add(found, name, _image_points(entry, class_names, f"{path}: image {name}"), path)
    return found


def _image_points(entry: Any, class_names: Sequence[str], source: str) -> ImagePoints:
    if isinstance(entry, list):
        return ImagePoints(tuple(_point(item, class_names, source) for item in entry))
    if not isinstance(entry, dict) or not {"fg", "bg"} & set(entry):
        raise InputError(f"{source}: expected a list of points, or an object of size, fg and bg")
    foreground, background = _listed(entry.get("fg", []), source), _listed(entry.get("bg", []), source)
    points = [_point(item, class_names, source) for item in foreground]
    points += [_point({"cls": 0} | _object(item, source), class_names, source) for item in background]
    return ImagePoints(tuple(points), _size(entry["size"], source) if "size" in entry else None)


def _point(item: Any, class_names: Sequence[str], source: str) -> Point:
    entry = _object(item, source)
    missing = [name for name in ("x", "y", "cls") if name not in entry]
    if missing:
        raise InputError(f"{source}: a point without {', '.join(missing)}; expected x, y and cls")
    return _checked(entry["x"], entry["y"], entry["cls"], entry.get("certainty", 1), class_names, source)


def _checked(x: Any, y: Any, class_: Any, certainty: Any, class_names: Sequence[str], source: str) -> Point:
    sure = number_in(certainty, f"{source}: certainty")
    if not 0 < sure <= 1:
        raise InputError(f"{source}: certainty: expected more than 0 and at most 1, got {sure}")
    return Point(
        number_in(x, f"{source}: x"), number_in(y, f"{source}: y"), class_id_in(class_, class_names, source), sure
    )


def _object(item: Any, source: str) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise InputError(f"{source}: expected a point as an object of x, y and cls")
    return item


def _listed(items: Any, source: str) -> list[Any]:
    if not isinstance(items, list):
        raise InputError(f"{source}: expected fg and bg as lists of points")
    return items


def _size(value: Any, source: str) -> tuple[int, int]:
    sides = [number_in(side, f"{source}: size") for side in _listed(value, source)]
    if len(sides) != 2 or not all(side >= 1 and side == int(side) for side in sides):
        raise InputError(f"{source}: expected size as [width, height], got {str(value)[:40]}")
    return int(sides[1]), int(sides[0])


def _read_csv(path: PathLike, class_names: Sequence[str]) -> dict[str, ImagePoints]:
    rows = list(csv.reader(read_lines(path), skipinitialspace=True))
    if rows and [cell.strip().lower() for cell in rows[0][:3]] == ["id", "x", "y"]:
        rows = rows[1:]
    grouped: dict[str, list[Point]] = {}
    for row in rows:
        if len(row) not in (4, 5):
            raise InputError(f"{path}: expected lines id,x,y,class or id,x,y,class,certainty, got {','.join(row)[:60]}")
        id = without_image_suffix(row[0].strip())
        x, y, class_, certainty = (*row[1:], "1")[:4]
        point = _checked(x, y, class_, certainty, class_names, f"{path}: image {id}")
        grouped.setdefault(id, []).append(point)
    return {id: ImagePoints(tuple(points)) for id, points in grouped.items()}


def _add(found: dict[str, ImagePoints], name: str, points: ImagePoints, path: PathLike) -> None:
    id = without_image_suffix(name)
    if id in found:
        raise InputError(f"{path}: image {id} occurs twice, with and without its suffix")
    found[id] = points


class DrawnPoints(NamedTuple):
    """Points as a mask.

    Attributes:
        labels: Class ids (H, W), 255 away from the points.
        certainty: How sure each label is, float32 (H, W), 0 away from the points.
        outside: Number of points outside the image, which are left out.
        contradicted: Number of points that share their pixel with one of another class, and are left out.

    Examples:
        >>> drawn = draw_points([Point(1.5, 0.2, 7), Point(9, 9, 3)], (2, 3))
        >>> drawn.labels.tolist(), drawn.outside
        ([[255, 7, 255], [255, 255, 255]], 1)
    """

    labels: Tensor
    certainty: Tensor
    outside: int
    contradicted: int


def draw_points(points: Sequence[Point], size: tuple[int, int], radius: float = 0) -> DrawnPoints:
    """Draw points as discs; a pixel in several discs belongs to the nearest point, or to none of several as near.

    Args:
        points: The points.
        size: Height and width of the image.
        radius: Of the discs, in pixels; 0 for single pixels.

    Examples:
        >>> draw_points([Point(1.5, 0.2, 7), Point(9, 9, 3)], (2, 3), radius=1).labels.tolist()
        [[7, 7, 7], [255, 7, 255]]
    """
    inside = [point for point in points if 0 <= point.x <= size[1] and 0 <= point.y <= size[0]]
    usable = _uncontradicted(inside, size)
    labels, certainty = torch.full(size, VOID), torch.zeros(size)
    nearest = torch.full(size, torch.inf)
    for point in usable:
        rows, columns, distance = _disc(point, size, radius)
        before, now = nearest[rows, columns], torch.where(distance <= radius, distance, torch.inf)
        closer, tied = now < before, (now == before) & (now < torch.inf) & (labels[rows, columns] != point.class_id)
        labels[rows, columns] = torch.where(closer, point.class_id, labels[rows, columns]).masked_fill(tied, VOID)
        certainty[rows, columns] = torch.where(closer, point.certainty, certainty[rows, columns]).masked_fill(tied, 0)
        nearest[rows, columns] = torch.minimum(before, now)
    return DrawnPoints(labels, certainty, len(points) - len(inside), len(inside) - len(usable))


def _pixel(point: Point, size: tuple[int, int]) -> tuple[int, int]:
    """Return row and column of the pixel that a point lies in; the far edges belong to the last pixels."""
    return min(int(point.y), size[0] - 1), min(int(point.x), size[1] - 1)


def _uncontradicted(points: Sequence[Point], size: tuple[int, int]) -> list[Point]:
    """Return the points whose pixel no point of another class shares."""
    classes: dict[tuple[int, int], set[int]] = {}
    for point in points:
        classes.setdefault(_pixel(point, size), set()).add(point.class_id)
    return [point for point in points if len(classes[_pixel(point, size)]) == 1]


def _disc(point: Point, size: tuple[int, int], radius: float) -> tuple[slice, slice, Tensor]:
    """Return the rows and columns around a point, and how far their pixels are from its own."""
    row, column = _pixel(point, size)
    reach = int(radius)
    rows = slice(max(row - reach, 0), min(row + reach + 1, size[0]))
    columns = slice(max(column - reach, 0), min(column + reach + 1, size[1]))
    down = torch.arange(rows.start, rows.stop)[:, None] - row
    right = torch.arange(columns.start, columns.stop) - column
    return rows, columns, (down.square() + right.square()).sqrt()
