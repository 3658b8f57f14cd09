"""CSV logs of a training: a row a step and a row an epoch, readable while it runs, continued when it resumes."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch_svm_seg.files import InputError, write_text_atomically


class CsvLog:
    """A CSV file that rows are appended to; each is on the disk when :meth:`write` returns.

    Args:
        path: the file; missing parent folders are created.
        columns: names of the columns; the first one counts up.
        keep: of rows that are there already, those whose first column is at most this; the others, which an
            interrupted epoch wrote, are removed.

    Raises:
        InputError: what is there is no log of these columns.
    """

    def __init__(self, path: Path, columns: Sequence[str], keep: int = 0) -> None:
        self._path, self._columns = path, list(columns)
        kept = [row for row in self._rows() if int(row[0]) <= keep] if keep and path.is_file() else []
        write_text_atomically(path, "".join(map(_line, [self._columns, *kept])))

    def write(self, row: Mapping[str, float | int]) -> None:
        """Appends a row, given by column names; columns without a value stay empty."""
        cells = [row.get(name, "") for name in self._columns]
        text = _line([f"{cell:.6g}" if isinstance(cell, float) else str(cell) for cell in cells])
        with open(self._path, "a", encoding="utf-8", newline="") as stream:
            stream.write(text)

    def _rows(self) -> list[list[str]]:
        with open(self._path, encoding="utf-8", newline="") as stream:
            header, *rows = list(csv.reader(stream)) or [[]]
        if header != self._columns or any(not row or not row[0].isdigit() for row in rows):
            raise InputError(f"{self._path}: not a log of the columns {', '.join(self._columns)}")
        return rows


def _line(cells: Sequence[str]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerow(cells)
    return stream.getvalue()
