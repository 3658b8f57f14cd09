"""The tutorials run as they are, and end as their text says."""

import runpy
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "docs" / "tutorials"


def run(name: str) -> dict[str, object]:
    return runpy.run_path(str(FOLDER / f"{name}.py"))


def test_study_one_image() -> None:
    scores = run("study_one_image")["scores"]
    assert scores["img"] < scores["F1"] < scores["F2"] < scores["F3"] < scores["F1+F3+F4"]  # type: ignore[index]
    assert scores["mirror image"] > scores["img"] + 0.3  # type: ignore[index]


def test_masks_from_your_maps() -> None:
    names = run("masks_from_your_maps")
    assert names["exit_code"] == 0
    scores = names["scores"]
    assert scores["seed"] < scores["F1+F3+F4"] < scores["F1+F3+F4+crf"]  # type: ignore[index]


def test_svm_in_your_loop() -> None:
    names = run("svm_in_your_loop")
    assert names["accuracy"] > 0.85  # type: ignore[operator]
    for losses in ("losses", "own_losses", "through_fit"):
        assert names[losses][-1] < 0.95 * names[losses][0]  # type: ignore[index]
