"""Score folders of predicted masks: IoU of each class and its mean, side by side with the paper's Table 1.

How to run, after ``expand.py --out runs/voc``:

    python evaluate.py --root /data --predictions runs/voc
    python evaluate.py --root /data --predictions runs/voc/F1 other/masks --out results --json results.json
"""

import argparse
import json
import math
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import count, product
from pathlib import Path

from torch_svm_seg.arguments import add_data_arguments, open_dataset
from torch_svm_seg.boundaries import far_from_boundaries, near_boundaries
from torch_svm_seg.datasets import VOC_CLASSES, PhotographDataset
from torch_svm_seg.files import InputError, write_text_atomically
from torch_svm_seg.scoring import FolderScore, score_folder
from torch_svm_seg.tables import PAPER_TABLE_1, Row, csv_table, latex_table, markdown_table, paper_row, text_table

PAPER_NOTE = (
    "(paper): published by Lyu et al., ICPRAM 2024, Table 1, not measured here; all 1,464 images of VOC 2012 train,"
    " ResNet-50 trained with SIPE; mean over all 21 classes."
)
EXIT_CODES = (
    "exit code: 0 if every photograph was scored in every folder; 1 if a prediction is missing or bad, and the figures"
    " are over the others; 2 if the arguments or the data cannot be used"
)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Score folders of predicted masks (ID.png, class ids, 255 for unsure) against the ground truth: "
        "one confusion matrix a folder over the whole data set, void pixels left out, mean over the classes present.",
        epilog=EXIT_CODES,
    )
    add_data_arguments(parser)
    group = parser.add_argument_group("scoring")
    group.add_argument(
        "--predictions",
        type=Path,
        nargs="+",
        required=True,
        metavar="DIR",
        help="folders that hold ID.png for each photograph; a folder of such folders, as expand.py writes it, stands "
        "for all of them. A folder named img or F1 to F5 is shown with the paper's row if the classes are VOC's",
    )
    group.add_argument(
        "--boundary",
        type=int,
        metavar="PIXELS",
        help="also show the mean IoU of the pixels this near to boundaries of the ground truth, and of the others",
    )
    group.add_argument("--out", type=Path, metavar="DIR", help="write results.md, results.csv and results.tex here")
    group.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write the figures here, from 0 to 1, null for a class that is in neither masks nor predictions: "
        '{"NAME": {"miou": ..., "per_class": {"CLASS": ...}, "images": scored, "missing": ..., "bad": ...}}',
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = build_parser().parse_args(argv)
    try:
        return evaluate(args)
    except (InputError, OSError) as error:
        print(f"evaluate.py: error: {error}", file=sys.stderr)
        return 2


def evaluate(args: argparse.Namespace) -> int:
    """Score, print, write; returns the exit code."""
    dataset = open_dataset(args)
    folders = _named(_expanded(args.predictions, dataset.ids))
    scores = _score_all(dataset, folders)
    rows = _rows(scores, dataset.class_names)
    if args.boundary is not None:
        rows = _with_boundaries(rows, dataset, folders, args.boundary)
    notes = _notes(rows, scores, len(dataset))
    width = shutil.get_terminal_size(fallback=(200, 24)).columns  # the fallback is for files and pipes
    print("\n".join([text_table(rows, dataset.class_names, width), "", *notes]))
    if args.out:
        _write_tables(args.out, rows, dataset.class_names, notes)
    if args.json:
        write_text_atomically(args.json, json.dumps(_figures(scores, dataset.class_names), indent=2) + "\n")
    return 0 if all(score.complete for score in scores.values()) else 1


def _expanded(folders: Sequence[Path], ids: Sequence[str]) -> list[Path]:
    """The folders that hold masks: those given, or else their subfolders, the paper's features first."""
    found: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder}: not a folder")
        # The ids, for a folder of runs may hold pictures of its own, and "birds/17" lies in a subfolder itself.
        if any((folder / f"{id}.png").is_file() for id in ids):
            found.append(folder)
        elif holders := [path for path in folder.iterdir() if path.is_dir() and any(path.rglob("*.png"))]:
            found += sorted(holders, key=_paper_order)
        elif any(folder.glob("*.png")):
            found.append(folder)  # all of its predictions are missing, which the summary tells
        else:
            raise InputError(f"{folder}: neither it nor a folder in it holds a PNG")
    return list(dict.fromkeys(Path(os.path.abspath(path)) for path in found))


