"""Masks whose stored values mean something else: 0 and 255, colours, renumbered palettes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from torch_svm_seg.data.constants import VOC_CLASSES
from torch_svm_seg.data.dataset import Conventions
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.folder import folder
from torch_svm_seg.data.io import save_mask
from torch_svm_seg.data.mask_files import MaskFiles
from torch_svm_seg.data.palette import colorize, voc_palette

PAIR = ("background", "cat")
SHAPES = torch.tensor([[0, 0, 8, 8], [0, 15, 15, 255]])


def masks_of(folder: Path, ids: list[str], names: tuple[str, ...] = VOC_CLASSES, **more: object) -> MaskFiles:
    return MaskFiles(folder, names, ids, **more)  # type: ignore[arg-type]


def save_grey(path: Path, values: list[list[int]]) -> None:
    Image.fromarray(np.array(values, np.uint8)).save(path)


def save_renumbered(path: Path, mask: Tensor) -> None:
    """What an optimiser of PNGs leaves: ids 0, 1, 2, ..., with the colours that there were."""
    used, numbers = np.unique(mask.numpy(), return_inverse=True)
    image = Image.fromarray(numbers.reshape(mask.shape).astype(np.uint8))
    image.putpalette(np.array(voc_palette()).reshape(-1, 3)[used].flatten().tolist())
    image.save(path)


# 0 and 255


def test_255_is_the_object_where_all_masks_of_two_classes_hold_but_0_and_255(tmp_path: Path) -> None:
    save_grey(tmp_path / "a.png", [[0, 255], [255, 0]])
    save_grey(tmp_path / "b.png", [[0, 0], [0, 0]])
    masks = masks_of(tmp_path, ["a", "b"], PAIR)
    assert masks.read("a").tolist() == [[0, 1], [1, 0]] and masks.read("b").tolist() == [[0, 0], [0, 0]]


def test_255_stays_void_where_one_mask_of_the_set_has_a_class(tmp_path: Path) -> None:
    """Also for an image whose own mask would not tell, and where only that image is opened."""
    save_grey(tmp_path / "a.png", [[0, 255], [255, 0]])
    save_grey(tmp_path / "b.png", [[0, 1], [255, 0]])
    (tmp_path / "images").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (2, 2)).save(tmp_path / "images" / f"{name}.png")
    (tmp_path / "names.txt").write_text("background\ncat\n")
    dataset = folder(tmp_path / "images", tmp_path, tmp_path / "names.txt")
    assert dataset.subset([0]).mask(0).tolist() == [[0, 255], [255, 0]]
    assert dataset.notes.lines() == []


def test_0_and_255_of_many_classes_is_one_error(tmp_path: Path) -> None:
    save_grey(tmp_path / "a.png", [[0, 255]])
    with pytest.raises(InputError, match="all masks hold only 0 and 255, but there are 21 classes; give --class-names"):
        masks_of(tmp_path, ["a"]).read("a")
    assert masks_of(tmp_path, ["a"], form="ids").read("a").tolist() == [[0, 255]]


def test_masks_that_are_all_void_are_not_all_object(tmp_path: Path) -> None:
    save_grey(tmp_path / "a.png", [[255, 255]])
    assert masks_of(tmp_path, ["a"], PAIR).read("a").tolist() == [[255, 255]]


def test_masks_that_this_project_wrote_have_255_where_unsure(tmp_path: Path) -> None:
    (tmp_path / "F4").mkdir()
    save_grey(tmp_path / "F4" / "a.png", [[0, 255]])
    assert masks_of(tmp_path / "F4", ["a"], PAIR).read("a").tolist() == [[0, 1]]
    (tmp_path / "run.json").write_text("{}")
    assert masks_of(tmp_path / "F4", ["a"], PAIR).read("a").tolist() == [[0, 255]]


def test_binary_can_be_asked_for(tmp_path: Path) -> None:
    save_grey(tmp_path / "a.png", [[255, 255]])
    assert masks_of(tmp_path, ["a"], PAIR, form="binary").read("a").tolist() == [[1, 1]]
    save_grey(tmp_path / "b.png", [[0, 7]])
    with pytest.raises(InputError, match=r"b\.png: expected a mask of 0 and 255, got 0, 7"):
        masks_of(tmp_path, ["b"], PAIR, form="binary").read("b")
    with pytest.raises(InputError, match="of two classes, but there are 21"):
        masks_of(tmp_path, ["a"], form="binary").read("a")


# Colours


def test_an_image_in_the_palette_s_colours_is_its_classes(tmp_path: Path) -> None:
    Image.fromarray(colorize(SHAPES)).save(tmp_path / "a.png")
    masks = masks_of(tmp_path, ["a"])
    assert torch.equal(masks.read("a"), SHAPES)


def test_a_black_image_is_background_only_among_coloured_masks(tmp_path: Path) -> None:
    Image.new("RGB", (4, 2)).save(tmp_path / "b.png")
    with pytest.raises(InputError, match=r"b\.png: a colour image \(mode RGB\)"):
        masks_of(tmp_path, ["b"]).read("b")
    Image.fromarray(colorize(SHAPES)).save(tmp_path / "a.png")
    assert not masks_of(tmp_path, ["b", "a"]).read("b").any()


@pytest.mark.parametrize(
    ("mask", "names", "message"),
    [
        (None, VOC_CLASSES, r"colour \(1, 2, 3\) is none of the known palette"),
        (SHAPES, ("background", "cat", "dog"), r"is of class 8, but there are 3"),
    ],
)
def test_other_colours_are_named(tmp_path: Path, mask: Tensor | None, names: tuple[str, ...], message: str) -> None:
    pixels = np.full((2, 2, 3), (1, 2, 3), np.uint8) if mask is None else colorize(mask)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=rf"a\.png: a colour image \(mode RGB\) .*{message}"):
        masks_of(tmp_path, ["a"], names).read("a")


def test_a_renumbered_palette_of_voc_is_read_by_its_colours(tmp_path: Path) -> None:
    save_renumbered(tmp_path / "a.png", SHAPES)
    masks = masks_of(tmp_path, ["a"])
    assert torch.equal(masks.read("a"), SHAPES)
    assert masks_of(tmp_path, ["a"], form="ids").read("a").tolist() == [[0, 0, 1, 1], [0, 2, 2, 3]]


def test_of_other_classes_a_renumbered_palette_needs_the_flag(tmp_path: Path) -> None:
    """Its colours might be no more than somebody's choice."""
    names = ("background", *(f"class {number}" for number in range(1, 21)))
    save_renumbered(tmp_path / "a.png", SHAPES)
    with pytest.raises(InputError, match=r"a\.png: stores ids .*--masks-form ids or --masks-form colors"):
        masks_of(tmp_path, ["a"], names).read("a")
    assert torch.equal(masks_of(tmp_path, ["a"], names, form="colors").read("a"), SHAPES)


