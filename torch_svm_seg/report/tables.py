"""Content of the report's larger tables: the classes of each step, and the confusions of one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from torch_svm_seg.report.content import Report


class ClassCell(NamedTuple):
    """IoU of a class in a step.

    Attributes:
        value: IoU from 0 to 1; NaN where the class is absent.
        strength: Position between the table's smallest and largest value, from 0 to 100.
        best: Whether no step is better.

    Examples:
        >>> ClassCell(value=0.5, strength=100.0, best=True).best
        True
    """

    value: float
    strength: float
    best: bool


@dataclass(frozen=True)
class ClassTable:
    """IoU of each class in each step.

    Attributes:
        rows: Class id -> cells, one per step, for the classes that some step has.
        absent: Number of the other classes.
    """

    rows: dict[int, list[ClassCell]]
    absent: int


def class_table(report: Report) -> ClassTable:
    """Return the IoU of each class in each step."""
    scores = torch.stack([step.score.per_class for step in report.steps], dim=1)  # (classes, steps)
    known = scores[~scores.isnan()]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    present = [id for id in range(len(scores)) if not scores[id].isnan().all()]
    rows = {id: _class_cells(scores[id].tolist(), low, high) for id in present}
    return ClassTable(rows, len(scores) - len(present))


def _class_cells(values: Sequence[float], low: float, high: float) -> list[ClassCell]:
    best = max(value for value in values if not math.isnan(value))
    strengths = [100 * (value - low) / (high - low) if high > low else 100.0 for value in values]
    return [ClassCell(value, strength, value == best) for value, strength in zip(values, strengths, strict=True)]


@dataclass(frozen=True)
class ConfusionTable:
    """Confusions of classes.

    Attributes:
        columns: Names of the predicted classes, "unsure" as the last where there is any.
        rows: Id of a true class -> share of each column in its pixels, in percent, and whether it is the right one.
    """

    columns: list[str]
    rows: dict[int, list[tuple[float, bool]]]


def confusion_table(report: Report) -> ConfusionTable:
    """Return the share of each predicted class in the pixels of each true class, for the chosen step."""
    names, counts = [*report.dataset.class_names, "unsure"], report.chosen.score.confusion
    unsure = len(names) - 1
    present = [id for id in range(unsure) if counts[id].any() or counts[:, id].any()]
    columns = [*present, *([unsure] if counts[:, unsure].any() else [])]
    shares = 100 * counts.double() / counts.sum(1, keepdim=True).clamp_min(1)
    rows = {row: [(float(shares[row, column]), row == column) for column in columns] for row in present}
    return ConfusionTable([names[column] for column in columns], rows)
