"""The settings of the runs that wrote the masks, as they recorded them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch_svm_seg.pipeline.run_folder import SETTINGS_FILE
from torch_svm_seg.report.content import Report
from torch_svm_seg.report.elements import scroll_box
from torch_svm_seg.report.markup import Markup, join, tag

LONGEST_SETTING = 400  # characters


def settings_tables(report: Report) -> Markup:
    """Gives a table for each run that wrote one of the ladder's folders."""
    runs: dict[Path, list[str]] = {}
    records: dict[Path, Mapping[str, Any]] = {}
    for rung in report.rungs:
        path, record = run_record(rung.folder)
        if record:
            runs.setdefault(path, []).append(rung.name)
            records[path] = record
    if not runs:
        return tag("p", f"No {SETTINGS_FILE} lies beside these masks.")
    parts = []
    for path, names in runs.items():
        rows = [tag("tr", tag("th", key, scope="row"), tag("td", text)) for key, text in _flat(records[path])]
        table = tag("table", tag("tbody", *rows), class_="settings")
        parts.append(tag("details", tag("summary", ", ".join(names)), scroll_box("Settings", table)))
    return join(*parts)


def run_record(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Gives where the record of the run that wrote a folder lies, in it or beside it, and the record; empty if none."""
    for path in (folder / SETTINGS_FILE, folder.parent / SETTINGS_FILE):
        if path.is_file():
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError) as error:
                return path, {SETTINGS_FILE: f"cannot be read: {error}"}
            return path, record if isinstance(record, dict) else {SETTINGS_FILE: record}
    return folder / SETTINGS_FILE, {}


def _flat(record: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (dotted name, text)."""
    rows = []
    for key, value in record.items():
        if isinstance(value, dict) and value:
            rows += _flat(value, f"{prefix}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            rows.append((f"{prefix}{key}", text[:LONGEST_SETTING] + ("…" if len(text) > LONGEST_SETTING else "")))
    return rows
