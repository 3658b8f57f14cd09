"""One self-contained HTML page about a ladder of mask folders: what each step gains, for which classes, with pictures.

The page needs no network and nothing beside it. The same inputs give the same bytes.
"""

import hashlib
import json
import math
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import torch

from torch_svm_seg import gallery
from torch_svm_seg.cam import ActivationMaps
from torch_svm_seg.datasets import VOC_CLASSES, PhotographDataset
from torch_svm_seg.expansion_run import SETTINGS_FILE
from torch_svm_seg.files import read_mask, write_text_atomically
from torch_svm_seg.gallery import Picture
from torch_svm_seg.markup import Markup, join, tag
from torch_svm_seg.metrics import summarize
from torch_svm_seg.panels import colours
from torch_svm_seg.published import PUBLISHED, PublishedMethod
from torch_svm_seg.scoring import FolderScore

NO_VALUE = "-"
MINUS = "\N{MINUS SIGN}"
LONGEST_SETTING = 400  # characters


@dataclass(frozen=True)
class Rung:
    """A step of the ladder: a folder of masks and its score.

    Attributes:
        name: what the page calls it.
        folder: where its masks lie, ``ID.png``.
        score: over the report's data set.
    """

    name: str
    folder: Path
    score: FolderScore

    @property
    def pixel_accuracy(self) -> float:
        """Share of the labelled pixels that are right, from 0 to 1."""
        return summarize(self.score.confusion).pixel_accuracy

    @property
    def unsure(self) -> float:
        """Share of the labelled pixels that are predicted as 255, from 0 to 1."""
        counts = self.score.confusion
        return float(counts[:, -1].sum().double() / counts.sum().double())


@dataclass(frozen=True)
class Report:
    """What a page is made of.

    Attributes:
        dataset: the photographs with their ground truth.
        described: what the data set is called.
        rungs: the ladder, in its order; at least one.
        chosen: the rung whose confusions and best, median and worst photographs are shown; one of ``rungs``.
        shown: how many photographs of each of these three kinds.
        read_cams: gives the class activation maps of an image and its size (height, width), or raises InputError.
        notes: sentences about the scores, such as what could not be scored.
    """

    dataset: PhotographDataset
    described: str
    rungs: Sequence[Rung]
    chosen: Rung
    shown: int = 3
    read_cams: Callable[[str, tuple[int, int]], ActivationMaps] | None = None
    notes: Sequence[str] = field(default_factory=tuple)


def write_report(path: Path, report: Report) -> None:
    """Writes the page.

    Raises:
        InputError: a photograph of the gallery cannot be read.
        OSError: the file cannot be written.
    """
    write_text_atomically(path, render(report))


def render(report: Report) -> str:
    """Gives the page as text.

    Raises:
        InputError: a photograph of the gallery cannot be read.
    """
    package = files("torch_svm_seg")
    script = package.joinpath("report.js").read_text(encoding="utf-8")
    return Template(package.joinpath("report.html").read_text(encoding="utf-8")).substitute(
        style=package.joinpath("report.css").read_text(encoding="utf-8"),
        script=script,
        script_hash=b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        described=join(report.described),
        summary=_summary(report),
        ladder=_ladder(report),
        published=_published(report) if tuple(report.dataset.class_names) == tuple(VOC_CLASSES) else "",
        classes=_classes(report),
        confusion=_confusion(report),
        gallery=_gallery(report),
        settings=_settings(report),
        notes=tag("ul", *(tag("li", note) for note in report.notes)),
    )


def _summary(report: Report) -> Markup:
    """The three figures to remember."""
    first, last = report.rungs[0], report.rungs[-1]
    figures = [(_percent(last.score.miou), f"mIoU of {last.name}, in percent")]
    if len(report.rungs) > 1:
        figures.append((_gain(last.score.miou, first.score.miou), f"over {first.name}"))
    figures.append((str(last.score.images), f"photographs scored of {len(report.dataset)}"))
    return tag(
        "dl",
        *(tag("div", tag("dt", label), tag("dd", figure)) for figure, label in figures),
        class_="summary",
    )


