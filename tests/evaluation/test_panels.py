"""What a panel shows: images in their places, colours of the classes, white void, nothing clipped."""

import numpy as np
import pytest
import torch
from PIL import Image

from torch_svm_seg.evaluation.panels import CELL, GAP, TEXT, PanelRow, panel

NAMES = ["background", "aeroplane", "a class with quite a long name for a small panel"]
TOP = TEXT + 2 * GAP  # of the first row of images
MAROON = (128, 0, 0)  # VOC's colour of class 1


def item(height: int = 120, width: int = 160) -> torch.Tensor:
    return torch.full((3, height, width), 77, dtype=torch.uint8)


def mask(class_id: int, height: int = 120, width: int = 160) -> torch.Tensor:
    return torch.full((height, width), class_id)


def colours(picture: Image.Image) -> set[tuple[int, ...]]:
    return {tuple(colour) for colour in np.asarray(picture).reshape(-1, 3).tolist()}


def test_pictures_stand_side_by_side_in_the_order_of_the_titles() -> None:
    row = PanelRow(item(), [mask(1), mask(255)], truth=mask(0))
    picture = panel([row], ["F1", "F2"], NAMES)
    middle = TOP + 60
    lefts = [GAP + index * (160 + GAP) for index in range(4)]
    seen = [picture.getpixel((left + 80, middle)) for left in lefts]
    assert seen == [(77, 77, 77), (0, 0, 0), MAROON, (255, 255, 255)]
    assert picture.width == lefts[-1] + 160 + GAP


def test_a_second_image_goes_below() -> None:
    rows = [PanelRow(item(), [mask(1)]), PanelRow(item(60), [mask(0, 60)])]
    picture = panel(rows, ["F1"], NAMES)
    left = GAP + 160 + GAP + 80
    assert picture.getpixel((left, TOP + 60)) == MAROON
    assert picture.getpixel((left, TOP + 120 + GAP + 30)) == (0, 0, 0)


def test_columns_without_a_picture_are_left_out_and_single_gaps_stay_white() -> None:
    known = PanelRow(item(), [mask(1)], truth=mask(0))
    unknown = PanelRow(item(), [mask(1)])
    assert panel([unknown], ["F1"], NAMES).width == panel([known], ["F1"], NAMES).width - 160 - GAP
    both = panel([known, unknown], ["F1"], NAMES)
    truth_left = GAP + 160 + GAP
    assert colours(both.crop((truth_left, TOP + 120 + GAP, truth_left + 160, TOP + 2 * 120 + GAP))) == {(255, 255, 255)}


def test_sampled_pixels_are_dots_in_the_colour_of_their_class() -> None:
    samples = mask(255)
    samples[10, 20], samples[119, 159] = 1, 0
    picture = panel([PanelRow(item(), [], samples=samples)], [], NAMES)
    left = GAP + 160 + GAP
    shown = np.asarray(picture.crop((left, TOP, left + 160, TOP + 120)))
    assert shown[10, 20].tolist() == shown[11, 21].tolist() == list(MAROON)
    assert shown[119, 159].tolist() == [0, 0, 0]
    # All the rest is the image, faded towards white.
    rest = {tuple(colour) for colour in shown.reshape(-1, 3).tolist()} - {MAROON, (0, 0, 0)}
    assert len(rest) == 1
    assert 77 < rest.pop()[0] < 255


def test_large_images_are_scaled_down_with_their_masks_and_samples() -> None:
    samples = mask(255, 1000, 2000)
    samples[500, 1000] = 1
    row = PanelRow(item(1000, 2000), [mask(1, 1000, 2000)], samples=samples)
    picture = panel([row], ["F1"], NAMES)
    assert picture.width == 3 * (CELL + GAP) + GAP
    left = GAP + CELL + GAP
    dots = picture.crop((left, TOP, left + CELL, TOP + CELL // 2))
    assert dots.getpixel((CELL // 2, CELL // 4)) == MAROON
    assert picture.getpixel((left + CELL + GAP + CELL // 2, TOP + CELL // 4)) == MAROON


def test_scaling_a_mask_invents_no_class() -> None:
    stripes = (torch.arange(700) % 2).expand(700, 700)
    picture = panel([PanelRow(item(700, 700), [stripes])], ["F1"], NAMES)
    left = GAP + CELL + GAP
    assert colours(picture.crop((left + 1, TOP + 1, left + CELL - 1, TOP + CELL - 1))) == {(0, 0, 0), MAROON}


def test_titles_wider_than_the_pictures_do_not_overlap_or_touch_the_border() -> None:
    title = "a title far wider than its image"
    picture = panel([PanelRow(item(8, 8), [mask(0, 8, 8)] * 2)], [title, title], NAMES)
    band = np.asarray(picture.convert("L").crop((0, 0, picture.width, TOP)))
    inked = band.min(axis=0) < 200
    assert not inked[: GAP - 1].any()
    assert not inked[-GAP + 1 :].any()
    runs = np.flatnonzero(~inked[:-GAP])
    # Two equal titles: the ink repeats, with a gap of at least GAP between the two.
    gaps = [run.size for run in np.split(runs, np.flatnonzero(np.diff(runs) > 1) + 1)]
    assert sum(gap >= GAP - 2 for gap in gaps[1:]) >= 2


def test_legend_names_the_classes_shown_and_no_others() -> None:
    with_one = panel([PanelRow(item(), [mask(1)])], ["F1"], NAMES)
    without = panel([PanelRow(item(), [mask(0)])], ["F1"], NAMES)
    legend = (0, TOP + 120 + GAP, with_one.width, with_one.height)
    assert MAROON in colours(with_one.crop(legend))
    assert MAROON not in colours(without.crop(legend))
    assert (0, 0, 0) in colours(without.crop(legend))


def test_legend_wraps_and_widens_for_a_long_name() -> None:
    small = item(8, 8)
    one = panel([PanelRow(small, [mask(0, 8, 8)])], ["F1"], NAMES)
    all_classes = torch.arange(3).repeat(8, 3)[:, :8]
    three = panel([PanelRow(small, [all_classes])], ["F1"], NAMES)
    assert three.height > one.height
    assert three.width > one.width
    border = np.asarray(three)[:, -GAP + 1 :]
    assert (border == 255).all()


def test_void_has_a_legend_entry_where_a_mask_shows_it_but_not_around_samples() -> None:
    def legend(*rows: PanelRow) -> set[tuple[int, int, int]]:
        picture = panel(rows, ["F1"], NAMES)
        return colours(picture.crop((0, TOP + 120 + GAP, picture.width, picture.height)))

    assert len(legend(PanelRow(item(), [mask(255)]))) > 2  # its frame and name
    samples = mask(255)
    samples[0, 0] = 1
    assert legend(PanelRow(item(), [mask(1)], samples=samples)) == legend(PanelRow(item(), [mask(1)]))


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"rows: .*none"):
        panel([], ["F1"], NAMES)
    with pytest.raises(ValueError, match="expected 2 predictions per image, got 1"):
        panel([PanelRow(item(), [mask(0)])], ["F1", "F2"], NAMES)
