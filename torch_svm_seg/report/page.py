"""One self-contained HTML page about a ladder of mask folders: what each step gains, for which classes, with images.

The page needs no network and nothing beside it. The same inputs give the same bytes.
"""

import hashlib
from base64 import b64encode
from importlib.resources import files
from pathlib import Path
from string import Template

from torch_svm_seg.data.constants import VOC_CLASSES
from torch_svm_seg.data.io import write_text_atomically
from torch_svm_seg.report.content import Report
from torch_svm_seg.report.elements import gain_text, percent
from torch_svm_seg.report.gallery import gallery
from torch_svm_seg.report.markup import Markup, join, tag
from torch_svm_seg.report.published_plot import published_plot
from torch_svm_seg.report.settings import settings_tables
from torch_svm_seg.report.tables import class_table, confusion_matrix_table, ladder_table


def write_report(path: Path, report: Report) -> None:
    """Writes the page.

    Raises:
        InputError: an image of the gallery cannot be read.
        OSError: the file cannot be written.
    """
    write_text_atomically(path, render(report))


def render(report: Report) -> str:
    """Gives the page as text.

    Raises:
        InputError: an image of the gallery cannot be read.
    """
    script = _shipped("page.js")
    return Template(_shipped("page.html")).substitute(
        style=_shipped("page.css"),
        script=script,
        script_hash=b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        described=join(report.described),
        summary=_summary(report),
        ladder=ladder_table(report),
        published=published_plot(report) if tuple(report.dataset.class_names) == tuple(VOC_CLASSES) else "",
        classes=class_table(report),
        confusion=confusion_matrix_table(report),
        gallery=gallery(report),
        settings=settings_tables(report),
        notes=tag("ul", *(tag("li", note) for note in report.notes)),
    )


def _shipped(name: str) -> str:
    return files("torch_svm_seg.report").joinpath(name).read_text(encoding="utf-8")


def _summary(report: Report) -> Markup:
    """The three figures to remember."""
    first, last = report.rungs[0], report.rungs[-1]
    figures = [(percent(last.score.miou), f"mIoU of {last.name}, in percent")]
    if len(report.rungs) > 1:
        figures.append((gain_text(last.score.miou, first.score.miou), f"over {first.name}"))
    figures.append((str(last.score.images), f"images scored of {len(report.dataset)}"))
    return tag(
        "dl",
        *(tag("div", tag("dt", label), tag("dd", figure)) for figure, label in figures),
        class_="summary",
    )
