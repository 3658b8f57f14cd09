"""An overview that shows images, their ground truth, training pixels and masks side by side."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from torch_svm_seg.data.constants import VOID
from torch_svm_seg.data.palette import colorize

CELL = 320  # longest side of an image, in pixels
GAP = 12
TEXT = 20  # size of the letters and of the legend's squares
DOT = 2  # side of the square that a sampled pixel becomes
FADED = 0.6  # how far the image under the sampled pixels goes to white
BLACK, GREY, WHITE = (0, 0, 0), (150, 150, 150), (255, 255, 255)


@dataclass(frozen=True)
class PanelRow:
    """An image and its masks, which hold class ids, int64 (H, W), and 255 where there is none.

    Attributes:
        image: The image, uint8 (3, H, W).
        predictions: A mask for each of the panel's columns.
        truth: Ground truth, if known.
        samples: Class of each pixel that trained the classifier and 255 at all others, if known.

    Examples:
        >>> PanelRow(torch.zeros(3, 60, 80, dtype=torch.uint8), [torch.zeros(60, 80, dtype=torch.long)]).truth is None
        True
    """

    image: Tensor
    predictions: Sequence[Tensor]
    truth: Tensor | None = None
    samples: Tensor | None = None


def panel(rows: Sequence[PanelRow], columns: Sequence[str], class_names: Sequence[str]) -> Image.Image:
    """Draw one row per image, with titles above and the colours of the classes below.

    Pixels of class 255 are white. Large images are scaled down. A column that no row can fill is left out.

    Args:
        rows: The images.
        columns: Title of each prediction.
        class_names: Name of each class id.

    Raises:
        ValueError: There are no rows, or a row has more or fewer predictions than columns.

    Examples:
        >>> image, mask = torch.zeros(3, 120, 160, dtype=torch.uint8), torch.zeros(120, 160, dtype=torch.long)
        >>> panel([PanelRow(image, [mask])], ["F3"], ["background", "cat"]).size
        (356, 208)
    """
    if not rows:
        raise ValueError("rows: expected at least one image, got none")
    for row in rows:
        if len(row.predictions) != len(columns):
            raise ValueError(f"rows: expected {len(columns)} predictions per image, got {len(row.predictions)}")
    titles = ["image", "ground truth", "sampled pixels", *columns]
    grid = [_cells(row) for row in rows]
    used = [index for index in range(len(titles)) if any(cells[index] for cells in grid)]
    table = _table([titles[i] for i in used], [[cells[i] for i in used] for cells in grid])
    return _above(table, _legend(_class_ids(rows), class_names, table.width))


def _cells(row: PanelRow) -> list[Image.Image | None]:
    """Return the row's images from left to right, None where something is unknown."""
    return [
        _small(row.image),
        None if row.truth is None else _mask(row.truth),
        None if row.samples is None else draw_samples(row.image, row.samples),
        *map(_mask, row.predictions),
    ]


