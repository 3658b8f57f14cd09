"""The settings of the runs that wrote the masks, as they recorded them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch_svm_seg.pipeline.run_folder import SETTINGS_FILE
from torch_svm_seg.report.content import Report

LONGEST_SETTING = 400
"""Most characters of a setting on the page."""


class RecordedRun(NamedTuple):
    """A run that wrote masks of some steps.

    Attributes:
        steps: Names of the steps.
        settings: Pairs of a setting's dotted name and its value as text.

    Examples:
        >>> RecordedRun(["F4"], [("svm.C", "1.0")]).steps
        ['F4']
    """

    steps: list[str]
    settings: list[tuple[str, str]]


def recorded_runs(report: Report) -> list[RecordedRun]:
    """Return the runs that wrote the report's folders and left a record."""
    runs: dict[Path, RecordedRun] = {}
    for step in report.steps:
        path, record = run_record(step.folder)
        if record:
            runs.setdefault(path, RecordedRun([], _flat(record))).steps.append(step.name)
    return list(runs.values())


def run_record(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Return the path of the record of the run that wrote a folder, in it or beside it, and the record; empty if none.

    Examples:
        >>> run_record(Path("nowhere"))[1]
        {}
    """
    for path in (folder / SETTINGS_FILE, folder.parent / SETTINGS_FILE):
        if path.is_file():
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError) as error:
                return path, {SETTINGS_FILE: f"cannot be read: {error}"}
            return path, record if isinstance(record, dict) else {SETTINGS_FILE: record}
    return folder / SETTINGS_FILE, {}


def run_settings(folder: Path) -> Mapping[str, Any]:
    """Return the settings of the run that wrote a folder; empty where it recorded none.

    Examples:
        >>> run_settings(Path("nowhere"))
        {}
    """
    settings = run_record(folder)[1].get("settings")
    return settings if isinstance(settings, dict) else {}


def _flat(record: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested settings as pairs of dotted name and text."""
    rows = []
    for key, value in record.items():
        if isinstance(value, dict) and value:
            rows += _flat(value, f"{prefix}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            rows.append((f"{prefix}{key}", text[:LONGEST_SETTING] + ("…" if len(text) > LONGEST_SETTING else "")))
    return rows
