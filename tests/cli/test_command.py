"""Around the work of every command: interruptions, readers that go away, too little memory, hostile arguments."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import TINY_IDS

from torch_svm_seg.backbones.backbone import Backbone
from torch_svm_seg.cli.command import exit_code_of
from torch_svm_seg.cli.expand import main as expand
from torch_svm_seg.cli.train import main as train
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.training.checkpoints import Checkpoint, read_checkpoint, save_checkpoint

REPOSITORY = Path(__file__).parents[2]
NO_MEMORY = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"


def fail(error: BaseException) -> int:
    return exit_code_of("expand.py", lambda rank, processes: throw(error), "the same command continues")


def throw(error: BaseException) -> int:
    raise error


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("a.png: damaged"), 2, "expand.py: error: a.png: damaged"),
        (OSError(28, "No space left"), 2, "expand.py: error: [Errno 28] No space left"),
        (RuntimeError(NO_MEMORY), 2, "expand.py: error: not enough memory: [enforce fail"),
        (MemoryError(), 2, "expand.py: error: not enough memory"),
        (KeyboardInterrupt(), 130, "expand.py: interrupted; the same command continues"),
    ],
)
def test_errors_are_one_line(error: BaseException, code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert fail(error) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(message)


def test_a_fault_of_the_program_is_no_error_of_the_user() -> None:
    with pytest.raises(RuntimeError, match="shape"):
        fail(RuntimeError("shape"))


def test_a_second_interruption_does_not_disturb_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    left = []

    def work(rank: int, processes: int) -> int:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            signal.pause()
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            left.append("in order")
        return 0

    assert exit_code_of("evaluate.py", work, "nothing was written") == 130
    assert left == ["in order"] and signal.getsignal(signal.SIGINT) is before
    assert capsys.readouterr().err == "evaluate.py: interrupted; nothing was written\n"


def test_the_work_goes_on_when_nobody_reads_its_output(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from torch_svm_seg.cli.command import exit_code_of\n"
        "def work(rank, processes):\n"
        "    for line in range(20000): print('line', line)\n"
        f"    Path({str(tmp_path / 'done')!r}).write_text('yes')\n"
        "    return 0\n"
        "sys.exit(exit_code_of('evaluate.py', work, ''))"
    )
    head = subprocess.run(
        f'set -o pipefail; "{sys.executable}" -c "$SCRIPT" | head -1',
        env={**os.environ, "SCRIPT": script},
        shell=True,
        executable="/bin/bash",
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert (head.returncode, head.stdout, head.stderr) == (0, "line 0\n", "")
    assert (tmp_path / "done").read_text() == "yes"


def test_an_image_that_takes_too_much_memory_is_skipped(
    tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stages, calls = Backbone.stages, []

    def once(self: Backbone, images: torch.Tensor, names: object) -> dict[str, torch.Tensor]:
        calls.append(images)
        if len(calls) == 1:
            raise RuntimeError(NO_MEMORY)
        return stages(self, images, names)

    monkeypatch.setattr(Backbone, "stages", once)
    flags = ["--features", "img", "--samples-per-class", "50", "--out", str(tmp_path / "out")]
    assert expand(["--root", str(tiny_voc), *flags, "--weights", "random", "--backbone", "resnet18"]) == 1
    printed = capsys.readouterr().out
    assert f"skipped {TINY_IDS[0]}: " in printed and "2 images expanded, 0 were there, 1 skipped" in printed


SEED = ["--supervision", "seed", "--features", "none", "--baselines", "seed"]


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--samples-per-class", "1" + 30 * "0"], "--samples-per-class"),
        (["--samples-per-class", "0"], "--samples-per-class"),
        (["--device", "meta"], "--device meta"),
        (["--device", "nothing"], "--device nothing"),
        (["--approximation", "nystroem", "--components", "1000000000"], "--components"),
        (["--limit", "0"], "--limit"),
        ([*SEED, "--background", "power:-1"], "--background"),
        ([*SEED, "--background", "power:nan"], "--background"),
        ([*SEED, "--background", "constant:inf"], "--background"),
    ],
)
def test_hostile_arguments_of_expand_are_one_error(
    tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], named: str
) -> None:
    if "seed" in flags:
        flags = [*flags, "--cams", str(tmp_path)]
    try:
        code = expand(["--root", str(tiny_voc), "--out", str(tmp_path / "out"), *flags])
    except SystemExit as error:
        code = error.code
    assert code == 2 and not list((tmp_path).glob("out/*/*.png"))
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert named in last and len(last) <= 330


@pytest.mark.parametrize(
    ("command", "flags", "named"),
    [
        ("classify", ["--crop-size", "100000"], "--crop-size"),
        ("segment", ["--crop-size", "100000"], "--crop-size"),
        ("segment", ["--scale-range", "1", "inf"], "--scale-range"),
        ("segment", ["--scale-range", "nan", "1"], "--scale-range"),
        ("classify", ["--batch-size", "1" + 30 * "0"], "--batch-size"),
    ],
)
def test_hostile_arguments_of_trainings_are_one_error(
    tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, flags: list[str], named: str
) -> None:
    assert train([command, "--root", str(tiny_voc), "--out", str(tmp_path / "out"), *flags]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert named in line and len(line) <= 330


MODEL = {"weight": torch.ones(1)}


@pytest.mark.parametrize(
    ("checkpoint", "reason"),
    [
        (Checkpoint({"method": "cam"}, ("background", "cat"), {"model": MODEL}), "without the name of its backbone"),
        (Checkpoint({"method": 3}, ("background", "cat"), {"model": MODEL}), "without the name of its method"),
        (Checkpoint([], ("background", "cat"), {"model": MODEL}), "its settings"),  # type: ignore[arg-type]
        (Checkpoint({"method": "cam", "backbone": "resnet18"}, (), {"model": MODEL}), "trained on 0 classes"),
        (Checkpoint({}, ("background", 3), {"model": MODEL}), "its class_names"),  # type: ignore[arg-type]
        (Checkpoint({}, ("background", "cat"), {"model": [1]}), "its model"),
        (Checkpoint({}, ("background", "cat"), {"model": {"weight": torch.eye(3).to_sparse()}}), "its model"),
        (
            Checkpoint({"method": "cam", "backbone": "resnet18"}, ("background", "cat"), {"model": {"weight": 3}}),
            "does not fit resnet18",
        ),
    ],
)
def test_malformed_checkpoints_are_one_error(
    tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], checkpoint: Checkpoint, reason: str
) -> None:
    save_checkpoint(tmp_path / "n.pt", checkpoint)
    (tmp_path / "names.txt").write_text("background\ncat\n")
    images = ["--images", str(tiny_voc / "VOCdevkit/VOC2012/JPEGImages"), "--class-names", str(tmp_path / "names.txt")]
    (tmp_path / "l.json").write_text(f'{{"{TINY_IDS[0]}": ["cat"]}}')
    command = ["cams", *images, "--labels", str(tmp_path / "l.json"), "--checkpoint", str(tmp_path / "n.pt")]
    assert train([*command, "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "n.pt" in line and reason in line


@pytest.mark.parametrize("name", ["smp:Unet:tu-hf-hub:someone/network", "lite:timm:hf-hub:someone/network"])
def test_nothing_is_fetched_by_a_name_in_a_checkpoint(
    tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("connects to a server"))
    names = ("background", "cat")
    save_checkpoint(tmp_path / "n.pt", Checkpoint({"method": "segment", "network": name}, names, {"model": MODEL}))
    (tmp_path / "names.txt").write_text("background\ncat\n")
    images = ["--images", str(tiny_voc / "VOCdevkit/VOC2012/JPEGImages"), "--class-names", str(tmp_path / "names.txt")]
    assert train(["predict", *images, "--checkpoint", str(tmp_path / "n.pt"), "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "hf-hub:someone/network" in line


@pytest.mark.parametrize("step", [999, -1, "3", None])
def test_a_training_is_not_continued_from_a_step_that_it_has_not(
    tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], step: object
) -> None:
    out = tmp_path / "out"
    command = ["classify", "--root", str(tiny_voc), "--out", str(out), "--crop-size", "32", "--batch-size", "2"]
    command += ["--backbone", "resnet18", "--weights", "random"]
    assert train([*command, "--epochs", "1"]) == 0
    content = torch.load(out / "checkpoint.pt", weights_only=True)
    content["schedule"]["last_epoch"] = step
    torch.save(content, out / "checkpoint.pt")
    capsys.readouterr()
    assert train([*command, "--epochs", "1", "--resume"]) == 2
    assert "cannot be continued" in capsys.readouterr().err.strip().splitlines()[-1]


def test_flipped_weights_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "n.pt"
    save_checkpoint(path, Checkpoint({"method": "cam"}, ("background", "cat"), {"model": {"weight": torch.ones(64)}}))
    content = path.read_bytes()
    place = content.index(torch.ones(64).numpy().tobytes())
    path.write_bytes(content[:place] + b"\x01" + content[place + 1 :])
    with pytest.raises(InputError, match="a damaged one"):
        read_checkpoint(path)
