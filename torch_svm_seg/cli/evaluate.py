"""Score folders of predicted masks: IoU of each class and its mean, side by side with the paper's Table 1.

How to run, after ``expand.py --out runs/voc``:

    python evaluate.py --root /data --predictions runs/voc
    python evaluate.py --root /data --predictions runs/voc/F1 other/masks --out results --json results.json

One HTML page of what each step gains over the one before, in the order given:

    python evaluate.py --root /data --predictions runs/weak/seed runs/weak/F3 runs/weak/F3+crf --report runs/report
"""

import argparse
import json
import math
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

from tqdm import tqdm

from torch_svm_seg.cam.activation import ActivationMaps
from torch_svm_seg.cam.forms import CAM_FORMS
from torch_svm_seg.cam.io import read_cams
from torch_svm_seg.cli.command import exit_code_of
from torch_svm_seg.cli.options.data import DataOptions
from torch_svm_seg.cli.options.option import Parser, add_options, flag, group, option, read_options
from torch_svm_seg.data.constants import VOC_CLASSES
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import write_text_atomically
from torch_svm_seg.data.mask_forms import MASK_FORMS
from torch_svm_seg.evaluation.boundaries import far_from_boundaries, near_boundaries
from torch_svm_seg.evaluation.scoring import FolderScore, find_folders, score_folders, score_readable
from torch_svm_seg.evaluation.tables import (
    PAPER_TABLE_1,
    Row,
    csv_table,
    latex_table,
    markdown_table,
    paper_row,
    text_table,
)
from torch_svm_seg.report import Report, Step, write_report
from torch_svm_seg.report.settings import run_settings

PAPER_NOTE = (
    "(paper): published by Lyu et al., ICPRAM 2024, Table 1, not measured here; all 1,464 images of VOC 2012 train,"
    " ResNet-50 trained with SIPE; mean over all 21 classes."
)
EXIT_CODES = (
    "exit code: 0 if every image was scored in every folder; 1 if a prediction is missing or bad, and the figures"
    " are over the others; 2 if the arguments or the data cannot be used"
)


@dataclass(frozen=True)
class ScoreOptions:
    """The masks to score."""

    title: ClassVar = "scoring"

    predictions: tuple[Path, ...] = option(
        metavar="DIR",
        help="folders that hold ID.png for each image; a folder of such folders, as expand.py writes it, stands "
        "for all of them. A folder named img or F1 to F5 is shown with the paper's row if the classes are VOC's",
    )
    predictions_form: str | None = option(
        None, choices=tuple(MASK_FORMS), help="form of the predictions, where masks do not tell; see --masks-form"
    )
    boundary: int | None = option(
        None,
        metavar="PIXELS",
        at_least=1,
        help="also show the mean IoU of the pixels this near to boundaries of the ground truth, and of the others",
    )
    out: Path | None = option(None, metavar="DIR", help="write results.md, results.csv and results.tex here")
    json: Path | None = option(
        None,
        metavar="FILE",
        help="write the figures here, from 0 to 1, null for a class that is in neither masks nor predictions: "
        '{"NAME": {"miou": ..., "per_class": {"CLASS": ...}, "images": scored, "missing": ..., "bad": ...}}',
    )


@dataclass(frozen=True)
class ReportOptions:
    """The page about the masks."""

    title: ClassVar = "report"

    report: Path | None = option(
        None,
        metavar="DIR",
        help="write DIR/report.html, one page that needs nothing else: each of --predictions against the one before it",
    )
    step: str | None = option(
        None,
        metavar="NAME",
        help="which of --predictions, by its name in the table, ranks the images of the report and is shown as "
        "confusion matrix (default: the last)",
    )
    gallery: int = option(
        3,
        metavar="N",
        at_least=0,
        help="images to show of each kind, best, median and worst (default: 3; one takes about 100 kB)",
    )
    cams: Path | None = option(None, metavar="DIR", help="show these class activation maps, too")
    cams_form: str | None = option(None, choices=tuple(CAM_FORMS), help="form of other code bases' files in --cams")

    def check(self, names: Iterable[str]) -> None:
        """Raise InputError where an option contradicts another one, or the names of the scored folders."""
        if self.report is None:
            for name in ("step", "cams", "cams_form"):
                if getattr(self, name):
                    raise InputError(f"{flag(name)}: works only together with --report")
        if self.step is not None and self.step not in names:
            raise InputError(f"--step: expected one of {', '.join(names)}, got {self.step!r}")
        if self.cams is not None and not self.cams.is_dir():
            raise InputError(f"--cams: {self.cams}: not a folder")


