"""Lists of images and of class names, in the forms that they have in the field."""

from pathlib import Path

import pytest
from PIL import Image

from torch_svm_seg.data.class_names import read_class_names
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.folder import folder
from torch_svm_seg.data.lists import read_list
from torch_svm_seg.data.voc import voc2012


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def ids(path: Path, *there: str, flat: bool = True) -> list[str]:
    return read_list(path, lambda id: id in there, flat)[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tile.0001\ntile.0002\n", ["tile.0001", "tile.0002"]),
        ("tile.0001.jpg\n", ["tile.0001"]),
        ("a.JPEG\nb.Png\n", ["a", "b"]),
        ("/JPEGImages/tile.0001.jpg /SegmentationClass/tile.0001.png\n", ["tile.0001"]),
        ("a  1\nb -1\nc  0\n", ["a", "c"]),
        ("a 7 14\nb 3\n", ["a", "b"]),
        ("my image\n", ["my image"]),
    ],
)
def test_lines_name_images_in_several_forms(tmp_path: Path, text: str, expected: list[str]) -> None:
    assert ids(write(tmp_path / "list.txt", text)) == expected


def test_names_with_spaces_and_numbers_are_whole_where_such_images_are(tmp_path: Path) -> None:
    path = write(tmp_path / "list.txt", "img 0\nimg 1\n")
    assert ids(path, "img 0", "img 1") == ["img 0", "img 1"]
    assert ids(path) == ["img", "img"]


def test_images_marked_minus_1_are_left_out_and_said_so(tmp_path: Path) -> None:
    _, notes = read_list(write(tmp_path / "cat_train.txt", "a  1\nb -1\nc -1\n"), lambda id: False)
    assert notes == ["cat_train.txt: 2 images, marked -1 as not showing its class, are left out"]


def test_the_listed_tile_is_opened_and_no_other(tiny_voc: Path) -> None:
    """With one that has the name up to the dot beside it."""
    voc = tiny_voc / "VOCdevkit" / "VOC2012"
    for name, colour in (("tile", 0), ("tile.0001", 200)):
        Image.new("RGB", (8, 8), (colour, 0, 0)).save(voc / "JPEGImages" / f"{name}.jpg")
        Image.new("L", (8, 8), 8).save(voc / "SegmentationClass" / f"{name}.png")
    write(voc / "ImageSets" / "Segmentation" / "tiles.txt", "tile.0001\n")
    dataset = voc2012(tiny_voc, "tiles")
    assert dataset.ids == ("tile.0001",)
    assert dataset[0].image[0].float().mean() > 150


def test_folders_in_a_custom_list_are_part_of_ids(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8), (90 if name == "b" else 0, 0, 0)).save(tmp_path / name / "1.5.png")
    dataset = folder(tmp_path, list_file=write(tmp_path / "list.txt", "b/1.5\na/1.5.png\n"))
    assert dataset.ids == ("b/1.5", "a/1.5")
    assert dataset.image(0).max() == 90


# Class names


@pytest.mark.parametrize(
    "text",
    [
        "background\ncat\ndog\n",
        "__ignore__\n_background_\ncat\ndog\n",
        "# my classes\nbackground\n# animals\ncat\ndog\n",
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:64,0,0::\ndog:64,0,128:head,tail:\n",
    ],
)
def test_forms_of_class_names(tmp_path: Path, text: str) -> None:
    classes = read_class_names(write(tmp_path / "names.txt", text))
    assert classes.names == ("background", "cat", "dog") and classes.note is None
    assert (classes.colours == {(0, 0, 0): 0, (64, 0, 0): 1, (64, 0, 128): 2}) == ("rgb" in text)


@pytest.mark.parametrize(
    "text", ["cat\nbackground\ndog\n", "cat:64,0,0::\nbackground:0,0,0::\n", "cat\n_background_\n"]
)
def test_a_background_that_is_not_first_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"names\.txt: _?background_? is class 1, but id 0 is the background"):
        read_class_names(write(tmp_path / "names.txt", text))


def test_a_first_class_of_another_name_is_said_to_be_the_background(tmp_path: Path) -> None:
    assert read_class_names(write(tmp_path / "n.txt", "other\ncat\n")).note == (
        "class 0, 'other', is taken for the background (--class-names)"
    )


def test_classes_of_one_colour_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two classes have the same colour"):
        read_class_names(write(tmp_path / "n.txt", "background:0,0,0::\ncat:0,0,0::\n"))