def _ladder(report: Report) -> Markup:
    scores = [rung.score.miou for rung in report.rungs]
    low = _axis_start(100 * score for score in scores)
    rows = []
    for index, rung in enumerate(report.rungs):
        gain = _gain(scores[index], scores[index - 1]) if index else ""
        rows.append(
            tag(
                "tr",
                tag("th", rung.name, scope="row"),
                tag("td", _bar(100 * scores[index], low), class_="plot"),
                tag("td", tag("b", _percent(scores[index]))),
                tag("td", gain, class_=_sign_class(gain)),
                tag("td", _percent(rung.pixel_accuracy)),
                tag("td", _percent(rung.unsure)),
                tag("td", rung.score.images),
            )
        )
    heads = ["step", f"mIoU, {low:g} to 100", "mIoU", "gain", "pixel accuracy", "unsure", "photographs"]
    table = tag(
        "table",
        tag("thead", tag("tr", *(tag("th", head, scope="col") for head in heads))),
        tag("tbody", *rows),
        class_="ladder",
    )
    parts = [_scroll_box("The ladder of steps", table)]
    if len({tuple(sorted(rung.score.per_image)) for rung in report.rungs}) > 1:
        parts.append(
            tag(
                "p",
                "The steps were not scored on the same photographs: their figures cannot be compared.",
                class_="warning",
            )
        )
    return join(*parts)


def _published(report: Report) -> Markup:
    """The paper's Figs. 2 and 8, turned so that names can be read, with the ladder above."""
    ours = [(rung.name, "", [("ours", 100 * rung.score.miou)]) for rung in report.rungs]
    others = [(method.name, _origin(method), _published_marks(method)) for method in PUBLISHED]
    values = [value for _, _, marks in (*ours, *others) for _, value in marks if not math.isnan(value)]
    low = _axis_start(values)
    kinds = {
        "ours": "measured here",
        "masks": "pseudo masks, VOC train",
        "val": "segmentation, VOC val",
        "test": "segmentation, VOC test",
        "bound": "the same, fully supervised",
    }
    legend = tag(
        "ul",
        *(tag("li", _legend_mark(kind), text) for kind, text in kinds.items()),
        class_="legend",
    )
    here = f"Measured here: {report.described}, {len(report.dataset)} photographs, mean over the classes present"
    there = "Published, not measured here: PASCAL VOC 2012, mean over 21 classes"
    return tag(
        "section",
        tag("h2", "Beside published methods", id="published"),
        tag(
            "p",
            "After Figs. 2 and 8 of Lyu, Beauseroy and Baussard (ICPRAM 2024). Published methods are trained and "
            "scored on other photographs than these: compare what steps gain, not levels. What is not known from the "
            "authors, or from a comparison that quotes them, is left out.",
        ),
        legend,
        _dot_plot(here, ours, low),
        _dot_plot(there, others, low),
        _axis(low),
    )


def _origin(method: PublishedMethod) -> str:
    return f"{method.source} ({method.remark})" if method.remark else method.source


def _published_marks(method: PublishedMethod) -> list[tuple[str, float]]:
    figures = {"masks": method.masks, "val": method.val, "test": method.test}
    bound = method.fully_supervised
    return [(f"{kind} bound" if bound else kind, value) for kind, value in figures.items() if value is not None]


def _dot_plot(heading: str, rows: Sequence[tuple[str, str, Sequence[tuple[str, float]]]], low: float) -> Markup:
    """Rows of (name, small print, [(kind of mark, percent)]) on one scale."""
    items = []
    for name, small_print, marks in rows:
        figures = ", ".join(f"{kind.split()[0]} {_number(value)}" for kind, value in marks).replace("ours ", "")
        items.append(
            tag(
                "li",
                tag(
                    "div",
                    tag("b", name),
                    tag("span", small_print, class_="origin"),
                    tag("span", figures, class_="figures"),
                    class_="label",
                ),
                _track(marks, low),
            )
        )
    return join(tag("h3", heading), tag("ul", *items, class_="dots"))


def _track(marks: Sequence[tuple[str, float]], low: float) -> Markup:
    ticks = [tag("line", x1=x, x2=x, y1="0", y2="100%", class_="tick") for x in map(partial(_x, low), _ticks(low))]
    drawn = [
        tag(
            "svg", tag("path", d=_mark_path(kind)), x=_x(low, value), y="50%", overflow="visible", class_=f"mark {kind}"
        )
        for kind, value in marks
        if not math.isnan(value)
    ]
    return tag("svg", *ticks, *drawn, class_="track", aria_hidden="true")


def _axis(low: float) -> Markup:
    labels = [tag("text", f"{tick:g}", x=_x(low, tick), y="12") for tick in _ticks(low)]
    return tag(
        "div", tag("span", "mIoU in percent"), tag("svg", *labels, class_="axis"), class_="axis-row", aria_hidden="true"
    )


def _legend_mark(kind: str) -> Markup:
    kind = "test bound" if kind == "bound" else kind
    mark = tag("svg", tag("path", d=_mark_path(kind)), x="50%", y="50%", overflow="visible", class_=f"mark {kind}")
    return tag("svg", mark, class_="key", aria_hidden="true")


def _mark_path(kind: str) -> str:
    if kind == "ours":
        return "M0-6.5L6.5 0L0 6.5L-6.5 0Z"
    return "M-4.5-4.5L4.5 4.5M-4.5 4.5L4.5-4.5" if kind.endswith("bound") else "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0"


