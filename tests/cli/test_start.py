"""Commands as a shell starts them: interrupted at any moment, without a standard output, or before one that ends."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY_IDS

from torch_svm_seg.cli import evaluate, label
from torch_svm_seg.cli.start import INTERRUPTED
from torch_svm_seg.data.folder_lock import locked

REPOSITORY = Path(__file__).parents[2]
QUICK = ["--features", "img", "--samples-per-class", "50", "--backbone", "resnet18", "--weights", "random"]

INTERRUPTS = "import os, signal, time\nfor _ in range(2):\n    os.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n"


def shell(command: str, *flags: str, after: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command in Bash, with what follows it there."""
    line = f'set -o pipefail; "$0" "$@" {after}'
    arguments = ["bash", "-c", line, sys.executable, f"{command}.py", *flags]
    return subprocess.run(arguments, cwd=REPOSITORY, capture_output=True, text=True)


def predictions(root: Path, out: Path) -> list[str]:
    """Return the flags of ``evaluate.py`` for ground truth scored against itself, all results included."""
    masks = root / "VOCdevkit/VOC2012/SegmentationClass"
    flags = ["--root", str(root), "--predictions", str(masks), "--out", str(out), "--json", str(out / "all.json")]
    return [*flags, "--report", str(out)]


@pytest.mark.parametrize(("given", "policy"), [({}, "passive"), ({"OMP_WAIT_POLICY": "active"}, "active")])
def test_threads_wait_without_a_core_unless_told_otherwise(tmp_path: Path, given: dict[str, str], policy: str) -> None:
    (tmp_path / "torch.py").write_text("import os\nos.write(1, os.environ['OMP_WAIT_POLICY'].encode())\nos._exit(0)\n")
    inherited = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment = inherited | given | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "evaluate.py"]
    found = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, policy)


@pytest.mark.parametrize("command", ["expand", "train", "evaluate", "label"])
def test_interrupted_twice_while_modules_are_imported(tmp_path: Path, command: str) -> None:
    (tmp_path / "numpy.py").write_text(INTERRUPTS)
    found = subprocess.run(
        [sys.executable, f"{command}.py", "--help"],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (found.returncode, found.stdout) == (INTERRUPTED, "")
    assert found.stderr == f"{command}.py: interrupted; nothing was done\n"


def test_an_interrupted_evaluation_leaves_the_results_of_before(
    tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = predictions(tiny_voc, tmp_path / "out")
    assert evaluate.main(flags) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    capsys.readouterr()

    def interrupted(*_: object, **__: object) -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(evaluate, "write_report", interrupted)
    assert evaluate.main(flags) == INTERRUPTED
    assert capsys.readouterr().err == "evaluate.py: interrupted; what was not written is as it was\n"
    assert {path.name for path in before} == {"all.json", "report.html", "results.csv", "results.md", "results.tex"}
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&- <&-"])
def test_a_closed_output_costs_evaluate_no_result(tiny_voc: Path, tmp_path: Path, closed: str) -> None:
    found = shell("evaluate", *predictions(tiny_voc, tmp_path), after=closed)
    assert (found.returncode, found.stdout) == (0, "")
    assert ("miou" in found.stderr or "mean" in found.stderr) == (closed == ">&-")
    assert json.loads((tmp_path / "all.json").read_text())["SegmentationClass"]["miou"] == 1.0
    assert (tmp_path / "report.html").read_text().rstrip().endswith("</html>")


def test_a_closed_output_costs_expand_nothing(tiny_voc: Path, tmp_path: Path) -> None:
    """The summary goes to the errors; with the closed one's number, the first file would take what is printed."""
    found = shell("expand", "--root", str(tiny_voc), "--out", str(tmp_path), *QUICK, after=">&-")
    assert found.returncode == 0 and "3 images expanded" in found.stderr
    assert {path.stem for path in (tmp_path / "img").iterdir()} == set(TINY_IDS[:3])
    assert json.loads((tmp_path / "run.json").read_text())["finished"]


def test_a_reader_that_goes_away_is_no_error(tiny_voc: Path, tmp_path: Path) -> None:
    for flags in (["--help"], predictions(tiny_voc, tmp_path)):
        found = shell("evaluate", *flags, after="| head -1")
        assert (found.returncode, found.stderr) == (0, "") and len(found.stdout.splitlines()) == 1
    assert (tmp_path / "report.html").read_text().rstrip().endswith("</html>")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's device that is always full")
def test_an_output_that_is_full_is_one_error(tiny_voc: Path, tmp_path: Path) -> None:
    found = shell("evaluate", *predictions(tiny_voc, tmp_path), after="> /dev/full")
    assert found.returncode == 2
    assert found.stderr == "evaluate.py: error: [Errno 28] No space left on device\n"


def test_a_folder_of_labels_is_of_one_page_at_a_time(
    tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, images = tmp_path / "labels", tiny_voc / "VOCdevkit/VOC2012/JPEGImages"
    with locked(out):
        assert label.main([str(images), "--out", str(out)]) == 2
        assert f"{out}: another run is writing into it" in capsys.readouterr().err
    assert not out.exists()
