"""A dot plot in HTML and SVG: a row a method, several marks in it, one scale from 0 or more to 100 percent.

Positions are percentages of the row's width, so that the plot fills any width and its text keeps its size.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch_svm_seg.report.markup import Markup, join, tag

DISC, CROSS, DIAMOND = (
    "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0",
    "M-4.5-4.5L4.5 4.5M-4.5 4.5L4.5-4.5",
    "M0-6.5L6.5 0L0 6.5L-6.5 0Z",
)


@dataclass(frozen=True)
class MarkKind:
    """How a kind of figure is drawn.

    Attributes:
        style: its class in the style sheet.
        path: of the mark, as SVG, around (0, 0).
        height: where in the row it lies, so that marks of one value do not hide each other.
    """

    style: str
    path: str
    height: str = "50%"


@dataclass(frozen=True)
class DotRow:
    """A row of the plot.

    Attributes:
        name: what the figures belong to.
        small_print: where they come from.
        marks: the figures in percent, with how they are drawn; later ones lie above.
        figures: the same in words.
    """

    name: str
    small_print: str
    marks: Sequence[tuple[MarkKind, float]]
    figures: str


def dot_plot(groups: Mapping[str, Sequence[DotRow]]) -> Markup:
    """Gives the rows under the headings of their groups, and the axis."""
    low = _axis_start(value for rows in groups.values() for row in rows for _, value in row.marks)
    parts = [
        join(tag("h3", heading), tag("ul", *(_row(row, low) for row in rows), class_="dots"))
        for heading, rows in groups.items()
    ]
    return join(*parts, _axis(low))


def legend(entries: Mapping[str, MarkKind]) -> Markup:
    """Gives the meaning of the marks."""
    items = [
        tag("li", tag("svg", _mark(kind, "50%", "50%"), class_="key", aria_hidden="true"), text)
        for text, kind in entries.items()
    ]
    return tag("ul", *items, class_="legend")


def _row(row: DotRow, low: float) -> Markup:
    label = tag("span", tag("b", row.name), " ", tag("span", row.small_print, class_="origin"), class_="label")
    ticks = [tag("line", x1=_x(low, tick), x2=_x(low, tick), y1="0", y2="100%", class_="tick") for tick in _ticks(low)]
    marks = [_mark(kind, _x(low, value), kind.height) for kind, value in row.marks if not math.isnan(value)]
    return tag(
        "li",
        label,
        tag("span", row.figures, class_="figures"),
        tag("svg", *ticks, *marks, class_="track", aria_hidden="true"),
    )


def _mark(kind: MarkKind, x: str, y: str) -> Markup:
    return tag("svg", tag("path", d=kind.path), x=x, y=y, overflow="visible", class_=f"mark {kind.style}")


def _axis(low: float) -> Markup:
    labels = [tag("text", f"{tick:g}", x=_x(low, tick), y="12") for tick in _ticks(low)]
    return tag(
        "div", tag("span", "mIoU in percent"), tag("svg", *labels, class_="axis"), class_="axis-row", aria_hidden="true"
    )


def _x(low: float, value: float) -> str:
    return f"{100 * (value - low) / (100 - low):.2f}%"


def _axis_start(values: Iterable[float]) -> float:
    smallest = min((value for value in values if not math.isnan(value)), default=0)
    return 10 * min(9, math.floor(smallest / 10))


def _ticks(low: float) -> list[int]:
    return [tick for tick in range(0, 101, 10 if low >= 40 else 20) if tick >= low]
