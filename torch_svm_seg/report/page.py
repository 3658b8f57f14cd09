"""One self-contained HTML page about folders of masks: the gain of each step, for which classes, with images.

The page needs no network and nothing beside it. The same inputs give the same bytes. All text is escaped by the
templates; a content security policy allows the page's own script and nothing from outside.
"""

import hashlib
from base64 import b64encode
from importlib.resources import files
from pathlib import Path
from typing import Any

from torch_svm_seg.data.constants import VOC_CLASSES
from torch_svm_seg.data.errors import import_optional
from torch_svm_seg.data.io import write_text_atomically
from torch_svm_seg.report.content import Report, gain, percent
from torch_svm_seg.report.figures import class_colour
from torch_svm_seg.report.gallery import gallery
from torch_svm_seg.report.published import published_plot
from torch_svm_seg.report.settings import recorded_runs
from torch_svm_seg.report.tables import class_table, confusion_table


def write_report(path: Path, report: Report) -> None:
    """Write the page.

    Args:
        path: File to write, such as ``report.html``.
        report: Content of the page.

    Raises:
        InputError: An image of the gallery cannot be read, or Jinja2 is not installed.
        OSError: The file cannot be written.

    Examples:
        >>> write_report(Path("report.html"), report)  # doctest: +SKIP
    """
    write_text_atomically(path, render(report))


def render(report: Report) -> str:
    """Return the page as text.

    Args:
        report: Content of the page.

    Raises:
        InputError: An image of the gallery cannot be read, or Jinja2 is not installed.

    Examples:
        >>> render(report)[:15]  # doctest: +SKIP
        '<!DOCTYPE html>'
    """
    script = _shipped("page.js")
    text: str = (
        _environment()
        .get_template("page.html")
        .render(
            report=report,
            style=_shipped("page.css"),
            script=script,
            script_hash=b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            plot=published_plot(report) if tuple(report.dataset.class_names) == VOC_CLASSES else None,
            classes=class_table(report),
            confusion=confusion_table(report),
            gallery=gallery(report),
            runs=recorded_runs(report),
        )
    )
    return text


def _environment() -> Any:
    """Return the templates and their filters; they escape all text, and stop at a name that does not exist."""
    jinja2 = import_optional("jinja2", "--report needs it; run: pip install jinja2")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("torch_svm_seg.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "gain": gain, "class_colour": class_colour}
    return environment


def _shipped(name: str) -> str:
    return files("torch_svm_seg.report").joinpath("templates", name).read_text(encoding="utf-8")
