"""Reading JSON and XML that others wrote: every fault of a file is one clear error, and nothing in it runs or grows."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import PathLike

LARGEST_JSON = 2**30
"""Most bytes of a JSON file: COCO's instances of 118,000 images have 450 MB."""

LARGEST_XML = 2**24
"""Most bytes of an XML file, which annotates a single image."""


def read_json(path: PathLike) -> Any:
    """Read a JSON file in UTF-8.

    Raises:
        InputError: The file cannot be read, is no JSON, holds a key twice in one object, or nan or an infinity.

    Examples:
        >>> import tempfile, pathlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "labels.json")
        ...     _ = path.write_text('{"a": ["cat"]}')
        ...     read_json(path)
        {'a': ['cat']}
    """
    text = _read_bytes(path, LARGEST_JSON)
    try:
        return json.loads(text.decode("utf-8-sig"), object_pairs_hook=_object, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON that can be used ({error})") from error


def read_xml(path: PathLike) -> Element:
    """Read an XML file; a document type, with which files define entities, is refused.

    Raises:
        InputError: The file cannot be read, is no XML, or has a document type.

    Examples:
        >>> import tempfile, pathlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "a.xml")
        ...     _ = path.write_text("<annotation><object/></annotation>")
        ...     read_xml(path).tag
        'annotation'
    """
    content = _read_bytes(path, LARGEST_XML)
    tree, parser = TreeBuilder(), expat.ParserCreate()
    parser.StartElementHandler = tree.start
    parser.EndElementHandler = tree.end
    parser.CharacterDataHandler = tree.data
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        parser.Parse(content, True)
        return tree.close()
    except (expat.ExpatError, ValueError) as error:
        raise InputError(f"{path}: not XML that can be used ({error})") from error


def number_in(value: object, source: str) -> float:
    """Return a finite number from a JSON value or from text.

    Args:
        value: Number, or text of one.
        source: What it belongs to, for messages.

    Raises:
        InputError: It is no finite number.

    Examples:
        >>> number_in("2.5", "labels.json: x")
        2.5
    """
    usable = isinstance(value, (int, float, str)) and not isinstance(value, bool)
    try:
        number = float(value) if usable else math.nan  # type: ignore[arg-type]
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{source}: expected a number, got {_shown(value)}")
    return number


def class_id_in(value: object, class_names: Sequence[str], source: str) -> int:
    """Return a class id from a class's name, or from its id as a number or text.

    Args:
        value: Name or id.
        class_names: Name of each class id.
        source: What it belongs to, for messages.

    Raises:
        InputError: There is no such class.

    Examples:
        >>> class_id_in("cat", ["background", "cat"], "labels.json")
        1
    """
    text = str(value).strip()
    if text in class_names:
        return class_names.index(text)
    if text.isdecimal() and len(text) <= 3 and int(text) < len(class_names):
        return int(text)
    last = len(class_names) - 1
    raise InputError(
        f"{source}: unknown class {_shown(value)}; expected a name, from {class_names[0]} to "
        f"{class_names[-1]}, or an id, 0 to {last}"
    )


def _read_bytes(path: PathLike, most: int) -> bytes:
    try:
        size = Path(path).stat().st_size
        if not Path(path).is_file() or size > most:
            raise InputError(f"{path}: expected a file of at most {most} bytes, got {size}")
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON; a key that occurs twice would hide a value."""
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise ValueError(f"key {_shown(key)} occurs twice in one object")
        content[key] = value
    return content


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _refuse_doctype(*_: object) -> None:
    raise ValueError("it has a document type, whose entities are not read")


def _shown(value: object) -> str:
    """Return a value for a message, which may not grow with the file."""
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
