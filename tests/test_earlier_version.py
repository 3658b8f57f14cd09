"""Files that version 0.1 wrote about the images of ``tiny_voc`` (``tests/version_0_1``) are still read.

The weights of its checkpoints are zeros, so that they compress to a few kilobytes; all else is as it was written.
"""

import lzma
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from torch_svm_seg.cam.checkpoints import load_classifier
from torch_svm_seg.cam.io import read_cam_files
from torch_svm_seg.cli import expand
from torch_svm_seg.data.constants import VOC_CLASSES
from torch_svm_seg.irn.training import load_irn
from torch_svm_seg.segmenters.builder import load_segmenter

FILES = Path(__file__).parent / "version_0_1"
TRAIN_IDS = ("2008_000001", "2008_000002", "2008_000003")


@pytest.fixture
def files(tiny_voc: Path) -> Path:
    """Return a copy of the files, beside the folder ``data`` of their images and written after it."""
    folder = tiny_voc.parent
    for name in ("cams", "study", "masks"):
        shutil.copytree(FILES / name, folder / name, copy_function=shutil.copyfile)
    for path in FILES.glob("*.pt.xz"):
        (folder / path.stem).write_bytes(lzma.decompress(path.read_bytes()))
    return folder


def stored(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["model"]  # type: ignore[no-any-return]


def assert_same_weights(network: torch.nn.Module, path: Path) -> None:
    loaded, expected = list(network.state_dict().values()), list(stored(path).values())
    assert len(loaded) == len(expected)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(loaded, expected, strict=True))


def test_classifiers_load(files: Path) -> None:
    assert_same_weights(load_classifier(files / "cam.pt", VOC_CLASSES), files / "cam.pt")


def test_segmentation_networks_load(files: Path) -> None:
    assert_same_weights(load_segmenter(files / "seg.pt", VOC_CLASSES), files / "seg.pt")


def test_irnets_load(files: Path) -> None:
    irn = load_irn(files / "irn.pt")
    expected = stored(files / "irn.pt")
    loaded = irn.network.state_dict()
    assert loaded and all(torch.equal(value, expected[name]) for name, value in loaded.items())


@pytest.mark.parametrize("id", TRAIN_IDS)
def test_maps_are_read(files: Path, id: str) -> None:
    with np.load(files / "cams" / f"{id}.npz") as archive:
        maps, classes = torch.from_numpy(archive["maps"]), archive["classes"].tolist()
    read = read_cam_files(files / "cams", id, (60, 80), VOC_CLASSES).maps
    assert list(read.classes) == classes == [8, 15] and torch.equal(read.maps, maps)


@pytest.mark.parametrize("run", ["study", "masks"])
def test_runs_are_continued_and_nothing_is_done_twice(
    files: Path, run: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    masks = ["--root", "data", "--refine", "none"]
    before = {path: path.read_bytes() for path in files.glob("*/*/*.png")}
    if run == "study":
        code = expand.main([*masks, "--features", "img", "F3", "--out", "study"])
    else:
        seeds = ["--supervision", "seed", "--cams", "cams", "--features", "F4"]
        svm = ["--kernel", "rbf", "--C", "1", "--samples-per-class", "500"]  # the defaults at that time
        code = expand.main([*masks, "crf", *seeds, *svm, "--out", "masks"])
    printed = capsys.readouterr()
    assert "0 images expanded, 3 were there" in printed.out, printed.err
    assert code == 0
    assert all(path.read_bytes() == content for path, content in before.items())


def test_other_settings_are_noticed(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    assert expand.main(["--root", "data", "--features", "img", "F3", "--C", "10", "--out", "study"]) == 2
    assert "other settings (C was 1.0, now 10.0)" in capsys.readouterr().err
