"""Scribbles: lines drawn on an image, each of one class, as masks or as the XML of ScribbleSup.

- ``ID.png``: a mask of class ids whose pixels off the scribbles are 255.
- ``ID.xml``: ScribbleSup's annotations (Lin et al., CVPR 2016): a ``size``, and ``polygon`` elements of a ``tag``, the
  class, and ``point`` elements of ``X`` and ``Y``, the corners of a line. Its short names of VOC's classes are known.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from torch_svm_seg.data.annotation_files import class_id_in, number_in, read_xml
from torch_svm_seg.data.constants import VOID
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import PathLike, read_mask, size_text

SHORT_NAMES = {
    "plane": "aeroplane",
    "bike": "bicycle",
    "table": "diningtable",
    "plant": "pottedplant",
    "monitor": "tvmonitor",
}
"""ScribbleSup's own names of classes, and VOC's."""


@dataclass(frozen=True)
class Scribble:
    """A line of one class.

    Attributes:
        corners: Its corners (x, y) in pixels.
        class_id: Its class.

    Examples:
        >>> Scribble(((0.0, 0.0), (8.0, 3.0)), class_id=8).class_id
        8
    """

    corners: tuple[tuple[float, float], ...]
    class_id: int


def read_scribbles(
    folder: PathLike, id: str, size: tuple[int, int], class_names: Sequence[str], width: int = 3
) -> Tensor:
    """Read the scribbles on an image.

    Args:
        folder: Folder of ``ID.png`` or ``ID.xml``.
        id: The image.
        size: Its height and width.
        class_names: Name of each class id, background first.
        width: Of the lines of XML, in pixels.

    Returns:
        Class ids (H, W), 255 off the scribbles, and where lines of different classes cross.

    Raises:
        InputError: There is no such file or there are both, it is damaged or of another size, or has unknown classes.

    Examples:
        >>> import tempfile
        >>> corners = "<point><X>0</X><Y>1</Y></point><point><X>2</X><Y>1</Y></point>"
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.xml").write_text(f"<a><polygon><tag>cat</tag>{corners}</polygon></a>")
        ...     read_scribbles(folder, "a", (2, 4), ["background", "cat"], width=1).tolist()
        [[255, 255, 255, 255], [1, 1, 1, 255]]
    """
    mask, lines = Path(folder) / f"{id}.png", Path(folder) / f"{id}.xml"
    if mask.is_file() == lines.is_file():
        raise InputError(f"{mask}: expected this file or {lines.name}, found {'both' if mask.is_file() else 'neither'}")
    if mask.is_file():
        return _read_mask(mask, size, len(class_names))
    scribbles, annotated = read_scribble_lines(lines, class_names)
    if annotated is not None:
        _check_size(lines, annotated, size)
    return draw_scribbles(scribbles, size, width)


def read_scribble_lines(
    path: PathLike, class_names: Sequence[str]
) -> tuple[tuple[Scribble, ...], tuple[int, int] | None]:
    """Read the lines of an XML file of ScribbleSup.

    Args:
        path: The file.
        class_names: Name of each class id, background first.

    Returns:
        The lines, and the image's height and width where the file tells them.

    Raises:
        InputError: The file is damaged or of another form, or has an unknown class.

    Examples:
        >>> import tempfile
        >>> corners = "<point><X>0</X><Y>1</Y></point><point><X>2</X><Y>1</Y></point>"
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.xml").write_text(f"<a><polygon><tag>cat</tag>{corners}</polygon></a>")
        ...     read_scribble_lines(Path(folder, "a.xml"), ["background", "cat"])
        ((Scribble(corners=((0.0, 1.0), (2.0, 1.0)), class_id=1),), None)
    """
    tree = read_xml(path)
    lines = tuple(_line(polygon, class_names, path) for polygon in tree.iterfind("polygon"))
    width, height = tree.findtext("size/width"), tree.findtext("size/height")
    if width is None or height is None:
        return lines, None
    return lines, (int(number_in(height, f"{path}: height")), int(number_in(width, f"{path}: width")))


def draw_scribbles(scribbles: Sequence[Scribble], size: tuple[int, int], width: int = 3) -> Tensor:
    """Draw lines into a mask; what lies outside the image is cut off.

    Args:
        scribbles: The lines.
        size: Height and width of the image.
        width: Of the lines, in pixels.

    Returns:
        Class ids (H, W), 255 off the lines, and where lines of different classes cross.

    Examples:
        >>> draw_scribbles([Scribble(((0, 1), (2, 1)), 7)], (3, 4), width=1).tolist()
        [[255, 255, 255, 255], [7, 7, 7, 255], [255, 255, 255, 255]]
    """
    labels = torch.full(size, VOID)
    crossed = torch.zeros(size, dtype=torch.bool)
    for scribble in scribbles:
        drawn = line_mask(scribble.corners, size, width)
        crossed |= drawn & (labels != VOID) & (labels != scribble.class_id)
        labels[drawn] = scribble.class_id
    return labels.masked_fill(crossed, VOID)


def line_mask(corners: Sequence[tuple[float, float]], size: tuple[int, int], width: int) -> Tensor:
    """Return the pixels of a line with round ends and joints, bool (H, W).

    Args:
        corners: Columns and rows (x, y) of its corners, the first pixel's being 0; a single one is a dot.
        size: Height and width of the image.
        width: Of the line, in pixels.

    Examples:
        >>> line_mask([(0, 0), (3, 0)], (2, 5), width=1).int().tolist()
        [[1, 1, 1, 1, 0], [0, 0, 0, 0, 0]]
    """
    canvas = Image.new("1", (size[1], size[0]))
    draw, radius = ImageDraw.Draw(canvas), (width - 1) / 2
    rounded = [(round(x), round(y)) for x, y in corners]
    draw.line(rounded, fill=1, width=width)
    draw.point(rounded, fill=1)
    for x, y in rounded if width > 2 else ():
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1)
    return torch.from_numpy(np.array(canvas))


def _line(polygon: Element, class_names: Sequence[str], path: PathLike) -> Scribble:
    tag = (polygon.findtext("tag") or "").strip()
    name = tag if tag in class_names else SHORT_NAMES.get(tag, tag)
    class_id = class_id_in(name, class_names, f"{path}: tag")
    corners = tuple(
        (_coordinate(point, "X", path), _coordinate(point, "Y", path)) for point in polygon.iterfind("point")
    )
    if not corners:
        raise InputError(f"{path}: a polygon of {tag} without points")
    return Scribble(corners, class_id)


def _coordinate(point: Element, name: str, path: PathLike) -> float:
    value = number_in(point.findtext(name) or "", f"{path}: {name}")
    return min(max(value, -1e6), 1e6)  # what draws takes no larger ones


def _read_mask(path: Path, size: tuple[int, int], number: int) -> Tensor:
    mask = read_mask(path)
    _check_size(path, (mask.shape[0], mask.shape[1]), size)
    unknown = sorted(set(mask.unique().tolist()) - set(range(number)) - {VOID})
    if unknown:
        raise InputError(f"{path}: unknown class ids {unknown[:5]}; there are {number} classes, and 255 is no label")
    return mask


def _check_size(path: PathLike, found: tuple[int, int], size: tuple[int, int]) -> None:
    if found != size:
        raise InputError(f"{path}: made for an image of {size_text(found)} pixels, but the image has {size_text(size)}")
