"""expand.py on images of five channels, of which none alone tells the classes apart."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from torch_svm_seg.cli.expand import main
from torch_svm_seg.data.io import read_mask, save_mask

NAMES = ("a", "b", "c")


def scene(seed: int) -> tuple[np.ndarray, torch.Tensor]:
    """A disc whose sum over two of five noisy channels differs from that of the ground."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:40, :50]
    disc = (rows - 20) ** 2 + (columns - 15 - 10 * seed) ** 2 < 120
    channels = generator.normal(1000, 100, (5, 40, 50))
    channels[4] = 20 * disc + 2000 - channels[1] + generator.normal(0, 3, (40, 50))
    return channels.clip(0, 65535), torch.from_numpy(disc.astype(np.int64))


def write(folder: Path, form: str) -> None:
    (folder / "images").mkdir()
    for seed, name in enumerate(NAMES):
        channels, truth = scene(seed)
        if form == "tif":
            tifffile.imwrite(folder / "images" / f"{name}.tif", channels.astype(np.uint16), photometric="minisblack")
        else:
            np.save(folder / "images" / f"{name}.npy", channels.transpose(1, 2, 0).astype(np.float32))
        save_mask(folder / "masks" / f"{name}.png", truth)
    strokes = torch.full((40, 50), 255)
    strokes[18:22], strokes[2:4] = scene(0)[1][18:22], 0
    save_mask(folder / "strokes" / "a.png", strokes)
    (folder / "names.txt").write_text("background\ndisc\n")
    (folder / "fit_on.txt").write_text("a\n")


@pytest.mark.parametrize("form", ["tif", "npy"])
def test_strokes_on_one_stack_label_all(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, form)
    data = ["--images", str(tmp_path / "images"), "--class-names", str(tmp_path / "names.txt")]
    labels = ["--supervision", "scribbles", "--scribbles", str(tmp_path / "strokes")]
    flags = [*data, *labels, "--fit-on", str(tmp_path / "fit_on.txt"), "--out", str(tmp_path / "out")]
    assert main([*flags, "--features", "img"]) == 0
    printed = capsys.readouterr().out
    assert "3 images expanded" in printed
    assert ("TIFF of 5 grey pages, read as channels: 3 images" in printed) == (form == "tif")
    for seed, name in enumerate(NAMES):
        mask, truth = read_mask(tmp_path / "out" / "img" / f"{name}.png"), scene(seed)[1]
        assert float((mask == truth).double().mean()) > 0.97
    assert (tmp_path / "out" / "overview.png").is_file()

    assert main([*flags, "--features", "F3", "--overwrite", "--out", str(tmp_path / "deep")]) == 2
    assert "expected shape (B, 3, H, W)" in capsys.readouterr().err


def test_each_stack_is_studied_by_its_own_masks(tmp_path: Path) -> None:
    write(tmp_path, "npy")
    data = ["--images", str(tmp_path / "images"), "--class-names", str(tmp_path / "names.txt")]
    flags = [*data, "--masks", str(tmp_path / "masks"), "--out", str(tmp_path / "out")]
    assert main([*flags, "--features", "img", "--kernel", "linear", "--samples-per-class", "100"]) == 0
    for seed, name in enumerate(NAMES):
        mask, truth = read_mask(tmp_path / "out" / "img" / f"{name}.png"), scene(seed)[1]
        assert float((mask == truth).double().mean()) > 0.97