def _paper_order(folder: Path) -> tuple[int, str]:
    features = list(PAPER_TABLE_1)
    return (features.index(folder.name) if folder.name in features else len(features), folder.name)


def _named(folders: Sequence[Path]) -> dict[str, Path]:
    """Each folder by its own name, with as many parents before it as it takes to tell all apart."""
    depth = next(depth for depth in count(1) if len({folder.parts[-depth:] for folder in folders}) == len(folders))
    return {"/".join(folder.parts[-depth:]): folder for folder in folders}


def _score_all(dataset: PhotographDataset, folders: dict[str, Path]) -> dict[str, FolderScore]:
    from tqdm import tqdm

    with tqdm(total=len(folders) * len(dataset), unit="mask", disable=None, leave=False) as bar:
        return {name: score_folder(dataset, folder, bar.update) for name, folder in folders.items()}


def _rows(scores: dict[str, FolderScore], class_names: Sequence[str]) -> list[Row]:
    """A row for each folder, followed by the paper's where there is one."""
    rows = []
    for name, score in scores.items():
        rows.append(Row(name, score.per_class.tolist(), score.miou, {"images": str(score.images)}))
        feature = name.split("/")[-1]
        if feature in PAPER_TABLE_1 and tuple(class_names) == tuple(VOC_CLASSES):
            rows.append(replace(paper_row(feature), extra={"images": "1464"}))
    return rows


def _with_boundaries(
    rows: Sequence[Row], dataset: PhotographDataset, folders: dict[str, Path], width: int
) -> list[Row]:
    """The rows with the mean IoU near boundaries and far from them."""
    if width < 1:
        raise InputError(f"--boundary: expected at least 1, got {width}")
    parts = {f"up to {width} px": near_boundaries, f"over {width} px": far_from_boundaries}
    extra: dict[str, dict[str, str]] = {name: {} for name in folders}
    for (name, folder), (head, part) in product(folders.items(), parts.items()):
        miou = score_folder(dataset, folder, scored=partial(part, width=width)).miou
        extra[name][head] = f"{100 * miou:.2f}"
    return [replace(row, extra={**row.extra, **extra.get(row.name, {})}) for row in rows]


def _notes(rows: Sequence[Row], scores: dict[str, FolderScore], images: int) -> list[str]:
    """What a reader of the table has to know."""
    notes = ["IoU in percent; mean: over the classes in masks or predictions; images: number scored."]
    if any(row.published for row in rows):
        notes.append(PAPER_NOTE)
    for name, score in scores.items():
        if not score.complete:
            notes.append(f"{name}: only {score.images} of {images} photographs scored, the others left out.")
        if score.missing:
            notes.append(f"{name}: missing predictions ({len(score.missing)}): {_shortened(score.missing)}")
        if score.problems:
            reasons = [f"{id} ({reason})" for id, reason in score.problems.items()]
            notes.append(f"{name}: bad predictions ({len(reasons)}): {_shortened(reasons)}")
        if score.extra:
            notes.append(f"{name}: ignored PNGs of no photograph ({len(score.extra)}): {_shortened(score.extra)}")
    return notes


def _shortened(items: Sequence[str], most: int = 5) -> str:
    return ", ".join(items[:most]) + (", ..." if len(items) > most else "")


def _write_tables(folder: Path, rows: Sequence[Row], class_names: Sequence[str], notes: Sequence[str]) -> None:
    markdown = markdown_table(rows, class_names) + "".join(f"\n{note}\n" for note in notes)
    latex = "".join(f"% {note}\n" for note in notes) + latex_table(rows, class_names)
    write_text_atomically(folder / "results.md", markdown)
    write_text_atomically(folder / "results.csv", csv_table(rows, class_names))
    write_text_atomically(folder / "results.tex", latex)


def _figures(scores: dict[str, FolderScore], class_names: Sequence[str]) -> dict[str, dict[str, object]]:
    """What --json writes."""
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


if __name__ == "__main__":
    sys.exit(main())
