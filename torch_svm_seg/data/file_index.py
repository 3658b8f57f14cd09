"""The files of a folder by image id."""

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.reading import PathLike


class FileIndex:
    """Finds the file of an image id in a folder, by its name without suffix; a suffix may be in any case.

    Folders are listed when a file of theirs is first asked for.

    Args:
        folder: The folder; ids with a ``/`` lie in its sub-folders.
        suffixes: Suffixes that a file may have, in lower case.

    Examples:
        >>> import tempfile, pathlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pathlib.Path(folder, "a.JPG").touch()
        ...     FileIndex(folder, [".jpg"]).find("a").name
        'a.JPG'
    """

    def __init__(self, folder: PathLike, suffixes: Sequence[str]) -> None:
        self.folder, self.suffixes = Path(folder), tuple(suffixes)
        self._names: dict[str, dict[str, list[str]]] = {}

    def find(self, id: str) -> Path | None:
        """Return the file of an id; None if there is none.

        Raises:
            InputError: There are several, which differ in their suffix.
        """
        if any(part in ("", ".", "..") for part in id.split("/")):
            return None  # it would lie elsewhere
        parent, _, stem = id.rpartition("/")
        if parent not in self._names:
            self._names[parent] = _names_by_stem(self.folder / parent, self.suffixes)
        names = self._names[parent].get(stem)
        if names is None:
            # Written since the folder was listed.
            return next((path for path in self.candidates(id) if os.path.isfile(path)), None)
        if len(names) > 1:
            raise InputError(f"{self.folder / parent / names[1]}: differs only in the suffix from {names[0]}")
        return self.folder / parent / names[0]

    def candidates(self, id: str) -> list[Path]:
        """Return the usual names of an id's file, whether or not they exist."""
        return [self.folder / f"{id}{suffix}" for suffix in self.suffixes]


def listed_files(folder: Path, suffixes: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the names of the files in a folder that have one of some suffixes, and of the others; both sorted.

    Hidden files are neither, such as the ``._NAME.jpg`` that macOS leaves.

    Examples:
        >>> import tempfile, pathlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("b.png", "a.png", "notes.txt"):
        ...         pathlib.Path(folder, name).touch()
        ...     listed_files(pathlib.Path(folder), [".png"])
        (['a.png', 'b.png'], ['notes.txt'])
    """
    chosen: list[str] = []
    others: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name[0] != "." and entry.is_file():
                (chosen if PurePosixPath(entry.name).suffix.lower() in suffixes else others).append(entry.name)
    return sorted(chosen), sorted(others)


def _names_by_stem(folder: Path, suffixes: Sequence[str]) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    if folder.is_dir():
        for name in listed_files(folder, suffixes)[0]:
            names.setdefault(name[: name.rindex(".")], []).append(name)
    return names
