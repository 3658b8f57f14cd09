"""The labels of a session, on disk: nothing is lost when the program or the machine stops.

The folder holds

- ``strokes/ID.json``: the strokes, from which all else follows;
- ``scribbles/ID.png``: the label map of the strokes, 255 elsewhere, for ``expand.py --supervision scribbles``;
- ``points.json``: the clicks, for ``expand.py --supervision points``;
- ``masks/ID.png``: the mask of each labelled image;
- ``class_names.txt``: the classes.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from torch_svm_seg.data.annotation_files import read_json
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import save_mask, write_text_atomically
from torch_svm_seg.data.lists import read_lines
from torch_svm_seg.data.points import ImagePoints, Point, points_as_json, read_points
from torch_svm_seg.label.strokes import Stroke, draw_strokes, stroke_from_json


class AnnotationFolder:
    """The strokes of a data set's images, and the files that follow from them.

    Args:
        folder: Where they lie.
        class_names: Name of each class id, background first.

    Raises:
        InputError: The folder holds annotations of other classes, or a damaged file.
    """

    def __init__(self, folder: Path, class_names: Sequence[str]) -> None:
        self.folder, self.class_names = folder, tuple(class_names)
        names, points = folder / "class_names.txt", folder / "points.json"
        if names.is_file() and tuple(read_lines(names)) != self.class_names:
            raise InputError(f"{names}: other classes, {', '.join(read_lines(names))}; give those, or another --out")
        if not names.is_file():
            write_text_atomically(names, "".join(f"{name}\n" for name in class_names))
        self._points = read_points(points, class_names) if points.is_file() else {}

    def mask_path(self, id: str) -> Path:
        """Return where the mask of an image lies."""
        return self.folder / "masks" / f"{id}.png"

    def is_labelled(self, id: str) -> bool:
        """Whether an image has a mask."""
        return self.mask_path(id).is_file()

    def read(self, id: str) -> list[Stroke]:
        """Read the strokes on an image.

        Raises:
            InputError: Their file is damaged.
        """
        path = self._strokes_path(id)
        if not path.is_file():
            return []
        entries = read_json(path)
        if not isinstance(entries, list):
            raise InputError(f"{path}: expected a list of strokes")
        try:
            return [stroke_from_json(entry, len(self.class_names)) for entry in entries]
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    def write(self, id: str, strokes: Sequence[Stroke], size: tuple[int, int], mask: Tensor | None) -> None:
        """Write the strokes on an image and what follows from them.

        Args:
            id: The image.
            strokes: All strokes on it; none takes its files away.
            size: Its height and width.
            mask: Its mask, class ids (H, W); None where no stroke labels a pixel.

        Raises:
            OSError: A file cannot be written.
        """
        scribbles = self.folder / "scribbles" / f"{id}.png"
        write_text_atomically(self._strokes_path(id), json.dumps([stroke.as_json() for stroke in strokes]))
        self._write_points(id, strokes, size)
        if mask is None:
            scribbles.unlink(missing_ok=True)
            self.mask_path(id).unlink(missing_ok=True)
        else:
            save_mask(scribbles, draw_strokes(strokes, size))
            save_mask(self.mask_path(id), mask)

    def _strokes_path(self, id: str) -> Path:
        return self.folder / "strokes" / f"{id}.json"

    def _write_points(self, id: str, strokes: Sequence[Stroke], size: tuple[int, int]) -> None:
        points = visible_clicks(strokes, size)
        if points == self._points.get(id, ImagePoints(())).points:
            return
        self._points[id] = ImagePoints(points, size)
        if not points:
            del self._points[id]
        write_text_atomically(self.folder / "points.json", json.dumps(points_as_json(self._points)))


def visible_clicks(strokes: Sequence[Stroke], size: tuple[int, int]) -> tuple[Point, ...]:
    """Return the clicks inside an image of a size (H, W) that no later stroke covers."""
    labels = draw_strokes(strokes, size)
    clicks = [(stroke.corners[0], stroke.class_id) for stroke in strokes if stroke.is_click]
    inside = [(x, y, class_id) for (x, y), class_id in clicks if 0 <= x < size[1] and 0 <= y < size[0]]
    return tuple(Point(x, y, class_id) for x, y, class_id in inside if labels[int(y), int(x)] == class_id)
