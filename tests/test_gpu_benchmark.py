"""The benchmark that runs on a GPU works on any device; what it counts is what PyTorch dispatches."""

from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from benchmarks.operations import counted


def test_operations_and_waits_are_counted_and_views_are_not() -> None:
    values = torch.ones(4, 5)

    def work() -> None:
        total = (values.T + 1).sum()  # two operations, 20 and 1 numbers
        if total > 3:  # another one, of a byte, and a wait
            values[values > 0]  # two: the comparison and the reading, which waits for the number of entries

    count = counted(work)
    assert dict(count.operations) == {"add": 1, "sum": 1, "gt": 2, "index": 1}
    assert count.waits == 2
    assert count.written == 20 * 4 + 4 + 1 + 20 + 20 * 4


def test_everything_is_measured_in_small(tmp_path: Path, device: str) -> None:
    gpu.main(["--tiny", "--seconds", "0", "--device", device, "--skip-tests", "--out", str(tmp_path / "table.md")])
    text = (tmp_path / "table.md").read_text()
    sections = text.split("## ")[1:]
    assert [section.splitlines()[0] for section in sections] == [
        "Fit and labels",
        "Refinement",
        "Training",
        "Study of Table 1",
        "Masks equal to the CPU's",
    ]
    rows = [len([line for line in section.splitlines() if line.startswith("| ")]) - 1 for section in sections]
    assert rows == [6 * 2 * 2, 4 * 2, 2 * 2, 2, 6]
    equal = [float(line.split("|")[2]) for line in sections[-1].splitlines() if line.startswith(("| F", "| img"))]
    assert min(equal) > 99


def test_a_file_that_cannot_be_written_is_noticed_first(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        gpu.main(["--tiny", "--skip-tests", "--out", str(tmp_path)])
