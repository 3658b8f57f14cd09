"""Runs on several machines: two agents that meet over a network write the files of one process."""

from pathlib import Path

import numpy as np
import torch
from torchrun import torchrun_on_two_nodes
from training_files import weights

from torch_svm_seg.cli.expand import main as expand
from torch_svm_seg.cli.train import main as train
from torch_svm_seg.data.io import read_mask

QUICK = ["--method", "cam", "--crop-size", "48", "--batch-size", "2", "--epochs", "1"]


def test_two_nodes_expand_like_one_process(tiny_voc: Path, tmp_path: Path) -> None:
    flags = ["--root", str(tiny_voc), "--features", "img", "F1", "--samples-per-class", "50"]
    outputs = torchrun_on_two_nodes("expand.py", *flags, "--out", str(tmp_path / "two"))
    assert sum(output.count("3 images expanded") for output in outputs) == 1  # one process tells
    assert expand([*flags, "--out", str(tmp_path / "one")]) == 0
    names = {path.relative_to(tmp_path / "one") for path in (tmp_path / "one").glob("*/*.png")}
    assert names == {path.relative_to(tmp_path / "two") for path in (tmp_path / "two").glob("*/*.png")}
    for name in names:
        assert (read_mask(tmp_path / "one" / name) == read_mask(tmp_path / "two" / name)).float().mean() > 0.999


def test_two_nodes_train_and_write_maps_like_one_process(tiny_voc: Path, tmp_path: Path) -> None:
    data = ["--root", str(tiny_voc)]
    torchrun_on_two_nodes("train.py", "classify", *data, *QUICK, "--out", str(tmp_path / "two"))
    assert train(["classify", *data, *QUICK, "--out", str(tmp_path / "one")]) == 0
    checkpoint = tmp_path / "one/checkpoint.pt"
    one, two = weights(checkpoint), weights(tmp_path / "two/checkpoint.pt")
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=1e-5, rtol=1e-4)
    maps = [*data, "--checkpoint", str(checkpoint), "--scales", "1"]
    torchrun_on_two_nodes("train.py", "cams", *maps, "--out", str(tmp_path / "two/cams"))
    assert train(["cams", *maps, "--out", str(tmp_path / "one/cams")]) == 0
    for path in (tmp_path / "one/cams").glob("*.npz"):
        first, second = np.load(path), np.load(tmp_path / "two/cams" / path.name)
        assert first.files == second.files
        np.testing.assert_array_equal(first["classes"], second["classes"])
        # In half precision; a process of torchrun computes on one thread, which rounds otherwise.
        np.testing.assert_allclose(first["maps"], second["maps"], atol=2e-3)
