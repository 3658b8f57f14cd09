"""train.py weak: all steps by a recipe, from images to a score; killed, and continued."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import TINY_IDS
from torchrun import REPOSITORY, torchrun
from training_files import same, weights

from torch_svm_seg.cli import cams
from torch_svm_seg.cli.train import main
from torch_svm_seg.pipeline.recipe import recipe_names

SMALL = "--crop-size 48 --batch-size 2"
STEPS = {
    "classifier": "train.py classify --method cam --epochs {epochs} " + SMALL,
    "maps": "train.py cams --checkpoint {classifier}/checkpoint.pt --scales 1",
    "walk": "train.py propagate --cams {maps} --walk",
    "pixels": "train.py pixels --cams {walk} --features F2+F3 --rounds 1",
    "posterior": "train.py posterior --cams {walk} --pixels {pixels}/checkpoint.pt",
    "masks": "expand.py --supervision seed --cams {posterior} --agreement none --baselines seed --features F2",
    "report": "evaluate.py --predictions {masks}/seed {masks}/F2 --report {report}",
    "network": "train.py segment --masks {masks}/F2 --steps 2 " + SMALL,
    "prediction": "train.py predict --checkpoint {network}/checkpoint.pt @validation",
    "score": "evaluate.py --predictions {prediction} @validation",
}

AGAIN = {
    "maps": "train.py cams --checkpoint {network}/checkpoint.pt --scales 1",
    "masks": "expand.py --supervision seed --cams {maps} --agreement none --backbone efficientnet_lite0 --features F2",
    "network": STEPS["network"],
}


@pytest.fixture
def generations(tmp_path: Path) -> str:
    """A recipe of as few steps as generations can have: the maps are the classifier's, the masks their seeds."""
    first = {name: STEPS[name] for name in ("classifier", "maps")}
    first["masks"] = "expand.py --supervision seed --cams {maps} --agreement none --backbone efficientnet_lite0"
    first["masks"] += " --features F2"
    last = {name: STEPS[name] for name in ("prediction", "score")}
    steps = first | {"network": STEPS["network"], "generations": AGAIN} | last
    seconds = {"classifier": 0.5, "maps": 0.2, "masks": 1.0, "network": 1.0, "prediction": 0.2, "score": 0.1}
    path = tmp_path / "generations.json"
    path.write_text(json.dumps({"values": {"epochs": "1"}, "steps": steps, "seconds": seconds}))
    return str(path)


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "small.json"
    path.write_text(json.dumps({"values": {"epochs": "1"}, "steps": STEPS}))
    return str(path)


def weak(root: Path, out: Path, recipe: str, *more: str) -> int:
    return main(["weak", "--root", str(root), "--recipe", recipe, "--out", str(out), *more])


def written(out: Path) -> dict[str, int]:
    """Each checkpoint, map and mask of a run, with the time of its last change."""
    files = [
        file for suffix in ("pt", "npz", "png") for file in out.glob(f"*/**/*.{suffix}") if file.stem != "overview"
    ]
    return {str(file.relative_to(out)): file.stat().st_mtime_ns for file in files}


