"""Strokes of the brush: what the page sends, and the label map that they make."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from torch_svm_seg.data.annotation_files import number_in
from torch_svm_seg.data.constants import VOID
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.scribbles import line_mask

MOST_CORNERS = 5000
"""Most corners of a stroke: some minutes of drawing."""

LARGEST_WIDTH = 400


@dataclass(frozen=True)
class Stroke:
    """A line of the brush, or a click.

    Attributes:
        key: Name that the page gave it, by which a repeated request is known.
        class_id: Its class; 255 erases.
        corners: Its corners (x, y) in pixels; a single one is a click.
        width: Of the brush, in pixels.

    Examples:
        >>> Stroke("a", 8, ((3.0, 4.0),), width=9).is_click
        True
    """

    key: str
    class_id: int
    corners: tuple[tuple[float, float], ...]
    width: int

    @property
    def is_click(self) -> bool:
        """Whether it labels a single pixel."""
        return len(self.corners) == 1 and self.class_id != VOID

    def as_json(self) -> dict[str, Any]:
        """Return the stroke in the types of JSON."""
        return asdict(self)


def stroke_from_json(entry: Any, num_classes: int) -> Stroke:
    """Return the stroke that a page or a file describes.

    Args:
        entry: Object of ``key``, ``class_id``, ``corners`` and ``width``.
        num_classes: Number of classes.

    Raises:
        InputError: It describes none.

    Examples:
        >>> stroke_from_json({"key": "a", "class_id": 1, "corners": [[3, 4.5]], "width": 5}, 2)
        Stroke(key='a', class_id=1, corners=((3.0, 4.5),), width=5)
    """
    if not isinstance(entry, dict) or set(entry) != {"key", "class_id", "corners", "width"}:
        raise InputError("stroke: expected an object of key, class_id, corners and width")
    key, class_id, corners, width = (entry[name] for name in ("key", "class_id", "corners", "width"))
    if not isinstance(key, str) or not 0 < len(key) <= 64 or not key.isalnum():
        raise InputError("stroke: expected a key of at most 64 letters and digits")
    if type(class_id) is not int or not (0 <= class_id < num_classes or class_id == VOID):
        raise InputError(f"stroke: expected class_id 0 to {num_classes - 1}, or {VOID} to erase")
    if not isinstance(corners, list) or not 1 <= len(corners) <= MOST_CORNERS:
        raise InputError(f"stroke: expected 1 to {MOST_CORNERS} corners")
    if type(width) is not int or not 1 <= width <= LARGEST_WIDTH:
        raise InputError(f"stroke: expected width 1 to {LARGEST_WIDTH}")
    return Stroke(key, class_id, tuple(_corner(corner) for corner in corners), width)


def draw_strokes(strokes: Sequence[Stroke], size: tuple[int, int]) -> Tensor:
    """Return the label map of strokes, class ids (H, W), 255 where there is none; later strokes cover earlier ones.

    Args:
        strokes: In the order in which they were drawn.
        size: Height and width of the image.

    Examples:
        >>> draw_strokes([Stroke("a", 1, ((0, 0.5), (3, 0.5)), 1), Stroke("b", 255, ((1.5, 0.5),), 1)], (2, 3)).tolist()
        [[1, 255, 1], [255, 255, 255]]
    """
    labels = torch.full(size, VOID)
    for stroke in strokes:
        pixels = [(math.floor(x), math.floor(y)) for x, y in stroke.corners]
        labels[line_mask(pixels, size, stroke.width)] = stroke.class_id
    return labels


def _corner(corner: Any) -> tuple[float, float]:
    if not isinstance(corner, list) or len(corner) != 2:
        raise InputError("stroke: expected corners as [x, y]")
    x, y = (number_in(value, "stroke: corner") for value in corner)
    if not all(math.fabs(value) <= 1e5 for value in (x, y)):
        raise InputError("stroke: a corner far outside every image")
    return x, y
