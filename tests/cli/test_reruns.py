"""The same command again, after its inputs changed, after a kill, or beside another run: nothing old, nothing mixed."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import CAT, PERSON, TINY_IDS
from PIL import Image

from torch_svm_seg.cli.expand import main
from torch_svm_seg.cli.train import main as train
from torch_svm_seg.data.folder_lock import LOCK_FILE, locked
from torch_svm_seg.data.io import read_mask, save_mask

REPOSITORY = Path(__file__).parents[2]
QUICK = ["--features", "img", "--samples-per-class", "50", "--backbone", "resnet18", "--weights", "random"]
TRAIN = TINY_IDS[:3]


def run(root: Path, out: Path, *more: str) -> int:
    return main(["--root", str(root), "--out", str(out), *QUICK, *more])


def masks(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("img/*.png"))}


def file_of(root: Path, folder: str, id: str, suffix: str) -> Path:
    return root / "VOCdevkit/VOC2012" / folder / f"{id}{suffix}"


@pytest.mark.parametrize(("folder", "suffix"), [("JPEGImages", ".jpg"), ("SegmentationClass", ".png")])
def test_an_edited_file_is_done_again_and_no_other(
    tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], folder: str, suffix: str
) -> None:
    """Its size and its date may be those of before."""
    out, edited = tmp_path / "out", file_of(tiny_voc, folder, TRAIN[1], suffix)
    assert run(tiny_voc, out) == 0
    before = {path: path.stat().st_mtime_ns for path in out.glob("img/*.png")}
    shutil.copyfile(file_of(tiny_voc, folder, TRAIN[0], suffix), edited)
    capsys.readouterr()
    assert run(tiny_voc, out) == 0
    assert "1 images were done from files that have changed since, and are done again" in capsys.readouterr().out
    written = {path.stem for path, date in before.items() if path.stat().st_mtime_ns != date}
    assert written == {TRAIN[1]}
    assert run(tiny_voc, tmp_path / "new") == 0 and masks(tmp_path / "new") == masks(out)
    assert json.loads((out / "run.json").read_text())["images"] == 3


def test_an_edited_file_of_maps_is_done_again(tiny_voc: Path, tmp_path: Path) -> None:
    cams, out = tmp_path / "cams", tmp_path / "out"
    cams.mkdir()
    for id in TRAIN:
        truth = read_mask(file_of(tiny_voc, "SegmentationClass", id, ".png")).numpy()
        np.save(cams / f"{id}.npy", {k - 1: (truth == k).astype(np.float32) for k in (CAT, PERSON)}, allow_pickle=True)
    seed = ["--root", str(tiny_voc), "--supervision", "seed", "--cams", str(cams), "--features", "none"]
    seed += ["--baselines", "seed", "--background", "constant:0.5", "--out", str(out)]
    assert main(seed) == 0
    truth = np.flipud(truth)
    np.save(cams / f"{id}.npy", {k - 1: (truth == k).astype(np.float32) for k in (CAT, PERSON)}, allow_pickle=True)
    assert main(seed) == 0
    found = read_mask(out / f"seed/{id}.png").numpy()
    assert ((found == CAT) == (truth == CAT)).all()


def test_sure_labels_of_crf_dictionaries_are_of_their_classes(tiny_voc: Path, tmp_path: Path) -> None:
    """Read as other dictionaries are, each class would be its neighbour."""
    cams = tmp_path / "cams"
    cams.mkdir()
    for id in TRAIN:
        truth = read_mask(file_of(tiny_voc, "SegmentationClass", id, ".png")).numpy()
        truth[truth == 255] = 0
        content = {k: 0.05 + 0.85 * (truth == k).astype(np.float32) for k in (0, CAT, PERSON)}
        np.save(cams / f"{id}.npy", content, allow_pickle=True)
    command = ["irn", "--root", str(tiny_voc), "--cams", str(cams), "--out", str(tmp_path / "irn")]
    command += ["--crop-size", "64", "--batch-size", "2", "--epochs", "1", "--backbone", "resnet18"]
    assert train([*command, "--weights", "random"]) == 0
    for id in TRAIN:
        labels = read_mask(tmp_path / f"irn/labels/{id}.png").numpy()
        truth = read_mask(file_of(tiny_voc, "SegmentationClass", id, ".png")).numpy()
        assert set(np.unique(labels)) <= {0, CAT, PERSON, 255}
        assert (labels[(truth == CAT) & (labels != 255)] == CAT).mean() > 0.9


def test_a_folder_is_of_one_run_at_a_time(tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    with locked(out):
        assert run(tiny_voc, out) == 2
        assert f"{out}: another run is writing into it" in capsys.readouterr().err
        assert list(out.iterdir()) == [out / LOCK_FILE]
    assert run(tiny_voc, out) == 0 and not (out / LOCK_FILE).exists()


def test_two_runs_started_together_do_not_mix(tiny_voc: Path, tmp_path: Path) -> None:
    """One of them makes all masks, the other one says why not."""
    out = tmp_path / "out"
    command = [sys.executable, "expand.py", "--root", str(tiny_voc), "--out", str(out), *QUICK]
    runs = [
        subprocess.Popen([*command, "--seed", seed], cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
        for seed in ("1", "2")
    ]
    errors = [process.communicate()[1] for process in runs]
    codes = [process.returncode for process in runs]
    assert sorted(codes) == [0, 2]
    refused = errors[codes.index(2)]
    assert "another run is writing into it" in refused or "holds results of other settings" in refused
    winner = str(1 + codes.index(0))
    assert json.loads((out / "run.json").read_text())["settings"]["seed"] == int(winner)
    assert run(tiny_voc, tmp_path / "alone", "--seed", winner) == 0
    assert masks(tmp_path / "alone") == masks(out)


def test_a_kill_leaves_no_lock_no_wrong_count_and_no_other_masks(tiny_voc: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "expand.py", "--root", str(tiny_voc), "--out", str(out), *QUICK]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while not list(out.glob("img/*.png")) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    process.kill()
    process.wait()
    (out / "img" / ".cut.png.part").write_bytes(b"half a mask")
    assert run(tiny_voc, out) == 0
    record = json.loads((out / "run.json").read_text())
    assert record["finished"] and record["images"] == 3
    assert {path.name for path in (out / "img").iterdir()} <= {".cut.png.part", *(f"{id}.png" for id in TRAIN)}
    assert run(tiny_voc, tmp_path / "whole") == 0 and masks(out) == masks(tmp_path / "whole")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b'{"settings": []}',
        b'{"settings": {"seed": "\\ud800"}, "images": 1, "seconds": {}, "restored": {}}',
        b'{"settings": {}, "images": 1e30, "seconds": {}, "restored": {}}',
        b'{"settings": {}, "images": 1, "seconds": {"F4": 1e400}, "restored": {}}',
        b"[" * 100_000,
    ],
)
def test_a_tampered_record_is_one_error(
    tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    out = tmp_path / "out"
    assert run(tiny_voc, out) == 0
    (out / "run.json").write_bytes(content)
    capsys.readouterr()
    assert run(tiny_voc, out) == 2
    (message,) = capsys.readouterr().err.strip().splitlines()
    assert message.isprintable() and len(message) <= 330 and str(out) in message
    assert run(tiny_voc, out, "--overwrite") == 0


def test_a_damaged_log_costs_only_its_images(tiny_voc: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(tiny_voc, out) == 0
    before = masks(out)
    log = out / "images.jsonl"
    first, *others = log.read_text().splitlines(keepends=True)
    log.write_text(first[: len(first) // 2] + "\n" + "".join(others))
    assert run(tiny_voc, out) == 0 and masks(out) == before
    assert json.loads((out / "run.json").read_text())["images"] == 3


def test_a_broken_mask_costs_seeds_nothing(tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seeds = tmp_path / "seeds"
    for id in TRAIN:
        save_mask(seeds / f"{id}.png", read_mask(file_of(tiny_voc, "SegmentationClass", id, ".png")))
    file_of(tiny_voc, "SegmentationClass", TRAIN[0], ".png").write_bytes(b"no mask")
    seed = ["--root", str(tiny_voc), "--supervision", "seed", "--seeds", str(seeds), "--features", "none"]
    code = main([*seed, "--baselines", "seed", "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert code == 0 and "3 images expanded" in printed and TRAIN[0] in printed
    assert len(list((tmp_path / "out/seed").glob("*.png"))) == 3


def test_an_image_that_others_wrote_badly_is_named_and_the_run_goes_on(tiny_voc: Path, tmp_path: Path) -> None:
    """A flat image of 0.1 megabytes that claims 169 megapixels."""
    Image.new("L", (13000, 13000)).save(tmp_path / "bomb.png")
    shutil.copyfile(tmp_path / "bomb.png", file_of(tiny_voc, "JPEGImages", TRAIN[0], ".jpg"))
    assert run(tiny_voc, tmp_path / "out") == 1
    skipped = json.loads((tmp_path / "out/run.json").read_text())["skipped"]
    assert list(skipped) == [TRAIN[0]] and "13000x13000 pixels" in skipped[TRAIN[0]]
    assert len(masks(tmp_path / "out")) == 2
