"""The report opened and used in a real browser; skipped where there is none."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from torch_svm_seg.cli.evaluate import main
from torch_svm_seg.data.constants import VOC_CLASSES
from torch_svm_seg.data.io import save_mask
from torch_svm_seg.data.voc import voc2012

PHONE = {"width": 390, "height": 844}


@pytest.fixture
def report(tiny_voc: Path, tmp_path: Path) -> Path:
    """A ladder of two steps in which every class of VOC is predicted somewhere, so that all tables are wide."""
    dataset = voc2012(tiny_voc, "train")
    for place, id in enumerate(dataset.ids):
        truth = dataset.mask(place)
        stripes = torch.arange(truth.shape[1]).expand_as(truth) % len(VOC_CLASSES)
        save_mask(tmp_path / "a step with quite a long name" / f"{id}.png", stripes)
        save_mask(tmp_path / "F3" / f"{id}.png", truth)
    folders = [str(tmp_path / name) for name in ("a step with quite a long name", "F3")]
    assert main(["--root", str(tiny_voc), "--predictions", *folders, "--report", str(tmp_path / "out")]) == 0
    return tmp_path / "out" / "report.html"


@pytest.fixture
def page(browser: Any, report: Path) -> Iterator[Any]:
    """The opened page, which must not write an error to the console nor ask for anything from outside."""
    page = browser.new_page(viewport=PHONE)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(request.url) if request.url.startswith("http") else None)
    page.goto(report.as_uri())
    yield page
    page.close()
    assert complaints == []


def column(page: Any, number: int) -> list[str]:
    cells: list[str] = page.locator(f".classes tbody tr > :nth-child({number})").all_inner_texts()
    return [cell.strip() for cell in cells]


def test_heads_sort_the_classes_by_click_and_by_keyboard(page: Any) -> None:
    names = column(page, 1)
    assert names == list(VOC_CLASSES)
    head = page.locator(".classes th:nth-child(2)")
    assert head.get_attribute("aria-sort") == "none"

    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    values = list(map(float, column(page, 2)))
    assert values == sorted(values, reverse=True) != sorted(values)
    assert page.locator(".classes tfoot th").inner_text() == "mean"

    head.get_by_role("button").press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert list(map(float, column(page, 2))) == sorted(values)

    page.locator(".classes th:nth-child(1) button").click()
    assert head.get_attribute("aria-sort") == "none"
    assert column(page, 1) == sorted(VOC_CLASSES)
    for _ in range(2):
        page.locator(".classes th:nth-child(1) button").click()
    assert column(page, 1) == names


def test_cells_without_a_figure_stay_last(page: Any) -> None:
    # In F3, which is the ground truth, only three classes have a figure.
    head = page.locator(".classes th:nth-child(3) button")
    for _ in range(2):
        head.click()
        assert column(page, 3) == ["100.00"] * 3 + ["-"] * 18


def test_a_phone_shows_all_of_it(page: Any) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    # What is wider than the phone scrolls in its own box, which the keyboard reaches.
    boxes = page.locator(".scroll")
    wide = boxes.evaluate_all(
        "boxes => boxes.filter(box => box.scrollWidth > box.clientWidth).map(box => box.tabIndex)"
    )
    assert len(wide) >= 2
    assert set(wide) == {0}


def test_figures_of_an_image_stand_side_by_side(page: Any) -> None:
    figures = page.locator("article").first.locator("figure")

    def rows() -> list[int]:
        tops = figures.evaluate_all("all => all.map(figure => Math.round(figure.getBoundingClientRect().bottom))")
        return [tops.count(top) for top in sorted(set(tops))]

    assert rows() == [2, 2]  # image, ground truth and two steps
    page.set_viewport_size({"width": 1280, "height": 800})
    assert rows() == [4]


def test_dark_and_light(page: Any) -> None:
    def background(scheme: str) -> list[int]:
        page.emulate_media(color_scheme=scheme)
        colour: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return [int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]

    assert sum(background("dark")) < 100 < 700 < sum(background("light"))