def _bar(value: float, low: float) -> Markup:
    if math.isnan(value):
        return Markup("")
    width = _x(low, max(value, low))
    return tag("svg", tag("rect", width=width, height="100%", rx="2"), class_="bar", aria_hidden="true")


def _x(low: float, value: float) -> str:
    """Where a percentage lies on a scale from ``low`` to 100."""
    return f"{100 * (value - low) / (100 - low):.2f}%"


def _axis_start(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return 10.0 * min(9, math.floor(min(known, default=0) / 10))


def _ticks(low: float) -> list[float]:
    step = 10 if low >= 40 else 20
    return [tick for tick in range(0, 101, step) if tick >= low]


def _classes(report: Report) -> Markup:
    names, rungs = report.dataset.class_names, report.rungs
    scores = torch.stack([rung.score.per_class for rung in rungs], dim=1)  # (classes, rungs)
    present = [id for id in range(len(names)) if not scores[id].isnan().all()]
    known = scores[~scores.isnan()]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    gains = len(rungs) > 1
    heads = ["class", *(rung.name for rung in rungs), *([f"{rungs[-1].name} over {rungs[0].name}"] if gains else [])]
    body = []
    for id in present:
        values = scores[id].tolist()
        best = max(value for value in values if not math.isnan(value))
        cells = [_class_cell(value, best, low, high) for value in values]
        if gains:
            cells.append(_gain_cell(values[-1], values[0]))
        body.append(tag("tr", tag("th", _chip(id), names[id], scope="row", data_value=names[id]), *cells))
    means = [rung.score.miou for rung in rungs]
    foot = [tag("td", _percent(mean)) for mean in means]
    if gains:
        foot.append(_gain_cell(means[-1], means[0]))
    table = tag(
        "table",
        tag("thead", tag("tr", *(_sortable_head(head, numeric=index > 0) for index, head in enumerate(heads)))),
        tag("tbody", *body),
        tag("tfoot", tag("tr", tag("th", "mean", scope="row"), *foot)),
        class_="classes sortable",
    )
    absent = len(names) - len(present)
    note = f"{absent} of {len(names)} classes are in no ground truth and in no prediction here, and left out."
    return join(_scroll_box("IoU of each class", table), tag("p", note, class_="small") if absent else "")


def _sortable_head(head: str, numeric: bool) -> Markup:
    button = tag("button", head, tag("span", class_="arrow", aria_hidden="true"), type="button")
    return tag("th", button, scope="col", aria_sort="none", data_kind="number" if numeric else "text")


def _class_cell(value: float, best: float, low: float, high: float) -> Markup:
    if math.isnan(value):
        return tag("td", NO_VALUE)
    strength = 100 * (value - low) / (high - low) if high > low else 100
    text = tag("b", _percent(value)) if value == best else _percent(value)
    return tag("td", text, class_="heat", style=f"--heat:{strength:.0f}%", data_value=f"{value:.6f}")


def _gain_cell(value: float, before: float) -> Markup:
    gain = _gain(value, before)
    data = None if math.isnan(value - before) else f"{value - before:.6f}"
    return tag("td", gain, class_=_sign_class(gain), data_value=data)


def _confusion(report: Report) -> Markup:
    names = report.dataset.class_names
    counts = report.chosen.score.confusion
    present = [id for id in range(len(names)) if counts[id].any() or counts[:, id].any()]
    columns = [*present, *([len(names)] if counts[:, -1].any() else [])]
    head = [tag("th", tag("span", "true \\ predicted", class_="small"), scope="col")]
    for column in columns:
        name = names[column] if column < len(names) else "unsure"
        head.append(tag("th", tag("span", name), scope="col", class_="upright"))
    body = []
    for row in present:
        total = int(counts[row].sum())
        cells = [_confusion_cell(int(counts[row, column]), total, row == column) for column in columns]
        body.append(tag("tr", tag("th", names[row], scope="row"), *cells))
    table = tag("table", tag("thead", tag("tr", *head)), tag("tbody", *body), class_="confusion")
    return join(
        tag(
            "p",
            "Where the pixels of each true class went with ",
            tag("b", report.chosen.name),
            ", in percent of the row. Less than half a percent is left blank.",
        ),
        _scroll_box("Confusion matrix", table),
    )


def _confusion_cell(count: int, total: int, right: bool) -> Markup:
    share = 100 * count / total if total else 0.0
    if share < 0.5:
        return tag("td", class_="right" if right else None)
    kind = "right" if right else "wrong"
    return tag("td", f"{share:.0f}", class_=kind, style=f"--heat:{share:.0f}%", title=f"{share:.2f} %")


def _gallery(report: Report) -> Markup:
    chosen = gallery.choose(report.chosen.score.per_image, report.shown)
    places = {id: place for place, id in enumerate(report.dataset.ids)}
    parts: list[Markup] = [
        tag(
            "p",
            "Photographs on which ",
            tag("b", report.chosen.name),
            " does best, as the median, and worst, by the mean IoU of the photograph alone, over the classes in it or "
            "in its prediction. Under each mask is its own. White: unlabelled.",
        )
    ]
    for kind, ids in chosen.items():
        if ids:
            parts.append(tag("h3", kind.capitalize()))
            parts += [_example(report, id, places[id]) for id in ids]
    return join(*parts)


def _example(report: Report, id: str, place: int) -> Markup:
    pictures = _pictures(report, id, place)
    truth = report.dataset.mask(place)
    classes = [name for name in truth.unique().tolist() if name < len(report.dataset.class_names)]
    legend = [tag("li", _chip(number), report.dataset.class_names[number]) for number in classes]
    score = report.chosen.score.per_image[id]
    return tag(
        "article",
        tag("h4", id, " ", tag("span", f"mIoU {_percent(score)}", class_="small")),
        tag("ul", *legend, class_="legend"),
        tag("div", *(_figure(id, picture) for picture in pictures), class_="pictures"),
    )


def _pictures(report: Report, id: str, place: int) -> list[Picture]:
    """What is known about a photograph, from left to right."""
    dataset, names = report.dataset, report.dataset.class_names
    image, truth = dataset.image(place), dataset.mask(place)
    pictures = [gallery.photograph(image), gallery.mask("ground truth", lambda: truth, names)]
    if report.read_cams is not None:
        size = (image.shape[1], image.shape[2])
        pictures.append(gallery.activation("CAM", image, partial(report.read_cams, id, size), names))
    samples = gallery.study_samples(image, truth, _run_record(report.chosen.folder)[1].get("settings", {}))
    if samples is not None:
        pictures.append(samples)
    for rung in report.rungs:
        read = partial(read_mask, rung.folder / f"{id}.png")
        pictures.append(gallery.mask(rung.name, read, names, rung.score.per_image.get(id)))
    return pictures


def _figure(id: str, picture: Picture) -> Markup:
    score = "" if picture.miou is None else tag("span", _percent(picture.miou), class_="figures")
    caption = tag("figcaption", tag("span", picture.title), score)
    if picture.uri is None:
        return tag("figure", tag("div", "none", class_="none", title=picture.alt), caption)
    width, height = picture.size
    alt = f"{picture.title} of {id}: {picture.alt}"
    return tag("figure", tag("img", src=picture.uri, alt=alt, width=width, height=height), caption)


def _settings(report: Report) -> Markup:
    runs: dict[Path, list[str]] = {}
    records: dict[Path, Mapping[str, Any]] = {}
    for rung in report.rungs:
        path, record = _run_record(rung.folder)
        if record:
            runs.setdefault(path, []).append(rung.name)
            records[path] = record
    if not runs:
        return tag("p", f"No {SETTINGS_FILE} lies beside these masks.")
    parts = []
    for path, names in runs.items():
        rows = [tag("tr", tag("th", key, scope="row"), tag("td", text)) for key, text in _flat(records[path])]
        table = tag("table", tag("tbody", *rows), class_="settings")
        parts.append(tag("details", tag("summary", ", ".join(names)), _scroll_box("Settings", table)))
    return join(*parts)


def _run_record(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The record of the run that wrote a folder: in it, or beside it; empty if there is none."""
    for path in (folder / SETTINGS_FILE, folder.parent / SETTINGS_FILE):
        if path.is_file():
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
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


def _scroll_box(label: str, content: Markup) -> Markup:
    """A box that scrolls where its content is wider than the page, by keyboard too."""
    return tag("div", content, class_="scroll", role="region", aria_label=label, tabindex="0")


def _chip(class_id: int) -> Markup:
    red, green, blue = colours(torch.tensor([[class_id]]))[0, 0].tolist()
    return tag("span", class_="chip", style=f"background:rgb({red},{green},{blue})", aria_hidden="true")


def _percent(value: float) -> str:
    return NO_VALUE if math.isnan(value) else f"{100 * value:.2f}"


def _number(value: float) -> str:
    return NO_VALUE if math.isnan(value) else f"{value:.2f}".removesuffix("0")


def _gain(value: float, before: float) -> str:
    gain = 100 * (value - before)
    return NO_VALUE if math.isnan(gain) else f"{gain:+.2f}".replace("-", MINUS)


def _sign_class(gain: str) -> str | None:
    return {"+": "up", MINUS: "down"}.get(gain[:1])
