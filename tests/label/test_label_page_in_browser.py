"""The labelling page used in a real browser with real strokes; skipped where there is none."""

import gc
import json
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from label_files import NAMES, SIZE, open_session, running, truth, write_images

from torch_svm_seg.data.io import read_mask
from torch_svm_seg.data.points import read_points
from torch_svm_seg.label.server import LabelServer

DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
Corner = tuple[float, float]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LabelServer]:
    write_images(tmp_path / "images")
    with running(open_session(tmp_path)) as server:
        yield server


class Tab:
    """A tab with the labelling page, used as a person does."""

    def __init__(self, page: Any, address: str) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(address)
        self.wait(0)

    def wait(self, strokes: int) -> None:
        """Wait until the mask that follows from so many strokes is shown."""
        self.page.locator(f'body[data-shown="{strokes}"]').wait_for()

    def wait_for_image(self, name: str, strokes: int) -> None:
        """Wait until another image is shown, with the mask that follows from its strokes."""
        self.page.locator("#name", has_text=name).wait_for()
        self.wait(strokes)

    def place(self, corner: Corner) -> Corner:
        """Return where a pixel of the image is on the page."""
        box = self.page.locator("#strokes").bounding_box()
        return box["x"] + corner[0] / SIZE[1] * box["width"], box["y"] + corner[1] / SIZE[0] * box["height"]

    def press(self, *corners: Corner) -> None:
        """Press the mouse at the first corner and move it over the others."""
        self.page.mouse.move(*self.place(corners[0]))
        self.page.mouse.down()
        for corner in corners[1:]:
            self.page.mouse.move(*self.place(corner), steps=4)

    def draw(self, key: str, *corners: Corner) -> None:
        """Draw a line of the class of a key."""
        self.page.keyboard.press(key)
        self.press(*corners)
        self.page.mouse.up()

    def status(self) -> str:
        text: str = self.page.locator("#status").inner_text()
        return text


@pytest.fixture
def tab(browser: Any, server: LabelServer) -> Iterator[Tab]:
    context = browser.new_context(viewport=DESKTOP)
    tab = Tab(context.new_page(), server.address)
    yield tab
    context.close()
    assert tab.complaints == []


def strokes_on(server: LabelServer, index: int) -> list[tuple[int, int]]:
    """Class and number of corners of each stroke that is kept."""
    return [(stroke.class_id, len(stroke.corners)) for stroke in server.session.open(index).strokes]


def test_strokes_become_a_mask_that_is_saved_and_shown(tab: Tab, server: LabelServer, tmp_path: Path) -> None:
    tab.draw("1", (4, 4), (14, 40))
    tab.draw("2", (40, 30), (60, 44))
    tab.draw("0", (28, 6), (60, 16))
    tab.wait(3)
    mask = read_mask(tmp_path / "labels" / "masks" / "image0.png")
    assert float((mask == truth()).float().mean()) > 0.99
    assert "1 of 3, 1 labelled" in tab.status()
    shown = tab.page.locator("#mask")
    assert shown.is_visible()
    assert shown.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [64, 48]
    assert [class_id for class_id, _ in strokes_on(server, 0)] == [1, 2, 0]


def test_a_click_is_a_point_at_its_pixel(tab: Tab, tmp_path: Path) -> None:
    tab.draw("2", (41.5, 29.5))
    tab.wait(1)
    (point,) = read_points(tmp_path / "labels" / "points.json", NAMES)["image0"].points
    assert (int(point.x), int(point.y), point.class_id) == (41, 29, 2)


def test_zoom_keeps_pixels_where_they_are(tab: Tab, tmp_path: Path) -> None:
    tab.page.locator("#zoom").select_option("4")
    box = tab.page.locator("#strokes").bounding_box()
    assert box["width"] > DESKTOP["width"]
    tab.page.locator("#stage").evaluate("stage => stage.scrollTo(stage.scrollWidth, stage.scrollHeight)")
    tab.draw("1", (60.5, 45.5))
    tab.wait(1)
    (point,) = read_points(tmp_path / "labels" / "points.json", NAMES)["image0"].points
    assert (int(point.x), int(point.y)) == (60, 45)


def test_undo_eraser_and_images_by_keyboard(tab: Tab, server: LabelServer) -> None:
    tab.draw("1", (4, 4), (10, 10))
    tab.wait(1)
    tab.draw("e", (4, 4), (10, 10))
    tab.wait(2)
    assert not tab.page.locator("#mask").is_visible()
    tab.page.keyboard.press("Control+z")
    tab.wait(1)
    assert tab.page.locator("#mask").is_visible()
    tab.page.keyboard.press("m")
    assert not tab.page.locator("#mask").is_visible()
    tab.page.keyboard.press("u")
    assert tab.page.locator("#unsure").is_checked()
    tab.page.keyboard.press("ArrowLeft")
    tab.wait_for_image("image2", strokes=0)
    tab.page.keyboard.press("n")
    tab.wait_for_image("image1", strokes=0)
    tab.page.keyboard.press("ArrowLeft")
    tab.wait_for_image("image0", strokes=1)
    tab.page.keyboard.press("z")
    tab.wait(0)
    assert strokes_on(server, 0) == []


