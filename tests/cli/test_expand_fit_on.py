"""expand.py --fit-on: one SVM of some images' labels that labels all images."""

import json
from pathlib import Path

import pytest
import torch
from conftest import CAT, TINY_IDS, VOID
from torchrun import torchrun

from torch_svm_seg.cli.expand import main
from torch_svm_seg.data.io import read_mask, save_mask

TRAIN = TINY_IDS[:3]
SCRIBBLES = "--supervision", "scribbles", "--scribbles"


def truth(root: Path, id: str) -> torch.Tensor:
    return read_mask(root / "VOCdevkit/VOC2012/SegmentationClass" / f"{id}.png")


@pytest.fixture
def strokes(tiny_voc: Path, tmp_path: Path) -> Path:
    """Scribbles of the first two images."""
    for id in TRAIN[:2]:
        mask = truth(tiny_voc, id)
        drawn = torch.full_like(mask, VOID)
        drawn[30], drawn[:, 20], drawn[5] = mask[30], mask[:, 20], mask[5]
        save_mask(tmp_path / "strokes" / f"{id}.png", drawn)
    return tmp_path / "strokes"


def names(folder: Path, *ids: str) -> str:
    path = folder / "fit_on.txt"
    path.write_text("\n".join(ids))
    return str(path)


def command(root: Path, out: Path, *more: str) -> list[str]:
    return ["--root", str(root), "--out", str(out), "--features", "img+F1", *more]


def accuracy(root: Path, out: Path, id: str) -> float:
    mask, expected = read_mask(out / "img+F1" / f"{id}.png"), truth(root, id)
    return float((mask == expected)[expected != VOID].float().mean())


