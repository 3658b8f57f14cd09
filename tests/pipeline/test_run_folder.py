"""A folder's record: which outputs belong to which settings."""

import json
from pathlib import Path

import pytest
import torch

from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.provenance import RunSettings
from torch_svm_seg.pipeline.run_folder import (
    folder_digest,
    open_run,
    print_skipped,
    skip_reason,
    spoils_one_image,
)


def make(out: Path, *names: str) -> list[Path]:
    files = [out / name for name in names]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("old")
    return files


def test_a_run_continues_with_the_same_settings_alone(tmp_path: Path) -> None:
    open_run(tmp_path, RunSettings({"C": 1}), False, [])
    files = make(tmp_path, "F4/a.png", "F4/b.png")
    open_run(tmp_path, RunSettings({"C": 1}), False, files)
    with pytest.raises(InputError, match="C was 1, now 10"):
        open_run(tmp_path, RunSettings({"C": 10}), False, files)
    assert all(file.is_file() for file in files)
    open_run(tmp_path, RunSettings({"C": 10}), True, files)
    assert not any(file.is_file() for file in files)


def test_a_run_that_made_nothing_holds_no_folder(tmp_path: Path) -> None:
    open_run(tmp_path, RunSettings({"cams": "runs"}), False, [tmp_path / "F4/a.png"])
    open_run(tmp_path, RunSettings({"cams": "runs/cams"}), False, [tmp_path / "F4/a.png"])
    assert json.loads((tmp_path / "run.json").read_text())["settings"] == {"cams": "runs/cams"}


def test_many_skipped_images_are_not_all_printed(capsys: pytest.CaptureFixture[str]) -> None:
    print_skipped({str(number): "cut" for number in range(30)}, most=20)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 21 and printed[0] == "skipped 0: cut" and printed[-1].startswith("skipped 10 more")


def test_files_of_unknown_settings_are_not_taken_for_finished_work(tmp_path: Path) -> None:
    files = make(tmp_path, "a.png", "b.png")
    with pytest.raises(InputError, match=r"without a run\.json"):
        open_run(tmp_path, RunSettings({}), False, files)
    open_run(tmp_path, RunSettings({}), True, files)
    assert not any(file.is_file() for file in files)


@pytest.mark.parametrize("others", [["F4/c.png"], ["F3/a.png"]])
def test_overwriting_never_leaves_results_of_other_settings(tmp_path: Path, others: list[str]) -> None:
    """Those of other images, or of another feature."""
    open_run(tmp_path, RunSettings({"C": 1}), False, [])
    files = make(tmp_path, "F4/a.png", "F4/b.png")
    make(tmp_path, "overview.png", *others)
    with pytest.raises(InputError, match=r"1 more results of other settings .*C was 1, now 10"):
        open_run(tmp_path, RunSettings({"C": 10}), True, files)
    assert all(file.is_file() for file in files)
    open_run(tmp_path, RunSettings({"C": 1}), True, files)  # the same settings
    assert (tmp_path / others[0]).is_file()


def test_a_folder_is_told_by_the_settings_it_was_made_with(tmp_path: Path) -> None:
    """Not by when, nor by where it lies."""
    for name, settings in (("a", {"x": 1, "y": 2}), ("b", {"y": 2, "x": 1}), ("c", {"x": 1, "y": 3})):
        open_run(tmp_path / name / "cams", RunSettings(settings), False, [])
    first, second, third = (folder_digest(tmp_path / name / "cams") for name in "abc")
    assert first is not None and first.startswith("cams ")
    assert first == second != third
    (tmp_path / "plain").mkdir()
    assert folder_digest(tmp_path / "plain") == str(tmp_path / "plain")
    assert folder_digest(None) is None


def test_a_record_that_cannot_be_read_is_an_error_unless_overwritten(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(InputError, match=r"run\.json: not the record of a run"):
        open_run(tmp_path, RunSettings({"C": 1}), False, [])
    open_run(tmp_path, RunSettings({"C": 1}), True, [])
    assert json.loads((tmp_path / "run.json").read_text())["settings"] == {"C": 1}


def test_what_spoils_one_image_is_told_in_one_line() -> None:
    for error in (InputError("a.jpg: cut"), torch.OutOfMemoryError("CUDA out of memory\nat ...")):
        assert spoils_one_image(error)
        assert "\n" not in skip_reason(error)
    assert not spoils_one_image(OSError("disk full"))