def test_a_greyscale_mask_made_a_palette_image_is_read_by_its_greys(tmp_path: Path) -> None:
    """As Pillow's ``quantize`` and programs that optimise PNG do it; a palette of more greys is somebody's choice."""
    image = Image.fromarray(SHAPES.numpy().astype(np.uint8)).quantize()
    image.save(tmp_path / "a.png")
    masks = masks_of(tmp_path, ["a"])
    assert torch.equal(masks.read("a"), SHAPES)
    assert not torch.equal(masks_of(tmp_path, ["a"], form="ids").read("a"), SHAPES)
    ramp = Image.fromarray(np.array([[0, 1]], np.uint8))
    ramp.putpalette([value for id in range(21) for value in 3 * [12 * id]])
    ramp.save(tmp_path / "a.png")
    assert masks_of(tmp_path, ["a"]).read("a").tolist() == [[0, 1]]


def test_black_and_white_are_two_classes_of_their_ids(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8))
    image.putpalette([0, 0, 0, 255, 255, 255])
    image.save(tmp_path / "a.png")
    assert masks_of(tmp_path, ["a"], PAIR).read("a").tolist() == [[0, 1]]


@pytest.mark.parametrize("palette", [[200, 200, 200] * 256, list(range(256)) * 3, [0, 0, 0, 0, 0, 128, 0, 128, 0]])
def test_palettes_of_other_colours_or_classes_leave_the_ids_alone(tmp_path: Path, palette: list[int]) -> None:
    """The last one has VOC's colours of the ids 4 and 2, which three classes do not have both."""
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
    image.putpalette(palette)
    image.save(tmp_path / "a.png")
    assert masks_of(tmp_path, ["a"], ("background", "cat", "dog")).read("a").tolist() == [[0, 1, 2]]


def test_masks_as_they_usually_are_have_no_note(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (4, 2)).save(tmp_path / "images" / "a.png")
    save_mask(tmp_path / "a.png", SHAPES)
    dataset = folder(tmp_path / "images", tmp_path)
    assert torch.equal(dataset.mask(0), SHAPES) and dataset.notes.lines() == []


def test_the_colours_of_a_label_map_are_its_classes(tmp_path: Path) -> None:
    """CVAT's: cat has VOC's colour of 8, and is class 1."""
    (tmp_path / "images").mkdir()
    Image.new("RGB", (2, 1)).save(tmp_path / "images" / "a.png")
    (tmp_path / "labelmap.txt").write_text("# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:64,0,0::\n")
    Image.fromarray(np.array([[[0, 0, 0], [64, 0, 0]]], np.uint8)).save(tmp_path / "a.png")
    dataset = folder(tmp_path / "images", tmp_path, tmp_path / "labelmap.txt")
    assert dataset.class_names == PAIR and dataset.mask(0).tolist() == [[0, 1]]
    palette = Image.fromarray(np.array([[0, 8]], np.uint8))
    palette.putpalette(voc_palette())
    palette.save(tmp_path / "a.png")
    assert folder(tmp_path / "images", tmp_path, tmp_path / "labelmap.txt").mask(0).tolist() == [[0, 1]]


# Files


@pytest.mark.parametrize("name", ["a.PNG", "a.bmp", "a.tif", "a.pgm"])
def test_masks_of_other_lossless_formats_are_found(tmp_path: Path, name: str) -> None:
    Image.fromarray(np.array([[0, 1, 7]], np.uint8)).save(tmp_path / name)
    assert masks_of(tmp_path, ["a"]).read("a").tolist() == [[0, 1, 7]]


def test_an_unknown_form_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--masks-form: expected one of ids, binary, colors, got 'rgb'"):
        masks_of(tmp_path, ["a"], form="rgb")


def test_a_form_asked_for_is_that_of_the_data_set_and_not_of_predictions(tmp_path: Path) -> None:
    for name in ("images", "masks", "predictions"):
        (tmp_path / name).mkdir()
    Image.new("RGB", (4, 2)).save(tmp_path / "images" / "a.png")
    Image.fromarray(colorize(SHAPES)).save(tmp_path / "masks" / "a.png")
    save_grey(tmp_path / "predictions" / "a.png", SHAPES.tolist())
    dataset = folder(tmp_path / "images", tmp_path / "masks", conventions=Conventions(masks="colors"))
    assert torch.equal(dataset.mask(0), SHAPES)
    assert torch.equal(dataset.mask_folder(tmp_path / "predictions").read("a"), SHAPES)