def test_classes_are_chosen_by_buttons_that_say_so(tab: Tab, server: LabelServer) -> None:
    button = tab.page.get_by_role("radio", name="green")
    assert button.get_attribute("aria-checked") == "false"
    button.click()
    assert button.get_attribute("aria-checked") == "true"
    tab.press((50, 40))
    tab.page.mouse.up()
    tab.wait(1)
    assert strokes_on(server, 0) == [(2, 1)]


def test_two_tabs_on_one_image_lose_nothing(tab: Tab, server: LabelServer) -> None:
    other = Tab(tab.page.context.new_page(), server.address)
    tab.draw("1", (4, 4), (14, 40))
    tab.wait(1)
    other.draw("0", (28, 6), (60, 16))
    other.wait(2)  # it learns of the other tab's stroke with its own
    tab.page.bring_to_front()
    tab.draw("2", (40, 30), (60, 44))
    tab.wait(3)
    assert [class_id for class_id, _ in strokes_on(server, 0)] == [1, 0, 2]
    assert other.complaints == []


def test_a_tab_closed_in_the_middle_of_a_stroke_leaves_none(tab: Tab, server: LabelServer) -> None:
    other = Tab(tab.page.context.new_page(), server.address)
    other.press((4, 4), (14, 40))
    other.page.close()
    tab.page.bring_to_front()
    tab.draw("0", (28, 6), (60, 16))
    tab.wait(1)
    assert [class_id for class_id, _ in strokes_on(server, 0)] == [0]


def test_strokes_of_a_broken_connection_are_sent_again(tab: Tab, server: LabelServer) -> None:
    tab.page.context.set_offline(True)
    tab.draw("1", (4, 4), (14, 40))
    tab.draw("0", (28, 6), (60, 16))
    tab.page.locator("#status.bad").wait_for()
    assert "not saved yet" in tab.status()
    assert strokes_on(server, 0) == []
    tab.page.context.set_offline(False)
    tab.wait(2)
    assert [class_id for class_id, _ in strokes_on(server, 0)] == [1, 0]
    assert all("ERR_INTERNET_DISCONNECTED" in text for text in tab.complaints)
    tab.complaints.clear()


def test_another_start_shows_what_was_drawn(tab: Tab, tmp_path: Path) -> None:
    tab.draw("1", (4, 4), (14, 40))
    tab.wait(1)
    with running(open_session(tmp_path)) as server:
        tab.page.goto(server.address)
        tab.wait(1)
        assert tab.page.locator("#mask").is_visible()


def test_many_strokes_take_no_more_memory(tab: Tab, server: LabelServer) -> None:
    def tensors() -> int:
        gc.collect()
        return sum(type(entry) is torch.Tensor for entry in gc.get_objects())

    counts = {}
    for number in range(1, 16):
        tab.draw(str(number % 3), (2 + number, 3), (3 + number, 40))
        tab.wait(number)
        if number in (5, 15):
            counts[number] = tensors()
    assert counts[15] <= counts[5]


def test_a_phone_shows_all_of_it_and_takes_touches(browser: Any, server: LabelServer) -> None:
    context = browser.new_context(viewport=PHONE, has_touch=True, is_mobile=True)
    tab = Tab(context.new_page(), server.address)
    assert tab.page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    box = tab.page.locator("#strokes").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"]
    assert box["width"] > 0.8 * PHONE["width"]
    for name in ("green", "eraser"):
        assert tab.page.get_by_role("radio", name=name).is_visible()
    tab.page.get_by_role("radio", name="green").tap()
    tab.page.touchscreen.tap(*tab.place((50, 40)))
    tab.wait(1)
    assert strokes_on(server, 0) == [(2, 1)]
    context.close()
    assert tab.complaints == []


def test_another_page_of_the_browser_can_neither_read_nor_write(
    browser: Any, server: LabelServer, tmp_path: Path
) -> None:
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "index.html").write_text("<title>evil</title>")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "evil"))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    elsewhere = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=elsewhere.serve_forever, daemon=True).start()
    page = browser.new_page()
    page.goto(f"http://localhost:{elsewhere.server_port}/")
    stroke = json.dumps({"key": "a", "class_id": 1, "corners": [[1, 1]], "width": 3})
    attempts = [
        ("images", "{}"),
        ("images", "{mode: 'no-cors'}"),
        ("add/0", f"{{method: 'POST', body: {stroke!r}, headers: {{'Content-Type': 'application/json'}}}}"),
        ("add/0", f"{{method: 'POST', mode: 'no-cors', body: {stroke!r}, headers: {{'Content-Type': 'text/plain'}}}}"),
    ]
    for path, options in attempts:  # with an address that it cannot know
        read = page.evaluate(f"fetch('{server.address}{path}', {options}).then(a => a.text()).catch(() => '')")
        assert read == ""
    shown = (
        f"new Promise(done => {{const i = new Image(); i.onload = () => done(1); i.onerror = () => done(0);"
        f" i.src = '{server.address}image/0'}})"
    )
    assert page.evaluate(shown) == 0
    page.close()
    elsewhere.shutdown()
    elsewhere.server_close()
    assert strokes_on(server, 0) == []