def test_all_steps_from_labels_to_a_score(
    tiny_voc: Path, tmp_path: Path, recipe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert weak(tiny_voc, out, recipe, "--val-split", "val") == 0
    printed = capsys.readouterr().out
    assert "step 1 of 10: classifier (0:00:00 so far)" in printed and "step 10 of 10: score (" in printed
    assert "10 steps in 0:0" in printed and f"all that they wrote is in {out}" in printed
    assert {path.name for path in out.iterdir() if path.is_dir()} == set(STEPS)
    assert (out / "prediction" / f"{TINY_IDS[3]}.png").is_file() and (out / "score" / "results.md").is_file()
    assert "F2" in (out / "report" / "report.html").read_text()

    before = written(out)
    assert weak(tiny_voc, out, recipe, "--val-split", "val") == 0
    assert written(out) == before and len(before) == 19
    assert "3 were there" in capsys.readouterr().out


def test_generations_go_on_to_the_last(
    tiny_voc: Path, tmp_path: Path, generations: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out, flags = tmp_path / "out", ["--generations", "2", "--settled", "1", "--val-split", "val"]
    assert weak(tiny_voc, out, generations, *flags) == 0
    printed = capsys.readouterr().out
    assert "step 7 of at most 9: network-2 (" in printed and "step 9 of at most 9: score-2 (" in printed
    assert f"% of the pixels are the same in {out}/masks/F2 and {out}/masks-2/F2" in printed
    folders = {path.name for path in out.iterdir() if path.is_dir()}
    repeated = {f"{name}-2" for name in AGAIN}
    assert folders == {"classifier", "maps", "masks", "network", *repeated, "prediction-2", "score-2"}
    assert f"--checkpoint {out}/network/checkpoint.pt --scales 1" in printed
    assert f"--out {out}/prediction-2 --checkpoint {out}/network-2/checkpoint.pt" in printed

    before = written(out)
    assert weak(tiny_voc, out, generations, *flags) == 0 and written(out) == before


def test_generations_end_where_masks_agree(
    tiny_voc: Path, tmp_path: Path, generations: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    flags = ["--generations", "3", "--settled", "0", "--val-split", "val"]
    assert weak(tiny_voc, out, generations, *flags) == 0
    printed = capsys.readouterr().out
    assert "step 6 of at most 12: masks-2" in printed and "step 7 of 8: prediction (" in printed
    assert f"--out {out}/prediction --checkpoint {out}/network/checkpoint.pt" in printed
    assert not (out / "network-2").exists() and (out / "score").is_dir()
    assert weak(tiny_voc, out, generations, *flags, "--until", "prediction") == 0
    assert "step 7 of 7: prediction" in capsys.readouterr().out
    # The masks of the second generation are there already when a further one is asked for.
    assert weak(tiny_voc, out, generations, "--generations", "2", "--settled", "1", "--until", "network-2") == 0
    assert (out / "network-2").is_dir()


def test_the_time_that_is_left_is_said_once_it_is_known(
    tiny_voc: Path, tmp_path: Path, generations: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert weak(tiny_voc, out, generations, "--until", "maps") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    assert "left" not in lines[0] and ", about 0:0" in lines[1]
    assert json.loads((out / "times.json").read_text()).keys() == {"classifier", "maps"}
    assert weak(tiny_voc, out, generations, "--generations", "2", "--until", "masks-2") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    assert not any("left" in line for line in lines)  # the recipe does not say how long maps-2 takes


def test_killed_and_continued(tiny_voc: Path, tmp_path: Path, recipe: str) -> None:
    out, flags = tmp_path / "out", ["--root", str(tiny_voc), "--recipe", recipe, "--until", "masks"]
    command = [sys.executable, str(REPOSITORY / "train.py"), "weak", *flags, "--out", str(out)]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    while not (out / "walk").is_dir():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    classifier = (out / "classifier" / "checkpoint.pt").stat().st_mtime_ns
    assert weak(tiny_voc, out, recipe, "--until", "masks") == 0
    assert (out / "classifier" / "checkpoint.pt").stat().st_mtime_ns == classifier
    assert {path.stem for path in (out / "masks" / "F2").iterdir()} == set(TINY_IDS[:3])
    assert not (out / "report").exists()


def test_an_interruption_ends_it_in_order(
    tiny_voc: Path, tmp_path: Path, recipe: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cams, "run", interrupted)
    assert weak(tiny_voc, tmp_path / "out", recipe) == 130
    printed = capsys.readouterr()
    assert "train.py: interrupted; the same command continues" in printed.err and "step 3" not in printed.out


def test_each_step_is_the_command_alone(tiny_voc: Path, tmp_path: Path, recipe: str) -> None:
    assert weak(tiny_voc, tmp_path / "out", recipe, "--until", "classifier") == 0
    assert (
        main(
            [
                *STEPS["classifier"].format(epochs=1).split()[1:],
                "--root",
                str(tiny_voc),
                "--out",
                str(tmp_path / "alone"),
            ]
        )
        == 0
    )
    assert same(*(weights(tmp_path / name / "checkpoint.pt") for name in ("out/classifier", "alone")))


def test_two_processes_share_each_step(tiny_voc: Path, tmp_path: Path, recipe: str) -> None:
    flags = ["weak", "--root", str(tiny_voc), "--recipe", recipe, "--until", "report"]
    printed = torchrun("train.py", *flags, "--out", str(tmp_path / "out"))
    assert printed.count("step 7 of 7: report") == 1 and "7 steps in " in printed
    assert {path.stem for path in (tmp_path / "out" / "masks" / "F2").iterdir()} == set(TINY_IDS[:3])


def test_dry_run_prints_commands_that_can_be_run(
    tiny_voc: Path, tmp_path: Path, recipe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert weak(tiny_voc, tmp_path / "my out", recipe, "--dry-run", "--set", "epochs=7") == 0
    lines = capsys.readouterr().out.splitlines()
    # Without images to validate on, the steps on them are left out.
    assert [line.split()[1] for line in lines] == [*["train.py"] * 5, "expand.py", "evaluate.py", "train.py"]
    assert f"python train.py classify --root {tiny_voc} --resume --out '{tmp_path}/my out/classifier'" in lines[0]
    assert "--epochs 7" in lines[0] and not (tmp_path / "my out").exists()


@pytest.mark.parametrize("name", recipe_names())
def test_the_package_s_recipes_are_of_flags_that_there_are(
    tiny_voc: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    needed = {"transformer": ["weights=w.pt"], "own_maps": ["cams=maps"]}.get(name, [])
    flags = ["--dry-run", "--val-split", "val", "--device", "cpu", "--limit", "2", "--generations", "2"]
    assert weak(tiny_voc, tmp_path / "out", name, *flags, "--set", "seed=3", *needed) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 12 and all("--limit 2" in line for line in lines) and "--split val" in lines[-1]
    random = [line for line in lines if {"classify", "irn", "pixels", "expand.py", "segment"} & set(line.split()[1:3])]
    assert [line for line in lines if "--seed 3" in line] == random


def test_own_masks_are_scored_and_never_trained_on(
    tiny_voc: Path, tmp_path: Path, recipe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    voc = tiny_voc / "VOCdevkit" / "VOC2012"
    folder = ["--images", str(voc / "JPEGImages"), "--masks", str(voc / "SegmentationClass"), "--dry-run"]
    assert main(["weak", *folder, "--recipe", recipe, "--out", str(tmp_path / "out")]) == 0
    lines = dict(line.split(" ", 2)[1:] for line in capsys.readouterr().out.splitlines() if "segment" in line)
    assert "SegmentationClass" not in lines["train.py"] and f"--masks {tmp_path}/out/masks/F2" in lines["train.py"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--set", "epochs"], "--set: expected NAME=VALUE, got epochs"),
        (["--set", "epoch=1"], "--set: epoch: expected one of epochs in this recipe"),
        (["--set", "epochs=many"], "--recipe: step classifier: cannot be run, see above"),
        (["--until", "end"], "--until: expected one of classifier, maps, walk, "),
        (["--generations", "2"], "--generations: 2: the recipe "),
        (["--settled", "2"], "--settled: expected 0 to 1, got 2.0"),
    ],
)
def test_bad_values_are_named_before_anything_runs(
    tiny_voc: Path, tmp_path: Path, recipe: str, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert weak(tiny_voc, tmp_path / "out", recipe, *flags) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_step_that_fails_ends_it(tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps({"steps": {"maps": "train.py cams --checkpoint nowhere.pt", "again": "train.py irn"}}))
    assert weak(tiny_voc, tmp_path / "out", str(path)) == 2
    printed = capsys.readouterr()
    assert "train.py: error: step maps: nowhere.pt" in printed.err and "step 2" not in printed.out


def test_commands_that_do_not_exist_are_named(
    tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps({"steps": {"a": "rm -r /"}}))
    assert weak(tiny_voc, tmp_path / "out", str(path)) == 2
    assert "--recipe: step a: no such command as rm" in capsys.readouterr().err
