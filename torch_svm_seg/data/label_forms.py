"""The forms that files of image-level labels come in, and how they are told apart.

Each form has a name, by which ``--labels-form`` asks for it, a rule that recognises it, and a reader that returns the
ids of the classes that each image shows, from 1. A further form is one more entry of :data:`LABEL_FORMS`.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from torch_svm_seg.data.coco_json import image_labels, is_coco
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.label_file import LabelFile, opened, read_annotation
from torch_svm_seg.data.lists import without_image_suffix
from torch_svm_seg.data.notes import first_few
from torch_svm_seg.data.reading import read_text, reading
from torch_svm_seg.data.restricted_pickle import read_pickled_array

Entries = Iterable[tuple[str, Iterable[int]]]
"""Image names and ids of classes; a name that occurs again has the classes of all its entries."""

_DIGITS_OF_VOC = 10
_PRESENT = {"0": False, "1": True, "0.0": False, "1.0": True, "-1": False}


class LabelForm(NamedTuple):
    """A form of image-level labels.

    Attributes:
        description: The form in a few words.
        fits: Whether a file is of this form.
        read: Its reader.

    Examples:
        >>> LABEL_FORMS["csv"].description
        'lines NAME,cat,sofa, one or more per image'
    """

    description: str
    fits: Callable[[LabelFile], bool]
    read: Callable[[LabelFile], Entries]


def _from_json(file: LabelFile) -> Entries:
    if not isinstance(file.content, dict):
        raise InputError(f"{file.path}: expected an object of image names and lists of class names")
    # Once more, since of a repeated name the first list would be lost.
    pairs = json.loads(read_text(file.path), object_pairs_hook=list)
    repeated = len(pairs) - len(file.content)
    if repeated:
        file.notes.append(f"{file.path.name}: {repeated} image names occur again, and have the classes of all entries")
    for name, classes in pairs:
        if not isinstance(classes, list) or not all(isinstance(item, str) for item in classes):
            raise InputError(f"{file.path}: image {name}: expected a list of class names, got {classes!r}")
        yield name, file.ids(classes, name)


def _from_coco(file: LabelFile) -> Entries:
    with reading(file.path):
        return list(image_labels(file.content, file.class_names))


def _has_columns(file: LabelFile) -> bool:
    return any(len(row) > 1 for row in file.rows)


def _from_csv(file: LabelFile) -> Entries:
    known = set(file.class_names[1:])
    rows = file.rows
    if len(rows) > 1 and known.isdisjoint(rows[0][1:]) and not known.isdisjoint(cell for row in rows for cell in row):
        second = rows[0][1:]
        if len(second) == 1 and second[0].lower() in ("label", "labels", "class", "classes", "category", "name"):
            rows = rows[1:]
    for row in rows:
        yield row[0], file.ids((cell for cell in row[1:] if cell), row[0])


def _is_table(file: LabelFile) -> bool:
    """Whether the first line names classes, and the other lines hold 0 and 1 below them."""
    if len(file.rows) < 2 or not set(file.rows[0][1:]) & set(file.class_names):
        return False
    return all(cell in _PRESENT for row in file.rows[1:] for cell in row[1:])


def _from_table(file: LabelFile) -> Entries:
    _, *names = file.rows[0]
    file.ids(name for name in names if name != file.class_names[0])
    for row in file.rows[1:]:
        if len(row) != len(names) + 1:
            raise InputError(f"{file.path}: image {row[0]}: {len(row) - 1} values for {len(names)} classes")
        shown = [name for name, cell in zip(names, row[1:], strict=True) if _PRESENT[cell]]
        yield row[0], file.ids((name for name in shown if name != file.class_names[0]), row[0])


def _is_one_hot(file: LabelFile) -> bool:
    """Whether all lines are a name and as many 0 or 1: class ids would be different ones and ascend."""
    rows = [row[1:] for row in file.rows]
    if not rows or any(len(row) != len(rows[0]) or not set(row) <= _PRESENT.keys() for row in rows):
        return False
    if len(rows[0]) == 1:
        return file.number == 1 and ["1"] in rows
    return any(len(set(row)) < len(row) or row == ["1", "0"] for row in rows)


def _from_one_hot(file: LabelFile) -> Entries:
    for name, *cells in file.rows:
        yield name, _shown(file, name, [float(_PRESENT[cell]) for cell in cells])


def _is_main_list(file: LabelFile) -> bool:
    """Whether a file is named after a class, and each line is an id and -1, 0 or 1."""
    return _class_of_list(file) is not None and all(len(row) == 2 and row[1] in ("-1", "0", "1") for row in file.rows)


def _class_of_list(file: LabelFile) -> int | None:
    name = file.path.stem.rpartition("_")[0]
    return file.class_names.index(name) if name in file.class_names[1:] else None


def _from_main_list(file: LabelFile) -> Entries:
    shown = _class_of_list(file)
    if shown is None:
        raise InputError(f"{file.path}: expected CLASS_SPLIT.txt, named after one of {first_few(file.class_names[1:])}")
    file.notes.append(f"{file.path.name}: only {file.class_names[shown]} is labelled")
    return _shown_in_list(file, shown)


def _shown_in_list(file: LabelFile, shown: int) -> Entries:
    for row in file.rows:
        if len(row) != 2 or row[1] not in ("-1", "0", "1"):
            raise InputError(f"{file.path}: expected lines of an id and -1, 0 or 1, got {' '.join(row)!r}")
        yield row[0], () if row[1] == "-1" else (shown,)


def _from_main_folder(file: LabelFile) -> Entries:
    """Read the lists of all classes; 0 is for images that show only difficult objects of a class."""
    lists = [opened(path, file.class_names) for path in sorted(file.path.glob("*_*.txt"))]
    for each in lists:
        shown = _class_of_list(each)
        if shown is not None:
            yield from _shown_in_list(each, shown)


def _from_annotations(file: LabelFile) -> Entries:
    for path in sorted(file.path.glob("*.xml")):
        yield path.stem, file._replace(path=path).ids(read_annotation(path))


def _holds_numbers(file: LabelFile) -> bool:
    return _has_columns(file) and all(cell.isdecimal() for row in file.rows for cell in row[1:])


def _from_numbers(file: LabelFile, first: int | None = None) -> Entries:
    """Read lines of a name and class ids, which count the classes from 0 or from 1 on.

    Args:
        file: The file.
        first: Number of the first class that is not the background; by default what all lines together allow.
    """
    numbers = {int(cell) for row in file.rows for cell in row[1:]}
    fits = [start for start in (0, 1) if numbers <= set(range(start, start + file.number))]
    if first is None and fits:
        first = fits[0]
        if len(fits) > 1:
            file.notes.append(
                f"{file.path.name}: class ids are taken to count from 0 without the background; if they count from 1, "
                "give --labels-form ids_from_1"
            )
        elif first == 1:
            file.notes.append(f"{file.path.name}: class ids count from 1, the background being 0")
        elif numbers <= {0, 1}:
            file.notes.append(
                f"{file.path.name}: no numbers but 0 and 1, taken for the ids of {' and '.join(file.class_names[1:3])}"
            )
    if first not in fits:
        raise InputError(
            f"{file.path}: class ids {min(numbers)} to {max(numbers)}; expected 0 to {file.number - 1}, or 1 to "
            f"{file.number} by --labels-form ids_from_1"
        )
    for name, *cells in file.rows:
        yield name, [int(cell) + 1 - first for cell in cells]


def _from_array(file: LabelFile) -> Entries:
    """Read ``cls_labels.npy``: a dictionary of one value per class, by an image's name or by its digits as a number."""
    content = read_pickled_array(file.path)
    if not isinstance(content, dict) or not all(
        isinstance(row, np.ndarray | Tensor | list) for row in content.values()
    ):
        raise InputError(f"{file.path}: expected a dictionary of arrays, one 0 or 1 per class, by image")
    for key, row in content.items():
        name = _name_of_number(key) if isinstance(key, int) else str(key)
        yield name, _shown(file, name, row)


