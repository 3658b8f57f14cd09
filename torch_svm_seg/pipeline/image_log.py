"""The log of a run: one line per image that is done, with a digest of all that its files were made from.

A line is written when all files of its image are. So whatever stops a run, the next one knows what is done and can add
it up; and an image whose sources have changed since is done again.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import write_text_atomically
from torch_svm_seg.data.provenance import with_checksum, without_checksum
from torch_svm_seg.data.reading import read_text

LOG_FILE = "images.jsonl"
_PARTS = "images-*.jsonl"
_KEYS = {"id", "sources", "seconds", "restored", "unseeded", "notes"}


@dataclass(frozen=True)
class ImageEntry:
    """An image that is done.

    Attributes:
        id: Its id.
        sources: Digest of all that its files come from, apart from settings.
        seconds: Time that each name's mask took.
        restored: Number of classes that each name's mask got back from the seed.
        unseeded: Number of classes that the image is labelled with and that no pixel of its seed has.
        notes: Notes on how its files were read.

    Examples:
        >>> ImageEntry("2007_000032", sources="0f3a", seconds={"F4": 0.5}).unseeded
        0
    """

    id: str
    sources: str
    seconds: dict[str, float] = field(default_factory=dict)
    restored: dict[str, int] = field(default_factory=dict)
    unseeded: int = 0
    notes: tuple[str, ...] = ()


Report = Callable[[Sequence[ImageEntry]], object]
"""Takes note of images that are done, or, without any, that some were skipped."""


class ImageLog:
    """The log in a folder; each process of a run appends to a part of its own.

    Args:
        out: The folder.
        rank: Number of this process.

    Examples:
        >>> import tempfile, pathlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = ImageLog(pathlib.Path(folder))
        ...     log.append(ImageEntry("a", sources="0f3a"))
        ...     log.gather()["a"].sources
        '0f3a'
    """

    def __init__(self, out: Path, rank: int = 0) -> None:
        self.path, self._part = out / LOG_FILE, out / f"images-{rank}.jsonl"

    def append(self, entry: ImageEntry) -> None:
        """Write the line of an image; it is on its way to the disk when this returns."""
        with open(self._part, "a", encoding="ascii") as stream:
            stream.write(_line(entry))

    def gather(self) -> dict[str, ImageEntry] | None:
        """Return the last entry of each image, of all parts; None if there is no log."""
        parts = [self.path, *sorted(self.path.parent.glob(_PARTS), key=os.path.getmtime)]
        found = [entry for path in parts if path.is_file() for entry in _entries(path)]
        return {entry.id: entry for entry in found} if any(path.is_file() for path in parts) else None

    def rewrite(self, entries: Iterable[ImageEntry]) -> None:
        """Put entries in place of the log and of all its parts."""
        write_text_atomically(self.path, "".join(map(_line, entries)))
        for path in self.path.parent.glob(_PARTS):
            path.unlink(missing_ok=True)


def _line(entry: ImageEntry) -> str:
    return json.dumps(with_checksum(asdict(entry))) + "\n"


def _entries(path: Path) -> list[ImageEntry]:
    """Return the entries of a log; a damaged line is none, so that its image is done again."""
    try:
        lines = read_text(path).splitlines()
    except InputError:
        return []
    return [entry for entry in map(_entry, lines) if entry is not None]


def _entry(line: str) -> ImageEntry | None:
    try:
        values = without_checksum(json.loads(line))
        if values.keys() - _KEYS:
            return None
        entry = ImageEntry(
            values["id"],
            values["sources"],
            numbers(values["seconds"]),
            {name: int(number) for name, number in numbers(values["restored"]).items()},
            int(values["unseeded"]),
            tuple(str(note) for note in values["notes"]),
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return entry if isinstance(entry.id, str) and isinstance(entry.sources, str) else None


def numbers(values: Mapping[Any, Any]) -> dict[str, float]:
    """Return finite numbers by name.

    Raises:
        ValueError: A value is none.

    Examples:
        >>> numbers({"F4": 1.5})
        {'F4': 1.5}
    """
    found = {str(name): float(value) for name, value in values.items()}
    if not all(abs(value) < 1e12 for value in found.values()):
        raise ValueError("not finite")
    return found
