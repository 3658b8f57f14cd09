"""Tables of IoU for each class: plain text, Markdown, CSV and LaTeX, in the layout of the paper's Table 1.

The paper is Lyu, Beauseroy and Baussard, "Study of an Expansion Method Based on an Image-Specific Classifier and
Multi-Features for Weakly Supervised Semantic Segmentation", ICPRAM 2024, DOI 10.5220/0012462100003654.
"""

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from torch_svm_seg.data.constants import VOC_CLASSES

_SHORT_HEADS = (
    "bkg aero bike bird boat bottle bus car cat chair cow table dog horse motor person plant sheep sofa train tv"
)
SHORT_NAMES = dict(zip(VOC_CLASSES, _SHORT_HEADS.split(), strict=True))
"""VOC's class names -> the heads of the paper's table."""

# IoU in percent over the 1,464 VOC 2012 train images, 21 classes and the mean, all as printed. The mean printed for F1,
# 96.67, is 0.01 above the mean of its printed row.
_PRINTED = {
    "img": "86.98 68.79 35.91 64.40 57.83 58.97 68.77 62.19 77.31 58.65 73.76"
    " 69.01 71.25 73.22 57.99 68.02 61.07 70.89 74.65 64.80 60.96 65.97",
    "F1": "98.98 96.70 89.97 96.95 96.39 95.61 96.80 96.74 98.32 95.76 97.77"
    " 97.74 97.82 97.75 95.22 96.87 96.17 97.63 97.82 96.70 96.13 96.67",
    "F2": "98.65 92.87 85.61 95.38 93.90 95.34 95.66 95.63 98.16 94.89 96.77"
    " 96.76 97.23 96.86 93.93 95.85 95.02 97.22 97.47 95.80 95.19 95.44",
    "F3": "98.58 87.62 84.83 93.02 91.31 96.36 96.74 95.63 97.91 95.57 95.73"
    " 97.82 96.44 96.31 93.88 96.27 95.31 96.53 98.29 96.52 97.50 95.15",
    "F4": "96.98 78.48 75.53 86.10 84.00 93.96 94.35 91.75 95.39 91.04 87.35"
    " 96.74 90.63 88.29 89.19 93.85 91.03 88.22 96.43 93.71 96.69 90.46",
    "F5": "90.19 55.38 66.41 61.51 60.54 77.25 80.48 75.81 82.78 80.74 72.03"
    " 91.36 72.52 71.02 73.94 85.84 81.31 72.71 82.62 73.93 86.00 75.92",
}
PAPER_TABLE_1: dict[str, dict[str, float]] = {
    feature: dict(zip((*VOC_CLASSES, "mean"), map(float, printed.split()), strict=True))
    for feature, printed in _PRINTED.items()
}
"""Feature -> class name, or "mean" -> IoU in percent."""


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        name: Name of the masks, such as a feature's.
        per_class: IoU of each class from 0 to 1, in the order of the table's class names; NaN where absent.
        miou: Mean IoU, from 0 to 1.
        extra: Head -> text of the columns after the mean, such as ``{"s/image": "0.41"}``.
        published: Whether it is taken from a publication, not measured on this data set; it keeps no class in a table.

    Examples:
        >>> print(text_table([Row("F3", [0.9, 0.8], 0.85)], ["background", "cat"]))
        feature    bkg    cat   mean
        F3       90.00  80.00  85.00
    """

    name: str
    per_class: Sequence[float]
    miou: float
    extra: Mapping[str, str] = field(default_factory=dict)
    published: bool = False


def paper_row(feature: str) -> Row:
    """Return the paper's own row for one of its features: img, F1, F2, F3, F4 or F5.

    Examples:
        >>> paper_row("F1").miou
        0.9667
    """
    printed = PAPER_TABLE_1[feature]
    per_class = [printed[name] / 100 for name in VOC_CLASSES]
    return Row(f"{feature} (paper)", per_class, printed["mean"] / 100, published=True)


def text_table(rows: Sequence[Row], class_names: Sequence[str], width: int = 200) -> str:
    """Return an aligned table for the terminal, folded into blocks of columns that fit ``width`` characters.

    Classes that no measured row has are left out.

    Args:
        rows: Rows of the table.
        class_names: Name of each class id.
        width: Number of characters in a line.

    Examples:
        >>> print(text_table([Row("F3", [0.9, float("nan")], 0.9)], ["background", "cat"]))
        feature    bkg   mean
        F3       90.00  90.00
    """
    columns = list(zip(*_cells(rows, class_names, absent="-", drop_absent=True), strict=True))
    columns = [_aligned(columns[0], str.ljust), *(_aligned(column, str.rjust) for column in columns[1:])]
    return "\n\n".join(_lines(block) for block in _folded(columns, width))


def markdown_table(rows: Sequence[Row], class_names: Sequence[str]) -> str:
    """Return a GitHub-flavoured Markdown table; see :func:`text_table`.

    Examples:
        >>> print(markdown_table([Row("F3", [0.9, 0.8], 0.85)], ["background", "cat"]), end="")
        | feature | bkg | cat | mean |
        | :-- | --: | --: | --: |
        | F3 | 90.00 | 80.00 | 85.00 |
    """
    heads, *body = [[cell.replace("|", "\\|") for cell in line] for line in _cells(rows, class_names, absent="-")]
    rule = [":--"] + ["--:"] * (len(heads) - 1)
    return "".join(f"| {' | '.join(line)} |\n" for line in (heads, rule, *body))


def csv_table(rows: Sequence[Row], class_names: Sequence[str]) -> str:
    """Return comma-separated values; an absent class is an empty cell; see :func:`text_table`.

    Examples:
        >>> print(csv_table([Row("F3", [0.9, 0.8], 0.85)], ["background", "cat"]), end="")
        feature,bkg,cat,mean
        F3,90.00,80.00,85.00
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(_cells(rows, class_names, absent=""))
    return text.getvalue()


