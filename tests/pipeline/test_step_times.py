"""Times of steps: kept over runs, and what they say about the steps that are left."""

from pathlib import Path

import pytest

from torch_svm_seg.pipeline.step_times import StepTimes

PACE = {"maps": 0.5, "masks": 1.0, "network": 2.0}


def test_what_is_left_follows_from_how_much_slower_this_machine_is(tmp_path: Path) -> None:
    times = StepTimes.open(tmp_path / "times.json", PACE)
    times.add("maps", 150.0, work=100, done=True)  # three times as long as the pace says
    assert times.left([("masks", 100), ("network", 10)]) == pytest.approx(3 * (100 + 20))
    times.add("masks", 100.0, work=100, done=True)
    assert times.left([("network", 10)]) == pytest.approx(250 / 150 * 20)
    assert times.left([]) == 0
    assert times.left([("network", 10), ("report", 1)]) is None  # of unknown pace


def test_a_step_in_parts_takes_the_sum_and_one_that_was_done_takes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "times.json"
    StepTimes.open(path, PACE).add("maps", 30.0, work=100, done=False)
    again = StepTimes.open(path, PACE)
    assert again.left([("masks", 100)]) is None and not again.is_done("maps", 100)
    again.add("maps", 20.0, work=100, done=True)
    again.add("maps", 0.1, work=100, done=True)
    times = StepTimes.open(path, PACE)
    assert times.steps["maps"].seconds == 50 and times.left([("maps", 100), ("masks", 100)]) == pytest.approx(100)
    # More images: the step goes on.
    assert not times.is_done("maps", 200)
    times.add("maps", 60.0, work=200, done=True)
    assert times.steps["maps"].seconds == 110 and times.left([("masks", 100)]) == pytest.approx(110)


@pytest.mark.parametrize("content", ["", "[1]", '{"maps": 3}', '{"maps": {"seconds": 1}}'])
def test_times_that_cannot_be_read_are_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "times.json"
    path.write_text(content)
    times = StepTimes.open(path, PACE)
    assert times.steps == {}
    times.add("maps", 50.0, work=100, done=True)
    assert StepTimes.open(path, PACE).steps["maps"].seconds == 50