def test_images_without_labels_get_masks(
    tiny_voc: Path, strokes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = command(tiny_voc, tmp_path / "out", *SCRIBBLES, str(strokes), "--fit-on", names(tmp_path, *TRAIN[:2]))
    assert main([*flags, "--refine", "none", "pamr"]) == 0
    assert "3 images expanded, 0 were there, 0 skipped" in capsys.readouterr().out
    assert min(accuracy(tiny_voc, tmp_path / "out", id) for id in TRAIN) > 0.9
    assert (tmp_path / "out" / "img+F1+pamr" / f"{TRAIN[2]}.png").is_file()


@pytest.mark.parametrize("supervision", [SCRIBBLES, None])
def test_an_image_labelled_by_its_own_labels_alone_is_labelled_as_without(
    tiny_voc: Path, strokes: Path, tmp_path: Path, supervision: tuple[str, ...] | None
) -> None:
    flags = [*supervision, str(strokes)] if supervision else []
    assert main(command(tiny_voc, tmp_path / "own", *flags, "--limit", "1")) == 0
    assert main(command(tiny_voc, tmp_path / "one", *flags, "--fit-on", names(tmp_path, TRAIN[0]))) == 0
    own, one = (read_mask(tmp_path / name / "img+F1" / f"{TRAIN[0]}.png") for name in ("own", "one"))
    assert float((own == one).float().mean()) > 0.999


def test_all_masks_depend_on_the_labels_that_were_fitted_to(
    tiny_voc: Path, strokes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = command(tiny_voc, tmp_path / "out", *SCRIBBLES, str(strokes), "--fit-on", names(tmp_path, TRAIN[0]))
    assert main(flags) == 0 and main(flags) == 0
    assert "0 images expanded, 3 were there, 0 skipped" in capsys.readouterr().out
    (tmp_path / "out" / "img+F1" / f"{TRAIN[2]}.png").unlink()
    assert main(flags) == 0
    assert "1 images expanded, 2 were there, 0 skipped" in capsys.readouterr().out

    changed = read_mask(strokes / f"{TRAIN[0]}.png")
    changed[50] = VOID
    save_mask(strokes / f"{TRAIN[0]}.png", changed)
    assert main(flags) == 0
    assert "3 images were done from files that have changed since" in capsys.readouterr().out
    names(tmp_path, TRAIN[1])
    assert main(flags) == 2
    assert "fit_on was" in capsys.readouterr().err


def test_images_whose_labels_cannot_be_used_are_named(
    tiny_voc: Path, strokes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = command(tiny_voc, tmp_path / "out", *SCRIBBLES, str(strokes))
    assert main([*flags, "--fit-on", names(tmp_path, *TRAIN)]) == 1
    printed = capsys.readouterr().out
    assert f"--fit-on: 1 of 3 images cannot be used: {TRAIN[2]}: " in printed
    assert "3 images expanded, 0 were there, 0 skipped" in printed
    assert main([*flags, "--overwrite", "--fit-on", names(tmp_path, TRAIN[2])]) == 2
    assert f"--fit-on: expected images with labels, got 1 that cannot be used: {TRAIN[2]}" in capsys.readouterr().err


def test_processes_share_the_images_and_agree(tiny_voc: Path, strokes: Path, tmp_path: Path) -> None:
    flags = [*SCRIBBLES, str(strokes), "--fit-on", names(tmp_path, *TRAIN[:2])]
    assert main(command(tiny_voc, tmp_path / "one", *flags)) == 0
    assert "3 images expanded" in torchrun("expand.py", *command(tiny_voc, tmp_path / "two", *flags))
    for id in TRAIN:
        one, two = (read_mask(tmp_path / name / "img+F1" / f"{id}.png") for name in ("one", "two"))
        assert torch.equal(one, two)


def test_certainty_reaches_the_fit(tiny_voc: Path, tmp_path: Path) -> None:
    """A wrong click of next to no certainty changes next to nothing; one of full certainty does."""
    right = [{"x": 5, "y": 5, "cls": 0}, {"x": 40, "y": 30, "cls": CAT}]
    for name, more in {"right": [], "unsure": [1e-6], "sure": [1.0]}.items():
        wrong = [{"x": 70, "y": 50, "cls": CAT, "certainty": certainty} for certainty in more]
        points = tmp_path / f"{name}.json"
        points.write_text(json.dumps({TRAIN[0]: right + wrong}))
        flags = ["--supervision", "points", "--points", str(points), "--fit-on", names(tmp_path, TRAIN[0])]
        assert main(command(tiny_voc, tmp_path / name, *flags)) == 0
    right_mask, unsure, sure = (
        read_mask(tmp_path / name / "img+F1" / f"{TRAIN[1]}.png") for name in ("right", "unsure", "sure")
    )
    same = [float((right_mask == mask).float().mean()) for mask in (unsure, sure)]
    assert same[0] > 0.99 and same[1] < 0.9


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--supervision", "boxes", "--boxes", "."],
            "--fit-on: only with --supervision ground-truth, points, scribbles",
        ),
        (["--supervision", "seed", "--cams", "."], "--fit-on: only with --supervision ground-truth, points, scribbles"),
        ([*SCRIBBLES, ".", "--pixels", "pixels.pt"], "--fit-on and --pixels: give one of them"),
        ([*SCRIBBLES, ".", "--fit-on", "lost.txt"], "lost.txt"),
        ([*SCRIBBLES, ".", "--fit-on", "other.txt"], "other.txt: expected images of the data set, got unicorn"),
        ([*SCRIBBLES, ".", "--fit-on", "empty.txt"], "empty.txt: no images"),
    ],
)
def test_what_does_not_go_together_is_one_error(
    flags: list[str],
    message: str,
    tiny_voc: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("other.txt").write_text(f"{TRAIN[0]}\nunicorn\n")
    Path("empty.txt").write_text("\n")
    assert main(command(tiny_voc, tmp_path / "out", "--fit-on", names(tmp_path, TRAIN[0]), *flags)) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("expand.py: error:") and message in error and "\n" not in error
