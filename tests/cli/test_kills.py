"""Commands killed while they write a file, and started again: all bytes are those of an undisturbed run."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import CAT, PERSON, TINY_IDS

from torch_svm_seg.cam.activation import ActivationMaps
from torch_svm_seg.cam.io import cam_path, save_cams
from torch_svm_seg.cli.train import main
from torch_svm_seg.data.constants import VOC_CLASSES
from torch_svm_seg.data.io import TEMPORARY_PATTERN
from torch_svm_seg.data.voc import voc2012

REPOSITORY = Path(__file__).parents[2]
TRAINED = ["--crop-size", "64", "--batch-size", "1", "--momentum", "0.9", "--epochs", "3"]

KILLED = """
import os, signal, sys
from torch_svm_seg.cli.train import main

replace, suffix, left = os.replace, sys.argv[1], [int(sys.argv[2])]


def replace_or_be_killed(source, target):
    if str(target).endswith(suffix):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)


os.replace = replace_or_be_killed
sys.exit(main(sys.argv[3:]))
"""


def killed_at(suffix: str, number: int, command: list[str]) -> None:
    """Run a command of ``train.py`` that is killed just before the nth file of a suffix takes its name."""
    arguments = [sys.executable, "-c", KILLED, suffix, str(number), *command]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    assert subprocess.run(arguments, cwd=REPOSITORY, env=environment, capture_output=True).returncode == -signal.SIGKILL


def files(folder: Path) -> dict[str, bytes]:
    """Return all files of a run but those that hold times."""
    timed = ("run.json", "images.jsonl", "epochs.csv", "checks.csv")
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in timed)
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.fixture
def cams(tiny_voc: Path, tmp_path: Path) -> Path:
    data = voc2012(tiny_voc)
    for index, id in enumerate(data.ids):
        maps = torch.stack([(data.mask(index) == class_id).float() for class_id in (CAT, PERSON)])
        maps = torch.nn.functional.max_pool2d(maps, 9, 4, 4)
        own = ActivationMaps((CAT, PERSON), maps, (60, 80), 1 - maps.amax(0))
        save_cams(cam_path(tmp_path / "maps", id), own, VOC_CLASSES)
    return tmp_path / "maps"


def same_after_a_kill(tmp_path: Path, command: list[str], suffix: str, number: int, *again: str) -> dict[str, bytes]:
    """Kill a command, start it again and compare with an undisturbed run; return the files."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    if not whole.exists():
        assert main([*command, "--out", str(whole)]) == 0
    killed_at(suffix, number, [*command, "--out", str(out)])
    assert list(out.rglob(TEMPORARY_PATTERN))  # it was killed while it wrote
    done = files(out)
    assert main([*command, *again, "--out", str(out)]) == 0
    assert files(out) == files(whole) and done.keys() - files(out).keys()
    shutil.rmtree(out)
    return files(whole)


def test_irn(tiny_voc: Path, cams: Path, tmp_path: Path) -> None:
    """Killed while it labels what is sure, and while it writes its second checkpoint."""
    command = ["irn", "--root", str(tiny_voc), "--cams", str(cams), *TRAINED]
    labels = [f"labels/{id}.png" for id in TINY_IDS[:3]]
    for suffix in (".png", ".pt"):
        found = same_after_a_kill(tmp_path, command, suffix, 2, "--resume")
        assert sorted(found) == ["checkpoint.pt", *labels, "steps.csv"]


def test_classify_and_cams(tiny_voc: Path, tmp_path: Path) -> None:
    command = ["classify", "--root", str(tiny_voc), "--method", "cam", *TRAINED]
    assert sorted(same_after_a_kill(tmp_path / "network", command, ".pt", 2, "--resume")) == [
        "checkpoint.pt",
        "steps.csv",
    ]
    command = ["cams", "--root", str(tiny_voc), "--checkpoint", str(tmp_path / "network/whole/checkpoint.pt")]
    found = same_after_a_kill(tmp_path / "cams", [*command, "--scales", "1"], ".npz", 2)
    assert sorted(found) == [f"{id}.npz" for id in TINY_IDS[:3]]


@pytest.mark.parametrize("walk", ["irn", "features"])
def test_propagate(tiny_voc: Path, cams: Path, tmp_path: Path, walk: str) -> None:
    flags = ["--root", str(tiny_voc), "--cams", str(cams)]
    chosen = ["--walk"]
    if walk == "irn":
        assert main(["irn", *flags, *TRAINED, "--epochs", "1", "--out", str(tmp_path / "irn")]) == 0
        chosen = ["--irn", str(tmp_path / "irn/checkpoint.pt")]
    found = same_after_a_kill(tmp_path / walk, ["propagate", *flags, *chosen], ".npz", 2)
    assert sorted(found) == [f"{id}.npz" for id in TINY_IDS[:3]]


def test_pixels_and_posterior(tiny_voc: Path, cams: Path, tmp_path: Path) -> None:
    flags = ["--root", str(tiny_voc), "--cams", str(cams)]
    command = ["pixels", *flags, "--features", "F2", "--samples-per-image", "100", "--rounds", "2"]
    assert list(same_after_a_kill(tmp_path / "pixels", command, ".pt", 1)) == ["checkpoint.pt"]
    command = ["posterior", *flags, "--pixels", str(tmp_path / "pixels/whole/checkpoint.pt")]
    assert sorted(same_after_a_kill(tmp_path / "posterior", command, ".npz", 2)) == [f"{id}.npz" for id in TINY_IDS[:3]]


def test_segment_and_predict(tiny_voc: Path, tmp_path: Path) -> None:
    command = ["segment", "--root", str(tiny_voc), "--steps", "4", "--check-every", "1", "--crop-size", "64"]
    command += ["--batch-size", "2", "--network", "lite:efficientnet_lite0", "--val-split", "val"]
    found = same_after_a_kill(tmp_path / "network", command, "checkpoint.pt", 3, "--resume")
    assert sorted(found) == ["best.pt", "checkpoint.pt", "steps.csv"]
    command = ["predict", "--root", str(tiny_voc), "--checkpoint", str(tmp_path / "network/whole/checkpoint.pt")]
    found = same_after_a_kill(tmp_path / "masks", command, ".png", 2)
    assert sorted(found) == [f"{id}.png" for id in TINY_IDS[:3]]
