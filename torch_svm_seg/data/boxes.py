"""Boxes around objects: VOC's XML annotations, or COCO's instances.

- ``FOLDER/ID.xml``: ``object`` elements of a ``name`` and a ``bndbox``, whose ``xmin``, ``ymin``, ``xmax`` and ``ymax``
  count pixels from 1 and belong to the box.
- ``FILE.json``: ``images`` of an ``id`` and a ``file_name``, ``categories`` of an ``id`` and a ``name``, and
  ``annotations`` of an ``image_id``, a ``category_id`` and a ``bbox`` [x, y, width, height] that counts from 0.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element

import torch
from torch import Tensor

from torch_svm_seg.data.annotation_files import class_id_in, number_in, read_json, read_xml
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import PathLike
from torch_svm_seg.data.lists import without_image_suffix


class Box(NamedTuple):
    """A box around an object, in pixels from the top left corner of the image.

    Attributes:
        left, top, right, bottom: Where it begins and ends; a box around the first pixel is 0, 0, 1, 1.
        class_id: Its class.

    Examples:
        >>> Box(0, 0, 4, 2, class_id=8).right
        4
    """

    left: float
    top: float
    right: float
    bottom: float
    class_id: int


def read_boxes(path: PathLike, ids: Iterable[str], class_names: Sequence[str]) -> dict[str, tuple[Box, ...]]:
    """Read the boxes around the objects of images.

    Args:
        path: Folder of VOC's ``ID.xml``, or a file of COCO's instances, ``*.json``.
        ids: The images.
        class_names: Name of each class id, background first.

    Returns:
        Boxes by image id; an image without an annotation is left out, one without objects has no boxes.

    Raises:
        InputError: A file cannot be read or has another form, or a box an unknown class or no area.

    Examples:
        >>> import tempfile
        >>> sides = "<xmin>1</xmin><ymin>1</ymin><xmax>4</xmax><ymax>2</ymax>"
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     text = f"<a><object><name>cat</name><bndbox>{sides}</bndbox></object></a>"
        ...     _ = Path(folder, "img.xml").write_text(text)
        ...     read_boxes(folder, ["img"], ["background", "cat"])
        {'img': (Box(left=0.0, top=0.0, right=4.0, bottom=2.0, class_id=1),)}
    """
    if Path(path).is_dir():
        files = {id: Path(path) / f"{id}.xml" for id in ids}
        return {id: _read_voc(file, class_names) for id, file in files.items() if file.is_file()}
    wanted = set(ids)
    return {id: boxes for id, boxes in _read_coco(path, class_names).items() if id in wanted}


def box_classes(boxes: Sequence[Box], size: tuple[int, int], num_classes: int) -> Tensor:
    """Return which classes each pixel may have, bool (K, H, W): those of the boxes around it, and the background.

    Args:
        boxes: The boxes.
        size: Height and width of the image.
        num_classes: K.

    Examples:
        >>> box_classes([Box(0, 0, 2, 1, 1)], (2, 3), 2)[1].int().tolist()
        [[1, 1, 0], [0, 0, 0]]
    """
    possible = torch.zeros(num_classes, *size, dtype=torch.bool)
    possible[0] = True
    for box in boxes:
        rows = slice(max(int(box.top), 0), max(-int(-box.bottom // 1), 0))
        columns = slice(max(int(box.left), 0), max(-int(-box.right // 1), 0))
        possible[box.class_id, rows, columns] = True
    return possible


def _read_voc(path: Path, class_names: Sequence[str]) -> tuple[Box, ...]:
    return tuple(_voc_box(found, class_names, f"{path}: object") for found in read_xml(path).iterfind("object"))


def _voc_box(found: Element, class_names: Sequence[str], source: str) -> Box:
    sides = [number_in(found.findtext(f"bndbox/{name}") or "", f"{source}: {name}") for name in _VOC_SIDES]
    class_id = class_id_in(found.findtext("name") or "", class_names, source)
    return _checked(Box(sides[0] - 1, sides[1] - 1, sides[2], sides[3], class_id), source)


_VOC_SIDES = ("xmin", "ymin", "xmax", "ymax")


def _read_coco(path: PathLike, class_names: Sequence[str]) -> dict[str, tuple[Box, ...]]:
    content = read_json(path)
    images, annotations, categories = (
        _entries(content, name, path) for name in ("images", "annotations", "categories")
    )
    ids = _image_ids(images, path)
    classes = {_field(entry, "id", path): str(_field(entry, "name", path)) for entry in categories}
    found: dict[str, list[Box]] = {id: [] for id in ids.values()}
    for entry in annotations:
        image, category = _field(entry, "image_id", path), _field(entry, "category_id", path)
        if image not in ids or category not in classes:
            raise InputError(
                f"{path}: an annotation of image_id {image}, category_id {category}: one of them is not listed"
            )
        source = f"{path}: image {ids[image]}"
        left, top, width, height = _numbers(_field(entry, "bbox", path), source)
        class_id = class_id_in(classes[category], class_names, source)
        found[ids[image]].append(_checked(Box(left, top, left + width, top + height, class_id), source))
    return {id: tuple(boxes) for id, boxes in found.items()}


def _image_ids(images: list[Mapping[str, Any]], path: PathLike) -> dict[Any, str]:
    """Return the id of a data set's image by COCO's number of it."""
    named = [(_field(entry, "id", path), str(_field(entry, "file_name", path))) for entry in images]
    ids = {number: without_image_suffix(PurePosixPath(name).name) for number, name in named}
    if len(set(ids.values())) < len(images):
        raise InputError(f"{path}: two of its images have the same id or file name")
    return ids


def _entries(content: Any, name: str, path: PathLike) -> list[Mapping[str, Any]]:
    entries = content.get(name) if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{path}: expected COCO's images, annotations and categories, each a list of objects")
    return entries


def _field(entry: Mapping[str, Any], name: str, path: PathLike) -> Any:
    value = entry.get(name)
    if value is None or (name != "bbox" and not isinstance(value, (int, str))):
        raise InputError(f"{path}: an entry without {name}, or with one that is no number or text")
    return value


def _numbers(value: Any, source: str) -> list[float]:
    if not isinstance(value, list) or len(value) != 4:
        raise InputError(f"{source}: expected a bbox as [x, y, width, height]")
    return [number_in(number, f"{source}: bbox") for number in value]


def _checked(box: Box, source: str) -> Box:
    if box.right <= box.left or box.bottom <= box.top:
        raise InputError(f"{source}: a box without area, {box.left:g} to {box.right:g}, {box.top:g} to {box.bottom:g}")
    return box
