"""The paper's numbers, and the four forms of a table."""

import csv
import io
import math

import pytest

from torch_svm_seg.data.constants import VOC_CLASSES
from torch_svm_seg.evaluation.tables import (
    PAPER_TABLE_1,
    SHORT_NAMES,
    Row,
    csv_table,
    latex_table,
    markdown_table,
    paper_row,
    text_table,
)

NAMES = ["background", "pottedplant", "my_class", "a|b & c"]
ROWS = [
    Row("F1", [0.5, 0.25, math.nan, 1.0], 0.58333, {"s/image": "0.41"}),
    Row("img", [0.125, 1 / 3, math.nan, math.nan], 0.22917),
]


@pytest.mark.parametrize("feature", ["img", "F2", "F3", "F4", "F5"])
def test_printed_mean_is_the_mean_of_the_printed_row(feature: str) -> None:
    printed = PAPER_TABLE_1[feature]
    assert len(printed) == 22
    assert round(sum(printed[name] for name in VOC_CLASSES) / 21, 2) == printed["mean"]


def test_printed_mean_of_f1_is_a_hundredth_too_high() -> None:
    """The paper prints 96.67 where its row has a mean of 96.66; the table keeps what is printed."""
    printed = PAPER_TABLE_1["F1"]
    assert printed["mean"] == 96.67
    assert round(sum(printed[name] for name in VOC_CLASSES) / 21, 2) == 96.66


def test_paper_table_has_the_paper_s_heads_and_numbers() -> None:
    heads, *body = csv.reader(io.StringIO(csv_table([paper_row(feature) for feature in PAPER_TABLE_1], VOC_CLASSES)))
    assert " ".join(heads) == (
        "feature bkg aero bike bird boat bottle bus car cat chair cow table dog horse motor person plant sheep sofa"
        " train tv mean"
    )
    assert [line[0] for line in body] == [f"{feature} (paper)" for feature in ("img", "F1", "F2", "F3", "F4", "F5")]
    for line, printed in zip(body, PAPER_TABLE_1.values(), strict=True):
        assert [float(cell) for cell in line[1:]] == list(printed.values())
    assert body[5][heads.index("table")] == "91.36"
    assert SHORT_NAMES["tvmonitor"] == "tv"


def test_text() -> None:
    assert text_table(ROWS, NAMES).splitlines() == [
        "feature    bkg  plant  a|b & c   mean  s/image",
        "F1       50.00  25.00   100.00  58.33     0.41",
        "img      12.50  33.33        -  22.92        -",
    ]


def test_text_folds_into_blocks_that_fit() -> None:
    text = text_table(ROWS, NAMES, width=26)
    blocks = [block.splitlines() for block in text.split("\n\n")]
    assert [block[0].split()[0] for block in blocks] == ["feature"] * len(blocks)
    assert len(blocks) == 3
    assert max(map(len, text.splitlines())) <= 26
    words = [cell for block in blocks for cell in block[1].split()[1:]]
    assert words == ["50.00", "25.00", "100.00", "58.33", "0.41"]


def test_text_drops_a_class_that_only_a_published_row_has() -> None:
    measured = Row("F1", [0.5] * 20 + [math.nan], 0.5)
    heads, first, second = text_table([measured, paper_row("F1")], VOC_CLASSES, width=300).splitlines()
    assert "train" in heads.split()
    assert "tv" not in heads.split()
    assert len(first.split()) + 1 == len(second.split()) == 23


def test_markdown() -> None:
    assert markdown_table(ROWS, NAMES).splitlines() == [
        "| feature | bkg | plant | my_class | a\\|b & c | mean | s/image |",
        "| :-- | --: | --: | --: | --: | --: | --: |",
        "| F1 | 50.00 | 25.00 | - | 100.00 | 58.33 | 0.41 |",
        "| img | 12.50 | 33.33 | - | - | 22.92 | - |",
    ]


def test_csv() -> None:
    assert csv_table(ROWS, NAMES).splitlines() == [
        "feature,bkg,plant,my_class,a|b & c,mean,s/image",
        "F1,50.00,25.00,,100.00,58.33,0.41",
        "img,12.50,33.33,,,22.92,",
    ]


def test_latex() -> None:
    assert latex_table(ROWS, NAMES).splitlines() == [
        r"\begin{tabular}{lrrrrrr}",
        r"\toprule",
        r"feature & bkg & plant & my\_class & a|b \& c & mean & s/image \\",
        r"\midrule",
        r"F1 & 50.00 & 25.00 & -- & 100.00 & 58.33 & 0.41 \\",
        r"img & 12.50 & 33.33 & -- & -- & 22.92 & -- \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


@pytest.mark.parametrize("table", [text_table, markdown_table, csv_table, latex_table])
def test_row_of_another_length(table) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="expected 4 classes in 'F9', got 2"):
        table([Row("F9", [0.5, 0.5], 0.5)], NAMES)


def test_unknown_feature_has_no_paper_row() -> None:
    with pytest.raises(KeyError):
        paper_row("F6")
