"""Small parts that several sections of a report share."""

import math

import torch

from torch_svm_seg.evaluation.panels import colours
from torch_svm_seg.report.markup import Markup, tag

NO_VALUE = "-"
MINUS = "\N{MINUS SIGN}"


def scroll_box(label: str, content: Markup) -> Markup:
    """A box that scrolls where its content is wider than the page, by keyboard too."""
    return tag("div", content, class_="scroll", role="region", aria_label=label, tabindex="0")


def chip(class_id: int) -> Markup:
    """Gives a square in the colour of a class."""
    red, green, blue = colours(torch.tensor([[class_id]]))[0, 0].tolist()
    return tag("span", class_="chip", style=f"background:rgb({red},{green},{blue})", aria_hidden="true")


def percent(value: float) -> str:
    """Gives a share from 0 to 1 in percent; NaN is a dash."""
    return NO_VALUE if math.isnan(value) else f"{100 * value:.2f}"


def gain_text(value: float, before: float) -> str:
    """Gives the difference of two shares in points of percent, with its sign."""
    gain = 100 * (value - before)
    return NO_VALUE if math.isnan(gain) else f"{gain:+.2f}".replace("-", MINUS)


def sign_class(gain: str) -> str | None:
    """Gives the style of a gain's text."""
    return {"+": "up", MINUS: "down"}.get(gain[:1])