def shown_size(height: int, width: int) -> tuple[int, int]:
    """Return (width, height) on the panel of an image of this size.

    Examples:
        >>> shown_size(height=375, width=500)
        (320, 240)
    """
    scale = min(1.0, CELL / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _small(image: Tensor) -> Image.Image:
    whole = Image.fromarray(image.permute(1, 2, 0).cpu().numpy())
    return whole.resize(shown_size(*image.shape[1:]), Image.Resampling.LANCZOS)


def _mask(mask: Tensor) -> Image.Image:
    drawn = Image.fromarray(colours(mask)).resize(shown_size(*mask.shape), Image.Resampling.NEAREST)
    # Void at the border is as white as the page.
    ImageDraw.Draw(drawn).rectangle((0, 0, drawn.width - 1, drawn.height - 1), outline=GREY)
    return drawn


def draw_samples(image: Tensor, samples: Tensor) -> Image.Image:
    """Draw a dot of one size for each sampled pixel, however much the image was scaled down.

    Args:
        image: The image, uint8 (3, H, W).
        samples: Class of each sampled pixel, 255 at all others, (H, W).

    Examples:
        >>> draw_samples(torch.zeros(3, 60, 80, dtype=torch.uint8), torch.full((60, 80), 255)).size
        (80, 60)
    """
    grey = _small(image).convert("L").convert("RGB")
    canvas = np.array(Image.blend(grey, Image.new("RGB", grey.size, WHITE), FADED))
    rows, columns = np.nonzero(samples.cpu().numpy() != VOID)
    dots = colours(samples)[rows, columns]
    for down in range(DOT):
        for right in range(DOT):
            top = np.minimum(rows * grey.height // samples.shape[0] + down, grey.height - 1)
            left = np.minimum(columns * grey.width // samples.shape[1] + right, grey.width - 1)
            canvas[top, left] = dots
    return Image.fromarray(canvas)


def colours(ids: Tensor) -> NDArray[np.uint8]:
    """Return the colour of each class id, uint8 (H, W, 3); void is white.

    Examples:
        >>> colours(torch.tensor([[8, 255]])).tolist()
        [[[64, 0, 0], [255, 255, 255]]]
    """
    painted = colorize(ids)
    painted[ids.cpu().numpy() == VOID] = WHITE
    return painted


def _class_ids(rows: Sequence[PanelRow]) -> list[int]:
    """Return the ids that any mask of the panel shows, void last; among sampled pixels, void is the image."""
    masks = [mask for row in rows for mask in (row.truth, *row.predictions) if mask is not None]
    sampled = [row.samples[row.samples != VOID] for row in rows if row.samples is not None]
    return sorted({id for mask in (*masks, *sampled) for id in np.unique(mask.cpu().numpy()).tolist()})


def _table(titles: Sequence[str], grid: Sequence[Sequence[Image.Image | None]]) -> Image.Image:
    """Draw titled columns of images, each as wide as its widest image or title."""
    font = ImageFont.load_default(size=TEXT)
    widths = [
        max(math.ceil(font.getlength(title)), *(cell.width for cell in column if cell))
        for title, column in zip(titles, zip(*grid, strict=True), strict=True)
    ]
    heights = [max(cell.height for cell in cells if cell) for cells in grid]
    *lefts, right = accumulate((width + GAP for width in widths), initial=GAP)
    *tops, bottom = accumulate((height + GAP for height in heights), initial=TEXT + 2 * GAP)

    canvas = Image.new("RGB", (right, bottom), WHITE)
    draw = ImageDraw.Draw(canvas)
    for title, left, width in zip(titles, lefts, widths, strict=True):
        draw.text((left + width // 2, GAP + TEXT // 2), title, fill=BLACK, font=font, anchor="mm")
    for cells, top in zip(grid, tops, strict=True):
        for cell, left, width in zip(cells, lefts, widths, strict=True):
            if cell:
                canvas.paste(cell, (left + (width - cell.width) // 2, top))
    return canvas


def _legend(class_ids: Sequence[int], class_names: Sequence[str], width: int) -> Image.Image:
    """Draw a coloured square and a name for each class, in as many lines as the width asks for."""
    entries = [_legend_entry(id, "no label" if id == VOID else class_names[id]) for id in class_ids]
    width = max([width, *(2 * GAP + entry.width for entry in entries)])
    corners, left, top = [], GAP, 0
    for entry in entries:
        if left + entry.width + GAP > width:
            left, top = GAP, top + TEXT + GAP
        corners.append((left, top))
        left += entry.width + 2 * GAP
    canvas = Image.new("RGB", (width, top + TEXT + GAP), WHITE)
    for entry, corner in zip(entries, corners, strict=True):
        canvas.paste(entry, corner)
    return canvas


def _legend_entry(class_id: int, name: str) -> Image.Image:
    font = ImageFont.load_default(size=TEXT)
    red, green, blue = colours(torch.tensor([[class_id]]))[0, 0].tolist()
    entry = Image.new("RGB", (TEXT + GAP // 2 + math.ceil(font.getlength(name)), TEXT + GAP // 2), WHITE)
    draw = ImageDraw.Draw(entry)
    draw.rectangle((0, 0, TEXT - 1, TEXT - 1), fill=(red, green, blue), outline=GREY)
    draw.text((TEXT + GAP // 2, TEXT // 2), name, fill=BLACK, font=font, anchor="lm")
    return entry


def _above(upper: Image.Image, lower: Image.Image) -> Image.Image:
    """Two images, one above the other."""
    canvas = Image.new("RGB", (max(upper.width, lower.width), upper.height + lower.height), WHITE)
    canvas.paste(upper, (0, 0))
    canvas.paste(lower, (0, upper.height))
    return canvas