def latex_table(rows: Sequence[Row], class_names: Sequence[str]) -> str:
    r"""Return a LaTeX tabular; the document needs ``\usepackage{booktabs}``; see :func:`text_table`.

    Examples:
        >>> latex_table([Row("F3", [0.9, 0.8], 0.85)], ["background", "cat"]).splitlines()[4]
        'F3 & 90.00 & 80.00 & 85.00 \\\\'
    """
    heads, *body = [" & ".join(map(_latex_text, line)) + r" \\" for line in _cells(rows, class_names, absent="--")]
    columns = "l" + "r" * heads.count(" & ")
    lines = [
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        heads,
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _cells(rows: Sequence[Row], class_names: Sequence[str], absent: str, drop_absent: bool = False) -> list[list[str]]:
    """Return the heads, then the texts of each row; ``drop_absent`` leaves out the classes that no measured row has."""
    for row in rows:
        if len(row.per_class) != len(class_names):
            raise ValueError(f"rows: expected {len(class_names)} classes in {row.name!r}, got {len(row.per_class)}")
    measured = [row for row in rows if not row.published]
    shown = [
        index
        for index in range(len(class_names))
        if not drop_absent or any(not math.isnan(row.per_class[index]) for row in measured)
    ]
    extra_heads = list(dict.fromkeys(head for row in rows for head in row.extra))
    lines = [["feature", *(SHORT_NAMES.get(class_names[i], class_names[i]) for i in shown), "mean", *extra_heads]]
    for row in rows:
        values = [*(row.per_class[i] for i in shown), row.miou]
        extra = [row.extra.get(head, absent) for head in extra_heads]
        lines.append([row.name, *(_percent(value, absent) for value in values), *extra])
    return lines


def _percent(value: float, absent: str) -> str:
    return absent if math.isnan(value) else f"{100 * value:.2f}"


def _aligned(column: Sequence[str], align: Callable[[str, int], str]) -> tuple[str, ...]:
    width = max(map(len, column))
    return tuple(align(cell, width) for cell in column)


def _folded(columns: Sequence[tuple[str, ...]], width: int) -> Iterable[list[tuple[str, ...]]]:
    """Yield blocks of columns that fit the width, each starting with the names."""
    names = columns[0]
    block = [names]
    for column in columns[1:]:
        if len(block) > 1 and len("  ".join(cells[0] for cells in (*block, column))) > width:
            yield block
            block = [names]
        block.append(column)
    yield block


def _lines(columns: Sequence[tuple[str, ...]]) -> str:
    return "\n".join("  ".join(cells).rstrip() for cells in zip(*columns, strict=True))


def _latex_text(text: str) -> str:
    """Return a text with LaTeX's special characters escaped."""
    named = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(named.get(letter, "\\" + letter if letter in "&%$#_{}" else letter) for letter in text)
