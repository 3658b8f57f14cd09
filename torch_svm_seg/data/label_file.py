"""Files of image-level labels, read as far as it takes to tell what form they are in."""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from torch_svm_seg.data.errors import InputError, reason_of
from torch_svm_seg.data.lists import read_lines
from torch_svm_seg.data.notes import first_few
from torch_svm_seg.data.reading import PathLike, read_bytes, read_text, reading

_LARGEST_ANNOTATION = 2**24  # bytes


class LabelFile(NamedTuple):
    """A file of labels that is being recognised.

    Attributes:
        path: The file, or a folder.
        class_names: Name of each class id, background first.
        content: What a ``.json`` holds.
        rows: Cells of the lines of any other text, split at commas, or at white space where no line has a comma.
        notes: Takes notes on what was taken for granted.

    Examples:
        >>> file = LabelFile(Path("labels.csv"), ("background", "cat", "dog"), None, [["a", "dog"]], notes=[])
        >>> file.number, file.ids(["dog"])
        (2, (2,))
    """

    path: Path
    class_names: Sequence[str]
    content: Any
    rows: list[list[str]]
    notes: list[str]

    @property
    def number(self) -> int:
        """Number of classes without the background."""
        return len(self.class_names) - 1

    def ids(self, names: Iterable[str], image: str | None = None) -> tuple[int, ...]:
        """Return the ids of class names.

        Raises:
            InputError: A name is unknown, or the background's.
        """
        where = str(self.path) if image is None else f"{self.path}: image {image}"
        return class_ids(names, self.class_names, where)


def opened(path: PathLike, class_names: Sequence[str]) -> LabelFile:
    r"""Read as much of a file of labels as it takes to recognise its form.

    Raises:
        InputError: The file is missing, or no text where it should be.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "labels.csv").write_text("a,cat,dog\nb,cat\n")
        ...     opened(Path(folder, "labels.csv"), ["background", "cat", "dog"]).rows
        [['a', 'cat', 'dog'], ['b', 'cat']]
    """
    path, content, rows = Path(path), None, []
    suffix = path.suffix.lower()
    if suffix in (".npz", ".pkl", ".pth", ".mat"):
        raise InputError(f"{path}: expected labels as .json or .csv, as .txt or .npy, got {suffix}")
    if suffix == ".json":
        content = _json(path)
    elif suffix != ".npy" and not path.is_dir():
        lines = read_lines(path)
        with reading(path):
            commas = any("," in line for line in lines)
            rows = list(csv.reader(lines, skipinitialspace=True)) if commas else [line.split() for line in lines]
    return LabelFile(path, tuple(class_names), content, [[cell.strip() for cell in row] for row in rows if row], [])


def read_annotation(path: Path) -> list[str]:
    """Read the names of the objects in an annotation of VOC, ``ID.xml``, "difficult" objects among them.

    Raises:
        InputError: The file is missing or damaged.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.xml").write_text("<annotation><object><name>cat</name></object></annotation>")
        ...     read_annotation(Path(folder, "a.xml"))
        ['cat']
    """
    content = read_bytes(path, _LARGEST_ANNOTATION)
    try:
        names = [name.text or "" for name in ElementTree.fromstring(content).iterfind("object/name")]
    except Exception as error:  # an encoding nobody knows is a LookupError, an unusual one a ValueError
        raise InputError(f"{path}: not XML ({reason_of(error)})") from error
    return [name.strip() for name in names]


def class_ids(names: Iterable[str], class_names: Sequence[str], source: PathLike) -> tuple[int, ...]:
    """Return the ids of class names, ascending.

    Args:
        names: Names of classes.
        class_names: Name of each class id, background first.
        source: Where the names come from, for messages.

    Raises:
        InputError: A name is unknown, or the background's.

    Examples:
        >>> class_ids(["dog", "cat", "dog"], ["background", "cat", "dog"], "labels.csv")
        (1, 2)
    """
    known = {name: id for id, name in enumerate(class_names) if id > 0}
    wanted = set(names)
    if unknown := sorted(wanted - known.keys()):
        raise InputError(f"{source}: unknown classes {first_few(unknown)}; expected {first_few(known, 10)}")
    return tuple(sorted(known[name] for name in wanted))


def _json(path: Path) -> Any:
    text = read_text(path)
    try:
        return json.loads(text)
    except RecursionError as error:
        raise InputError(f"{path}: not labels, but too deeply nested JSON") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from error