def _name_of_number(key: int) -> str:
    """Return the image that a number stands for: 2007000032 for VOC's 2007_000032, 9 for COCO's 000000000009."""
    return f"{str(key)[:4]}_{str(key)[4:]}" if len(str(key)) == _DIGITS_OF_VOC else f"{key:012d}"


def _shown(file: LabelFile, image: str, values: Any) -> list[int]:
    """Return the classes of one 0 or 1 per class, with the background or without."""
    row = np.asarray(values).reshape(-1)
    if len(row) not in (file.number, file.number + 1):
        raise InputError(
            f"{file.path}: image {image}: {len(row)} values, expected one for each of {file.number} classes"
        )
    if not np.isin(row, (0, 1)).all():
        raise InputError(f"{file.path}: image {image}: expected 0 and 1, got {first_few(np.unique(row))}")
    return [int(index) + 1 for index in np.flatnonzero(row[-file.number :])]


LABEL_FORMS: Mapping[str, LabelForm] = {
    "annotations": LabelForm(
        "folder of VOC's Annotations, ID.xml",
        lambda f: f.path.is_dir() and any(f.path.glob("*.xml")),
        _from_annotations,
    ),
    "main_folder": LabelForm("folder of VOC's ImageSets/Main", lambda f: f.path.is_dir(), _from_main_folder),
    "array": LabelForm("cls_labels.npy", lambda f: f.path.suffix.lower() == ".npy", _from_array),
    "coco": LabelForm("COCO's instances JSON", lambda f: is_coco(f.content), _from_coco),
    "json": LabelForm('{"NAME": ["cat", "sofa"]}', lambda f: f.content is not None, _from_json),
    "main": LabelForm("CLASS_SPLIT.txt of lines ID -1", _is_main_list, _from_main_list),
    "table": LabelForm("CSV with the classes in its first line", _is_table, _from_table),
    "one_hot": LabelForm("lines of a name and one 0 or 1 per class", _is_one_hot, _from_one_hot),
    "ids": LabelForm("train_cls.txt: lines ID 7 14, from 0 without background", _holds_numbers, _from_numbers),
    "ids_from_1": LabelForm("lines ID 8 15", lambda f: False, lambda f: _from_numbers(f, 1)),
    "csv": LabelForm(
        "lines NAME,cat,sofa, one or more per image", lambda f: any(len(r) > 1 for r in f.rows), _from_csv
    ),
}
"""Forms by name, in the order in which they are tried."""


def entries_by_id(entries: Entries) -> dict[str, tuple[int, ...]]:
    """Return the classes of each image, of all entries under its name, with or without its suffix.

    Examples:
        >>> entries_by_id([("a.jpg", [8]), ("a", [3]), ("b", [])])
        {'a': (3, 8), 'b': ()}
    """
    found: dict[str, set[int]] = {}
    for name, classes in entries:
        found.setdefault(without_image_suffix(name), set()).update(classes)
    return {id: tuple(sorted(classes)) for id, classes in found.items()}