@dataclass(frozen=True)
class Settings:
    """Settings of the command."""

    data: DataOptions = group()
    scoring: ScoreOptions = group()
    report: ReportOptions = group()


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = Parser(
        description="Score folders of predicted masks (ID.png, class ids, 255 for unsure) against the ground truth: "
        "one confusion matrix per folder over the whole data set, void pixels left out, mean over the classes present.",
        epilog=EXIT_CODES,
    )
    add_options(parser, Settings)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    args = build_parser().parse_args(argv)

    def work(rank: int, processes: int) -> int:
        return run(read_options(Settings, args), rank, processes)

    return exit_code_of("evaluate.py", work, "what was not written is as it was")


def run(settings: Settings, rank: int = 0, processes: int = 1) -> int:
    """Score, print, write, on the first process alone; return the exit code."""
    if rank != 0:
        return 0
    dataset, scoring = settings.data.open(), settings.scoring
    folders = find_folders(scoring.predictions, dataset.ids)
    settings.report.check(folders)
    scores, unreadable = _score_all(dataset, folders, scoring.predictions_form)
    dataset = dataset.subset(index for index, id in enumerate(dataset.ids) if id not in unreadable)
    rows = _rows(scores, dataset.class_names, folders)
    if scoring.boundary is not None:
        rows = _with_boundaries(rows, dataset, folders, scoring.boundary)
    notes = [*_notes(rows, scores, len(dataset)), *_unreadable(unreadable), *dataset.notes.lines()]
    width = shutil.get_terminal_size(fallback=(200, 24)).columns  # the fallback is for files and pipes
    print("\n".join([text_table(rows, dataset.class_names, width), "", *notes]))
    if scoring.out:
        _write_tables(scoring.out, rows, dataset.class_names, notes)
    if scoring.json:
        write_text_atomically(scoring.json, json.dumps(_figures(scores, dataset.class_names), indent=2) + "\n")
    if settings.report.report:
        path = settings.report.report / "report.html"
        write_report(path, _report(settings, dataset, folders, scores))
        print(f"report: {path}")
    return 0 if all(score.complete for score in scores.values()) and not unreadable else 1


def _report(
    settings: Settings, dataset: ImageDataset, folders: dict[str, Path], scores: dict[str, FolderScore]
) -> Report:
    options = settings.report

    def cams(id: str, size: tuple[int, int]) -> ActivationMaps:
        return read_cams(options.cams or "", id, size, dataset.class_names, options.cams_form)

    steps = {name: Step(name, folder, scores[name]) for name, folder in folders.items()}
    return Report(
        dataset,
        settings.data.described,
        list(steps.values()),
        steps[options.step] if options.step else list(steps.values())[-1],
        options.gallery,
        None if options.cams is None else cams,
        _problems(scores, len(dataset)) or ["Every image was scored in every folder."],
    )


def _score_all(
    dataset: ImageDataset, folders: dict[str, Path], form: str | None
) -> tuple[dict[str, FolderScore], dict[str, str]]:
    """Return the score of each folder, and why some ground truth cannot be read."""
    with tqdm(total=len(folders) * len(dataset), unit="mask", disable=None, leave=False) as bar:
        scores, unreadable = score_readable(dataset, list(folders.values()), bar.update, form=form)
    return dict(zip(folders, scores, strict=True)), unreadable


