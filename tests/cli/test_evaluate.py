"""evaluate.py on a tiny VOC, from the command line to the files it writes."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from torch_svm_seg.cli.evaluate import main
from torch_svm_seg.data.constants import VOC_CLASSES
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import save_mask
from torch_svm_seg.data.voc import voc2012
from torch_svm_seg.evaluation.scoring import score_folders
from torch_svm_seg.evaluation.tables import PAPER_TABLE_1

Change = Callable[[torch.Tensor], torch.Tensor]


def write_predictions(dataset: ImageDataset, folder: Path, change: Change = lambda mask: mask) -> Path:
    """The ground truth, changed, as predictions."""
    for index, id in enumerate(dataset.ids):
        save_mask(folder / f"{id}.png", change(dataset.mask(index)))
    return folder


def only_background(mask: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(mask)


def classes_in(mask: torch.Tensor) -> list[int]:
    """The class ids of a mask, without void."""
    return sorted(set(mask.flatten().tolist()) - {255})


@pytest.fixture
def dataset(tiny_voc: Path) -> ImageDataset:
    return voc2012(tiny_voc, "train")


def test_ground_truth_scores_one(dataset: ImageDataset, tmp_path: Path) -> None:
    (score,) = score_folders(dataset, [write_predictions(dataset, tmp_path)])
    present = sorted({id for index in range(len(dataset)) for id in classes_in(dataset.mask(index))})
    assert len(present) > 1
    assert score.per_class[present].tolist() == [1] * len(present)
    assert int(score.per_class.isnan().sum()) == 21 - len(present)
    assert (score.miou, score.images, score.complete) == (1, 3, True)


def test_background_only_scores_its_share(dataset: ImageDataset, tmp_path: Path) -> None:
    (score,) = score_folders(dataset, [write_predictions(dataset, tmp_path, only_background)])
    masks = [dataset.mask(index) for index in range(len(dataset))]
    background = sum(int((mask == 0).sum()) for mask in masks)
    labelled = sum(int((mask != 255).sum()) for mask in masks)
    assert float(score.per_class[0]) == pytest.approx(background / labelled, rel=1e-15)
    classes = (~score.per_class.isnan()).sum()
    assert score.miou == pytest.approx(background / labelled / int(classes), rel=1e-15)


def test_what_cannot_be_scored_is_left_out_and_reported(dataset: ImageDataset, tmp_path: Path) -> None:
    folder = write_predictions(dataset, tmp_path / "masks")
    first, second, _ = dataset.ids
    (folder / f"{first}.png").unlink()
    save_mask(folder / f"{second}.png", torch.zeros(3, 5, dtype=torch.uint8))
    save_mask(folder / "stranger.png", torch.zeros(3, 5, dtype=torch.uint8))
    calls: list[None] = []
    (score,) = score_folders(dataset, [folder], lambda: calls.append(None))
    assert score.missing == (first,)
    assert list(score.problems) == [second]
    assert "(60, 80), got (3, 5)" in score.problems[second]
    assert score.extra == ("stranger",)
    assert (score.images, score.miou, score.complete) == (1, 1, False)
    assert len(calls) == 3
    assert [id for id, iou in enumerate(score.per_class.tolist()) if iou == 1] == classes_in(dataset.mask(2))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: save_mask(path, torch.full((60, 80), 21)), "0 to 20 or 255, got 21"),
        (lambda path: path.write_bytes(b"no image"), "not an image"),
        (lambda path: Image.new("RGB", (80, 60)).save(path), "colour"),
        (lambda path: path.write_bytes(path.read_bytes()[:60]), ".png"),
    ],
    ids=["unknown class", "no image", "colours", "cut off"],
)
def test_reasons(dataset: ImageDataset, tmp_path: Path, spoil: Callable[[Path], object], reason: str) -> None:
    write_predictions(dataset, tmp_path)
    spoil(tmp_path / f"{dataset.ids[1]}.png")
    (score,) = score_folders(dataset, [tmp_path])
    assert reason in score.problems[dataset.ids[1]]
    assert score.images == 2


def test_broken_ground_truth_is_no_fault_of_the_predictions(
    dataset: ImageDataset, tiny_voc: Path, tmp_path: Path
) -> None:
    write_predictions(dataset, tmp_path)
    truth = tiny_voc / "VOCdevkit" / "VOC2012" / "SegmentationClass" / f"{dataset.ids[0]}.png"
    truth.write_bytes(b"no image")
    with pytest.raises(InputError, match="SegmentationClass"):
        score_folders(dataset, [tmp_path])


def test_main_expands_a_run_in_the_paper_s_order_and_shows_its_rows(
    dataset: ImageDataset, tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    for name in ("joined", "F10", "F2", "img"):
        write_predictions(dataset, run / name, only_background if name == "F2" else lambda mask: mask)
    (run / "run.json").write_text("{}")
    (run / "empty").mkdir()
    out, figures = tmp_path / "out", tmp_path / "new" / "figures.json"
    assert main(["--root", str(tiny_voc), "--predictions", str(run), "--out", str(out), "--json", str(figures)]) == 0

    names = ["img", "img (paper)", "F2", "F2 (paper)", "F10", "joined"]
    printed = capsys.readouterr().out
    table = printed.split("\n\n")[0].splitlines()
    assert [line.split("  ")[0].strip() for line in table] == ["feature", *names]
    assert table[0].split() == ["feature", "bkg", "cat", "person", "mean", "images"]
    assert table[1].split()[1:] == ["100.00", "100.00", "100.00", "100.00", "3"]
    assert table[2].split()[2:] == ["86.98", "77.31", "68.02", "65.97", "1464"]
    assert "not measured here" in printed

    rows = list(csv.DictReader((out / "results.csv").open()))
    assert [row["feature"] for row in rows] == names
    assert rows[1]["mean"] == f"{PAPER_TABLE_1['img']['mean']:.2f}"
    assert (rows[0]["cat"], rows[0]["aero"]) == ("100.00", "")
    assert "| F2 (paper) | 98.65 |" in (out / "results.md").read_text()
    assert "not measured here" in (out / "results.md").read_text()
    assert "F2 (paper) & 98.65 &" in (out / "results.tex").read_text()

    written = json.loads(figures.read_text())
    assert list(written) == ["img", "F2", "F10", "joined"]
    assert list(written["img"]["per_class"]) == list(VOC_CLASSES)
    assert written["img"]["per_class"]["cat"] == 1
    assert written["img"]["per_class"]["aeroplane"] is None
    (expected,) = score_folders(dataset, [run / "F2"])
    assert written["F2"]["miou"] == expected.miou < 1
    assert {key: written["F2"][key] for key in ("images", "missing", "bad")} == {"images": 3, "missing": 0, "bad": 0}


def test_main_reports_what_is_missing_and_exits_with_one(
    dataset: ImageDataset, tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_predictions(dataset, tmp_path / "masks")
    (folder / f"{dataset.ids[0]}.png").unlink()
    (folder / f"{dataset.ids[1]}.png").write_bytes(b"")
    save_mask(folder / "stranger.png", torch.zeros(2, 2, dtype=torch.uint8))
    assert main(["--root", str(tiny_voc), "--predictions", str(folder)]) == 1
    printed = capsys.readouterr().out
    assert "masks: only 1 of 3 images scored" in printed
    assert f"masks: missing predictions (1): {dataset.ids[0]}" in printed
    assert f"masks: bad predictions (1): {dataset.ids[1]} (" in printed
    assert "masks: ignored PNGs of no image (1): stranger" in printed
    assert "(paper)" not in printed


def test_extra_predictions_alone_are_no_failure(dataset: ImageDataset, tiny_voc: Path, tmp_path: Path) -> None:
    folder = write_predictions(dataset, tmp_path / "masks")
    save_mask(folder / "stranger.png", torch.zeros(2, 2, dtype=torch.uint8))
    assert main(["--root", str(tiny_voc), "--predictions", str(folder)]) == 0


def test_nothing_scored_is_null_in_json(dataset: ImageDataset, tiny_voc: Path, tmp_path: Path) -> None:
    save_mask(tmp_path / "masks" / "stranger.png", torch.zeros(2, 2, dtype=torch.uint8))
    figures = tmp_path / "figures.json"
    assert main(["--root", str(tiny_voc), "--predictions", str(tmp_path / "masks"), "--json", str(figures)]) == 1
    written = json.loads(figures.read_text())["masks"]
    assert written["miou"] is None
    assert (written["images"], written["missing"]) == (0, len(dataset))


def test_equal_names_are_told_apart(
    dataset: ImageDataset, tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [write_predictions(dataset, tmp_path / run / "F1") for run in ("first", "second")]
    arguments = [*map(str, folders), str(folders[0])]  # one of them twice: scored once
    assert main(["--root", str(tiny_voc), "--predictions", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:5]] == ["first/F1", "F1", "second/F1", "F1"]


def test_own_classes_get_no_paper_row(
    dataset: ImageDataset, tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    voc = tiny_voc / "VOCdevkit" / "VOC2012"
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"kind {index}" for index in range(21)))
    own = ["--images", str(voc / "JPEGImages"), "--masks", str(voc / "SegmentationClass"), "--class-names", str(names)]
    ids = tmp_path / "ids.txt"
    ids.write_text("\n".join(dataset.ids))
    folder = write_predictions(dataset, tmp_path / "F1")
    assert main([*own, "--list", str(ids), "--predictions", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "kind 15" in printed
    assert "(paper)" not in printed


def test_predictions_in_subfolders_belong_to_ids_with_subfolders(tmp_path: Path) -> None:
    images, masks = tmp_path / "images", tmp_path / "masks"
    (images / "birds").mkdir(parents=True)
    Image.new("RGB", (6, 4)).save(images / "birds" / "17.jpg")
    save_mask(masks / "birds" / "17.png", torch.ones(4, 6, dtype=torch.uint8))
    ids = tmp_path / "ids.txt"
    ids.write_text("birds/17")
    figures = tmp_path / "figures.json"
    own = ["--images", str(images), "--masks", str(masks), "--list", str(ids)]
    assert main([*own, "--predictions", str(masks), "--json", str(figures)]) == 0
    assert json.loads(figures.read_text())["masks"]["images"] == 1


@pytest.mark.parametrize("folder", ["absent", "empty"])
def test_bad_folder_is_one_line_and_exit_code_two(
    folder: str, tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["--root", str(tiny_voc), "--predictions", str(tmp_path / folder)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("evaluate.py: error: ")
    assert str(tmp_path / folder) in captured.err
    assert captured.err.count("\n") == 1


def test_unwritable_out_is_one_line_and_exit_code_two(
    dataset: ImageDataset, tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_predictions(dataset, tmp_path / "masks")
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert main(["--root", str(tiny_voc), "--predictions", str(folder), "--out", str(blocked)]) == 2
    error = capsys.readouterr().err
    assert str(blocked) in error
    assert error.count("\n") == 1


def test_data_set_without_masks(
    dataset: ImageDataset, tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_predictions(dataset, tmp_path / "masks")
    images = str(tiny_voc / "VOCdevkit" / "VOC2012" / "JPEGImages")
    assert main(["--images", images, "--predictions", str(folder)]) == 2
    assert "no masks" in capsys.readouterr().err


def test_help_explains_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    assert "missing or bad" in capsys.readouterr().out


def test_real_ground_truth_scores_one(voc_root: Path) -> None:
    real = voc2012(voc_root, "val").subset(range(40))
    (score,) = score_folders(real, [voc_root / "VOCdevkit" / "VOC2012" / "SegmentationClass"])
    assert (score.miou, score.images) == (1, 40)


def test_the_papers_upper_bound_is_not_set_beside_masks_from_seeds(
    tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny_voc / "VOCdevkit" / "VOC2012" / "SegmentationClass", tmp_path / "run" / "F4")
    flags = ["--root", str(tiny_voc), "--predictions", str(tmp_path / "run" / "F4")]
    for supervision, shown in (("ground-truth", True), ("seed", False)):
        (tmp_path / "run" / "run.json").write_text(json.dumps({"settings": {"supervision": supervision}}))
        assert main(flags) == 0
        assert ("F4 (paper)" in capsys.readouterr().out) == shown
