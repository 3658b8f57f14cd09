"""expand.py with points, scribbles and boxes, from the command line to masks."""

import json
from pathlib import Path

import pytest
import torch
from conftest import CAT, PERSON, TINY_IDS, VOID

from torch_svm_seg.cli.expand import main
from torch_svm_seg.cli.train import main as train
from torch_svm_seg.data.io import read_mask, save_mask
from torch_svm_seg.training.checkpoints import read_checkpoint

TRAIN = TINY_IDS[:3]


def run(root: Path, out: Path, *more: str) -> int:
    return main(["--root", str(root), "--out", str(out), "--features", "img+F1", *more])


def truth(root: Path, id: str) -> torch.Tensor:
    return read_mask(root / "VOCdevkit/VOC2012/SegmentationClass" / f"{id}.png")


def middle(mask: torch.Tensor, class_id: int) -> tuple[int, int]:
    """Row and column of a pixel of a class."""
    pixels = (mask == class_id).nonzero()
    row, column = pixels[len(pixels) // 2].tolist()
    return row, column


def write_points(
    root: Path, path: Path, ids: tuple[str, ...] = TRAIN, classes: tuple[int, ...] = (0, CAT, PERSON)
) -> None:
    points = {}
    for id in ids:
        mask = truth(root, id)
        clicks = [(middle(mask, class_id), class_id) for class_id in classes if bool((mask == class_id).any())]
        points[id] = [{"x": column + 0.5, "y": row + 0.5, "cls": class_id} for (row, column), class_id in clicks]
    path.write_text(json.dumps(points))


def accuracy(root: Path, out: Path, id: str) -> float:
    mask, expected = read_mask(out / "img+F1" / f"{id}.png"), truth(root, id)
    return float((mask == expected)[expected != VOID].float().mean())


def test_a_click_of_each_class_gives_a_mask(tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_points(tiny_voc, tmp_path / "points.json")
    assert run(tiny_voc, tmp_path / "out", "--supervision", "points", "--points", str(tmp_path / "points.json")) == 0
    assert "3 images expanded" in capsys.readouterr().out
    assert min(accuracy(tiny_voc, tmp_path / "out", id) for id in TRAIN) > 0.9
    settings = json.loads((tmp_path / "out" / "run.json").read_text())["settings"]
    assert settings["kernel"] == "linear" and settings["supervision"] == "points"


@pytest.mark.parametrize("helped", [False, True])
def test_clicks_of_one_class_alone_label_the_whole_image(tiny_voc: Path, tmp_path: Path, helped: bool) -> None:
    network = ["--backbone", "resnet18", "--weights", "random", "--features", "F1+F2"]
    if helped:
        write_points(tiny_voc, tmp_path / "all.json")
        assert fit_points(tiny_voc, tmp_path / "all.json", tmp_path / "pixels") == 0
        network = ["--pixels", str(tmp_path / "pixels" / "checkpoint.pt")]
    write_points(tiny_voc, tmp_path / "points.json", TRAIN, (0,))
    points = ["--supervision", "points", "--points", str(tmp_path / "points.json")]
    out = ["--refine", "none", "crf", "--out", str(tmp_path / "out")]
    assert main(["--root", str(tiny_voc), *points, *network, *out]) == 0
    for name in ("F1+F2", "F1+F2+crf"):
        assert not read_mask(tmp_path / "out" / name / f"{TRAIN[0]}.png").any()


def test_missing_points_and_backgrounds_are_said(
    tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_points(tiny_voc, tmp_path / "points.json", TRAIN[:2], (CAT, PERSON))
    assert run(tiny_voc, tmp_path / "out", "--supervision", "points", "--points", str(tmp_path / "points.json")) == 1
    printed = capsys.readouterr()
    assert f"{TRAIN[2]}: has no points" in (printed.out + printed.err).replace(f"{TRAIN[2]}: {TRAIN[2]}", TRAIN[2])
    assert "no label of the background" in printed.out + printed.err


def test_scribbles_give_masks(tiny_voc: Path, tmp_path: Path) -> None:
    for id in TRAIN:
        mask = truth(tiny_voc, id)
        drawn = torch.full_like(mask, VOID)
        drawn[30] = mask[30]
        drawn[:, 20] = mask[:, 20]
        drawn[5] = mask[5]
        save_mask(tmp_path / "scribbles" / f"{id}.png", drawn)
    flags = ["--supervision", "scribbles", "--scribbles", str(tmp_path / "scribbles")]
    assert run(tiny_voc, tmp_path / "out", *flags) == 0
    assert min(accuracy(tiny_voc, tmp_path / "out", id) for id in TRAIN) > 0.9


def write_boxes(root: Path, folder: Path) -> dict[tuple[str, int], tuple[int, int, int, int]]:
    """Write the box of each class; return top, left, bottom and right by image and class."""
    bounds = {}
    folder.mkdir(exist_ok=True)
    for id in TRAIN:
        lines, mask = [], truth(root, id)
        for class_id, name in ((CAT, "cat"), (PERSON, "person")):
            pixels = (mask == class_id).nonzero()
            if not len(pixels):
                continue
            (top, left), (bottom, right) = pixels.amin(0).tolist(), pixels.amax(0).tolist()
            bounds[id, class_id] = (top, left, bottom, right)
            sides = f"<xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{right + 1}</xmax><ymax>{bottom + 1}</ymax>"
            lines.append(f"<object><name>{name}</name><bndbox>{sides}</bndbox></object>")
        (folder / f"{id}.xml").write_text(f"<annotation>{''.join(lines)}</annotation>")
    return bounds


def test_boxes_bound_their_objects(tiny_voc: Path, tmp_path: Path) -> None:
    bounds = write_boxes(tiny_voc, tmp_path / "boxes")
    assert run(tiny_voc, tmp_path / "out", "--supervision", "boxes", "--boxes", str(tmp_path / "boxes")) == 0
    settings = json.loads((tmp_path / "out" / "run.json").read_text())["settings"]
    assert (settings["C"], settings["samples_per_class"]) == (1e-4, 200)
    for (id, class_id), (top, left, bottom, right) in bounds.items():
        pixels = (read_mask(tmp_path / "out" / "img+F1" / f"{id}.png") == class_id).nonzero()
        assert len(pixels)
        assert pixels.amin(0).tolist() >= [top, left] and pixels[:, 1].min() >= left
        assert pixels[:, 0].max() <= bottom and pixels[:, 1].max() <= right


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--supervision", "points"], "--supervision points: needs --points"),
        (["--points", "lost.json"], "--points: only with --supervision points"),
        (["--supervision", "points", "--points", "lost.json"], "lost.json"),
        (["--supervision", "scribbles", "--scribbles", "lost"], "lost: not a folder"),
        (["--supervision", "boxes", "--boxes", "lost"], "lost: no such file or folder"),
        (["--supervision", "points", "--points", "unknown.csv"], "unknown class 'unicorn'"),
        (["--supervision", "points", "--points", "unknown.csv", "--radius", "-1"], "--radius: expected 0 to 1000"),
    ],
)
def test_unusable_files_are_one_error_that_names_them(
    flags: list[str],
    message: str,
    tiny_voc: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("unknown.csv").write_text(f"id,x,y,class\n{TRAIN[0]},3,3,unicorn\n")
    assert run(tiny_voc, tmp_path / "out", *flags) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("expand.py: error:") and message in error and "\n" not in error


def fit_points(root: Path, points: Path, out: Path, *more: str) -> int:
    flags = ["--points", str(points), "--features", "F1+F2", "--backbone", "resnet18", "--weights", "random"]
    return train(["pixels", "--root", str(root), "--out", str(out), *flags, *more])


def test_labels_of_all_images_help_each(tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points, fitted = tmp_path / "points.json", tmp_path / "pixels" / "checkpoint.pt"
    write_points(tiny_voc, points)
    assert fit_points(tiny_voc, points, tmp_path / "pixels") == 0
    assert f"3 images, 0 skipped; the classifier is {fitted}" in capsys.readouterr().out
    given = ["--root", str(tiny_voc), "--supervision", "points", "--points", str(points)]
    assert main([*given, "--pixels", str(fitted), "--out", str(tmp_path / "helped")]) == 0
    settings = json.loads((tmp_path / "helped" / "run.json").read_text())["settings"]
    assert (settings["features"], settings["backbone"]) == (["F1+F2"], "resnet18")

    network = ["--backbone", "resnet18", "--weights", "random", "--features", "F1+F2"]
    assert main([*given, *network, "--out", str(tmp_path / "alone")]) == 0
    masks = [read_mask(tmp_path / name / "F1+F2" / f"{TRAIN[0]}.png") for name in ("helped", "alone")]
    assert set(masks[0].unique().tolist()) <= {0, CAT, PERSON} and not torch.equal(*masks)


def test_certainty_weighs_the_labels_of_all_images(tiny_voc: Path, tmp_path: Path) -> None:
    counts = []
    for certainty in (1.0, 0.25):
        write_points(tiny_voc, tmp_path / "points.json")
        points = json.loads((tmp_path / "points.json").read_text())
        sure = {id: [point | {"certainty": certainty} for point in of_image] for id, of_image in points.items()}
        (tmp_path / "points.json").write_text(json.dumps(sure))
        assert fit_points(tiny_voc, tmp_path / "points.json", tmp_path / str(certainty)) == 0
        checkpoint = read_checkpoint(tmp_path / str(certainty) / "checkpoint.pt")
        counts.append(checkpoint.state["moments"]["counts"])
    torch.testing.assert_close(counts[1], 0.25 * counts[0])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--supervision", "ground-truth"], "--pixels: only with --supervision points or scribbles"),
        (["--backbone", "resnet18"], "--backbone: not with --pixels, whose networks, stages and classifier are used"),
        (["--second-backbone", "resnet18"], "--second-backbone: not with --pixels"),
        (["--features", "F1"], "--features: not with --pixels"),
        (["--kernel", "rbf"], "--kernel: not with --pixels"),
        (["--samples-per-class", "20"], "--samples-per-class: not with --pixels"),
        (["--pixels", "nowhere.pt"], "nowhere.pt: "),
    ],
)
def test_help_that_cannot_be_is_refused(
    tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    points = tmp_path / "points.json"
    write_points(tiny_voc, points)
    assert fit_points(tiny_voc, points, tmp_path / "pixels") == 0
    few = [] if "ground-truth" in flags else ["--supervision", "points", "--points", str(points)]
    given = ["--root", str(tiny_voc), *few, "--pixels", str(tmp_path / "pixels" / "checkpoint.pt")]
    assert main([*given, *flags, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


def test_pixels_takes_one_kind_of_labels(tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points = tmp_path / "points.json"
    write_points(tiny_voc, points)
    assert fit_points(tiny_voc, points, tmp_path / "pixels", "--cams", str(tmp_path)) == 2
    expected = "--cams, --seeds, --points, --scribbles: expected one of them, got --points too"
    assert expected in capsys.readouterr().err
    assert fit_points(tiny_voc, points, tmp_path / "pixels", "--boxes", str(tmp_path)) == 2
    assert "expected one of them, got --boxes too" in capsys.readouterr().err