def _unreadable(problems: dict[str, str]) -> list[str]:
    reasons = [f"{id} ({reason})" for id, reason in problems.items()]
    return (
        [f"images without a ground truth that can be read ({len(reasons)}): {_shortened(reasons)}"] if reasons else []
    )


def _rows(scores: dict[str, FolderScore], class_names: Sequence[str], folders: dict[str, Path]) -> list[Row]:
    """A row for each folder, followed by the paper's where there is one: it is an upper bound, not for seeds."""
    rows = []
    for name, score in scores.items():
        rows.append(Row(name, score.per_class.tolist(), score.miou, {"images": str(score.images)}))
        feature = name.split("/")[-1]
        comparable = tuple(class_names) == tuple(VOC_CLASSES) and not _from_seeds(folders[name])
        if feature in PAPER_TABLE_1 and comparable:
            rows.append(replace(paper_row(feature), extra={"images": "1464"}))
    return rows


def _from_seeds(folder: Path) -> bool:
    """Return whether a folder's record says that its masks were not made from ground truth."""
    return run_settings(folder).get("supervision") == "seed"


def _with_boundaries(rows: Sequence[Row], dataset: ImageDataset, folders: dict[str, Path], width: int) -> list[Row]:
    """The rows with the mean IoU near boundaries and far from them."""
    parts = {f"up to {width} px": near_boundaries, f"over {width} px": far_from_boundaries}
    extra: dict[str, dict[str, str]] = {name: {} for name in folders}
    for head, part in parts.items():
        scores = score_folders(dataset, list(folders.values()), scored=partial(part, width=width))
        for name, score in zip(folders, scores, strict=True):
            extra[name][head] = f"{100 * score.miou:.2f}"
    return [replace(row, extra={**row.extra, **extra.get(row.name, {})}) for row in rows]


def _notes(rows: Sequence[Row], scores: dict[str, FolderScore], images: int) -> list[str]:
    """Return the notes under the table."""
    notes = ["IoU in percent; mean: over the classes in masks or predictions; images: number scored."]
    if any(row.published for row in rows):
        notes.append(PAPER_NOTE)
    return [*notes, *_problems(scores, images)]


def _problems(scores: dict[str, FolderScore], images: int) -> list[str]:
    """Return the notes on what could not be scored, or was not asked for."""
    problems = []
    for name, score in scores.items():
        if not score.complete:
            problems.append(f"{name}: only {score.images} of {images} images scored, the others left out.")
        if score.missing:
            problems.append(f"{name}: missing predictions ({len(score.missing)}): {_shortened(score.missing)}")
        if score.problems:
            reasons = [f"{id} ({reason})" for id, reason in score.problems.items()]
            problems.append(f"{name}: bad predictions ({len(reasons)}): {_shortened(reasons)}")
        if score.extra:
            problems.append(f"{name}: ignored PNGs of no image ({len(score.extra)}): {_shortened(score.extra)}")
    return problems


def _shortened(items: Sequence[str], most: int = 5) -> str:
    return ", ".join(items[:most]) + (", ..." if len(items) > most else "")


def _write_tables(folder: Path, rows: Sequence[Row], class_names: Sequence[str], notes: Sequence[str]) -> None:
    markdown = markdown_table(rows, class_names) + "".join(f"\n{note}\n" for note in notes)
    latex = "".join(f"% {note}\n" for note in notes) + latex_table(rows, class_names)
    write_text_atomically(folder / "results.md", markdown)
    write_text_atomically(folder / "results.csv", csv_table(rows, class_names))
    write_text_atomically(folder / "results.tex", latex)


def _figures(scores: dict[str, FolderScore], class_names: Sequence[str]) -> dict[str, dict[str, object]]:
    """Return the content of --json."""
    return {
        name: {
            "miou": _number(score.miou),
            "per_class": dict(zip(class_names, map(_number, score.per_class.tolist()), strict=True)),
            "images": score.images,
            "missing": len(score.missing),
            "bad": len(score.problems),
        }
        for name, score in scores.items()
    }


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else value
