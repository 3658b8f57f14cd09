"""The report's tables: the ladder of steps, the classes, and what is taken for what."""

import math

import torch

from torch_svm_seg.report.content import Report
from torch_svm_seg.report.elements import NO_VALUE, chip, gain_text, percent, scroll_box, sign_class
from torch_svm_seg.report.markup import Markup, join, tag


def ladder_table(report: Report) -> Markup:
    """Gives a row for each step: its figures, and what it gains over the one before."""
    scores = [rung.score.miou for rung in report.rungs]
    rows = []
    for index, rung in enumerate(report.rungs):
        gain = gain_text(scores[index], scores[index - 1]) if index else ""
        rows.append(
            tag(
                "tr",
                tag("th", rung.name, scope="row"),
                tag("td", tag("b", percent(scores[index]))),
                tag("td", gain, class_=sign_class(gain)),
                tag("td", percent(rung.pixel_accuracy)),
                tag("td", percent(rung.unsure)),
                tag("td", rung.score.images),
                tag("td", _bar(scores[index]), class_="plot"),
            )
        )
    heads = ["step", "mIoU", "gain", "pixel accuracy", "unsure", "images", "mIoU from 0 to 100"]
    table = tag(
        "table",
        tag("thead", tag("tr", *(tag("th", head, scope="col") for head in heads))),
        tag("tbody", *rows),
        class_="ladder",
    )
    parts = [scroll_box("The ladder of steps", table)]
    if len({tuple(sorted(rung.score.per_image)) for rung in report.rungs}) > 1:
        parts.append(
            tag(
                "p",
                "The steps were not scored on the same images: their figures cannot be compared.",
                class_="warning",
            )
        )
    return join(*parts)


def _bar(share: float) -> Markup:
    width = f"{0 if math.isnan(share) else 100 * share:.2f}%"
    return tag("svg", tag("rect", width=width, height="100%", rx="2"), class_="bar", aria_hidden="true")


def class_table(report: Report) -> Markup:
    """Gives a row for each class, a column for each step, and the gain of the last over the first; it can be sorted."""
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
        body.append(tag("tr", tag("th", chip(id), names[id], scope="row", data_value=names[id]), *cells))
    means = [rung.score.miou for rung in rungs]
    foot = [tag("td", percent(mean)) for mean in means]
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
    return join(scroll_box("IoU of each class", table), tag("p", note, class_="small") if absent else "")


def _sortable_head(head: str, numeric: bool) -> Markup:
    button = tag("button", head, tag("span", class_="arrow", aria_hidden="true"), type="button")
    return tag("th", button, scope="col", aria_sort="none", data_kind="number" if numeric else "text")


def _class_cell(value: float, best: float, low: float, high: float) -> Markup:
    if math.isnan(value):
        return tag("td", NO_VALUE)
    strength = 100 * (value - low) / (high - low) if high > low else 100
    text = tag("b", percent(value)) if value == best else percent(value)
    return tag("td", text, class_="heat", style=f"--heat:{strength:.0f}%", data_value=f"{value:.6f}")


def _gain_cell(value: float, before: float) -> Markup:
    gain = gain_text(value, before)
    data = None if math.isnan(value - before) else f"{value - before:.6f}"
    return tag("td", gain, class_=sign_class(gain), data_value=data)


def confusion_matrix_table(report: Report) -> Markup:
    """Gives the share of each predicted class (across) in the pixels of each true class (down), for the chosen step."""
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
        scroll_box("Confusion matrix", table),
    )


def _confusion_cell(count: int, total: int, right: bool) -> Markup:
    share = 100 * count / total if total else 0.0
    if share < 0.5:
        return tag("td", class_="right" if right else None)
    kind = "right" if right else "wrong"
    return tag("td", f"{share:.0f}", class_=kind, style=f"--heat:{share:.0f}%", title=f"{share:.2f} %")
