"""Files of class names, one per line, background first: the class id is the number of the line, from 0.

- A line that begins with ``#`` is a comment.
- ``__ignore__``, which labelme's lists begin with for pixels without a label, is no class; its ``_background_`` is.
- ``NAME:R,G,B:PARTS:ACTIONS`` is CVAT's ``labelmap.txt``, whose colours are those of its masks.
"""

import re
from typing import NamedTuple

from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.lists import read_lines
from torch_svm_seg.data.mask_forms import Colour
from torch_svm_seg.data.reading import PathLike

BACKGROUND_NAMES = ("background", "_background_", "__background__", "bg", "bkg")
"""Names that the background goes by, in lower case."""

_IGNORED = "__ignore__"
_LABEL_MAP = re.compile(r"(.+?):(\d{1,3}),(\d{1,3}),(\d{1,3}):[^:]*:[^:]*")


class ClassNames(NamedTuple):
    """The classes of a data set.

    Attributes:
        names: Name of each class id.
        colours: Class id of each colour, where the file gives colours.
        note: What was taken for granted, if anything was.

    Examples:
        >>> ClassNames(("background", "cat")).names
        ('background', 'cat')
    """

    names: tuple[str, ...]
    colours: dict[Colour, int] | None = None
    note: str | None = None


def read_class_names(path: PathLike) -> ClassNames:
    r"""Read a file of class names.

    Raises:
        InputError: The file cannot be read, or the background is not first.

    Examples:
        >>> import tempfile, pathlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "names.txt")
        ...     _ = path.write_text("background\ncat\n")
        ...     read_class_names(path).names
        ('background', 'cat')
    """
    lines = [line for line in read_lines(path) if not line.startswith("#")]
    entries = [_LABEL_MAP.fullmatch(line) for line in lines]
    maps = [entry for entry in entries if entry]
    if not maps or len(maps) < len(lines):
        return _checked(path, tuple(line for line in lines if line != _IGNORED), None)
    colours = {(int(entry[2]), int(entry[3]), int(entry[4])): id for id, entry in enumerate(maps)}
    if len(colours) < len(maps):
        raise InputError(f"{path}: two classes have the same colour")
    return _checked(path, tuple(entry[1] for entry in maps), colours)


def _checked(path: PathLike, names: tuple[str, ...], colours: dict[Colour, int] | None) -> ClassNames:
    indices = [index for index, name in enumerate(names) if name.lower() in BACKGROUND_NAMES]
    if indices and indices[0] != 0:
        raise InputError(
            f"{path}: {names[indices[0]]} is class {indices[0]}, but id 0 is the background; put it first, "
            "and number masks so"
        )
    if not indices and names:
        return ClassNames(names, colours, f"class 0, {names[0]!r}, is taken for the background (--class-names)")
    return ClassNames(("background", *names[1:]) if names[:1] == ("_background_",) else names, colours)
