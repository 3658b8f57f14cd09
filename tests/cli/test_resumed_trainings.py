"""``--resume`` continues a training only on the images and labels that it began with; how they are read is said."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CAT, PERSON, TINY_IDS
from PIL import Image

from torch_svm_seg.cli.train import main
from torch_svm_seg.data.io import read_mask, save_mask

TRAIN = TINY_IDS[:3]
QUICK = ["--crop-size", "64", "--batch-size", "2"]


def commands(root: Path, folder: Path) -> dict[str, list[str]]:
    """Return each training on files of its own in a folder, by name."""
    masks, labels = folder / "masks", folder / "labels.csv"
    for id in TINY_IDS:
        mask = read_mask(root / f"VOCdevkit/VOC2012/SegmentationClass/{id}.png")
        save_mask(masks / f"{id}.png", mask)
        (folder / "maps").mkdir(exist_ok=True)
        maps = {name - 1: (mask == name).numpy().astype(np.float32) for name in (CAT, PERSON)}
        np.save(folder / "maps" / f"{id}.npy", maps, allow_pickle=True)
    labels.write_text("".join(f"{id},cat,person\n" for id in TRAIN))
    data = ["--root", str(root), "--out", str(folder / "out")]
    return {
        "classify": ["classify", *data, "--labels", str(labels), "--method", "cam", *QUICK, "--epochs", "2"],
        "irn": ["irn", *data, "--sure-labels", str(masks), *QUICK, "--epochs", "2"],
        "segment": ["segment", *data, "--masks", str(masks), "--val-split", "val", *QUICK, "--steps", "2"],
    }


def file_of(root: Path, folder: Path, name: str) -> Path:
    """Return an image, a mask or a mask of validation."""
    voc = root / "VOCdevkit/VOC2012"
    return {
        "image": voc / f"JPEGImages/{TRAIN[1]}.jpg",
        "mask": folder / f"masks/{TRAIN[1]}.png",
        "maps": folder / f"maps/{TRAIN[1]}.npy",
        "validation": voc / f"SegmentationClass/{TINY_IDS[3]}.png",
    }[name]


@pytest.mark.parametrize(
    ("command", "edited"),
    [
        ("classify", "image"),
        ("irn", "image"),
        ("irn", "mask"),
        ("segment", "image"),
        ("segment", "mask"),
        ("segment", "validation"),
    ],
)
def test_an_edited_file_is_another_run(
    tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, edited: str
) -> None:
    arguments = commands(tiny_voc, tmp_path)[command]
    assert main(arguments) == 0
    before = (tmp_path / "out/checkpoint.pt").read_bytes()
    assert main([*arguments, "--resume"]) == 0
    path = file_of(tiny_voc, tmp_path, edited)
    content = path.read_bytes()
    shutil.copyfile(path.with_name(f"{TRAIN[0]}{path.suffix}"), path)
    capsys.readouterr()
    assert main([*arguments, "--resume"]) == 2
    assert "a run of other settings (images_and_labels was" in capsys.readouterr().err
    path.write_bytes(content)
    assert main([*arguments, "--resume"]) == 0 and (tmp_path / "out/checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize("edited", ["image", "maps"])
def test_a_pixel_classifier_of_edited_files_is_fitted_again_or_refused(
    tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], edited: str
) -> None:
    commands(tiny_voc, tmp_path)
    fit = ["pixels", "--root", str(tiny_voc), "--cams", str(tmp_path / "maps"), "--out", str(tmp_path / "out")]
    fit += ["--features", "F2", "--rounds", "1", "--cams-form", "psa"]
    assert main(fit) == main(fit) == 0
    path = file_of(tiny_voc, tmp_path, edited)
    shutil.copyfile(path.with_name(f"{TRAIN[0]}{path.suffix}"), path)
    capsys.readouterr()
    assert main(fit) == 2 and "fitted with other settings (images_and_labels was" in capsys.readouterr().err
    assert main([*fit, "--overwrite"]) == 0


def test_a_training_that_knew_no_digest_continues(tiny_voc: Path, tmp_path: Path) -> None:
    arguments = commands(tiny_voc, tmp_path)["classify"]
    assert main(arguments) == 0
    content = torch.load(tmp_path / "out/checkpoint.pt", weights_only=True)
    del content["settings"]["images_and_labels"]
    torch.save(content, tmp_path / "out/checkpoint.pt")
    assert main([*arguments, "--resume"]) == 0


def test_how_files_are_read_is_said_by_trainings(
    tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sure labels with a renumbered palette are read by their colours, labels by number from 0."""
    made = commands(tiny_voc, tmp_path)
    for id in TRAIN:
        path = tmp_path / f"masks/{id}.png"
        with Image.open(path) as mask:
            mask.convert("RGB").quantize().save(path)
    for name in ("irn", "segment"):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        assert main(made[name]) == 0
        assert "note: mask with a renumbered palette, read by its colours" in capsys.readouterr().out
    (tmp_path / "labels.txt").write_text("".join(f"{id} 7 14\n" for id in TRAIN))
    shutil.rmtree(tmp_path / "out")
    assert main([*made["classify"], "--labels", str(tmp_path / "labels.txt")]) == 0
    assert "note: labels.txt: class ids are taken to count from 0" in capsys.readouterr().out
