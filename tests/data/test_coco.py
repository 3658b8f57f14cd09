"""COCO in its official layout, made by hand: masks, labels, lists, and annotations that cannot be used."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from torch_svm_seg.cli import evaluate, expand
from torch_svm_seg.data.coco import coco, coco_labels
from torch_svm_seg.data.coco_json import class_names_of
from torch_svm_seg.data.constants import VOID
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import read_mask, save_mask

pytest.importorskip("pycocotools")

HEIGHT, WIDTH = 40, 60
# 80 ids with the gaps of the official ones, in their order.
GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
CATEGORIES = [{"id": id, "name": f"thing {id}"} for id in range(1, 91) if id not in GAPS]
FIRST, SECOND, THIRD = (f"COCO_val2014_{number:012}" for number in (42, 73, 139))


def box(left: float, top: float, right: float, bottom: float) -> list[list[float]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


def run_lengths(mask: np.ndarray) -> list[int]:
    """Lengths of runs of 0 and 1 in turn, along columns."""
    flat = mask.T.flatten()
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, len(flat)]).tolist()
    return [0, *counts] if flat[0] else counts


def annotation(image: int, category: int, segmentation: object, area: float, crowd: int = 0) -> dict[str, Any]:
    return {
        "id": 1000 + category, "image_id": image, "category_id": category, "iscrowd": crowd, "area": area,
        "segmentation": segmentation,
    }  # fmt: skip


def crowd() -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[30:, :] = 1
    return mask


@pytest.fixture
def annotations() -> dict[str, Any]:
    """The small object comes first, as the large one would cover it; the crowd comes last, and is large."""
    numbers = {FIRST: 42, SECOND: 73, THIRD: 139}
    return {
        "info": {},
        "licenses": [],
        "images": [
            {"id": number, "file_name": f"{name}.jpg", "height": HEIGHT, "width": WIDTH}
            for name, number in numbers.items()
        ],
        "annotations": [
            annotation(42, 90, box(10, 10, 20, 20), 100),
            annotation(42, 1, box(5, 5, 30, 36), 775),
            annotation(42, 3, {"size": [HEIGHT, WIDTH], "counts": run_lengths(crowd())}, 600, crowd=1),
            annotation(73, 27, [*box(0, 0, 4, 4), *box(20, 20, 24, 24)], 32),
        ],
        "categories": CATEGORIES,
    }


@pytest.fixture
def root(tmp_path: Path, annotations: dict[str, Any]) -> Path:
    (tmp_path / "coco" / "val2014").mkdir(parents=True)
    for number, name in enumerate((FIRST, SECOND, THIRD)):
        pixels = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "coco" / "val2014" / f"{name}.jpg")
    write(tmp_path / "coco", annotations)
    return tmp_path / "coco"


def write(root: Path, content: object) -> None:
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / "instances_val2014.json").write_text(json.dumps(content))


def expected_first() -> torch.Tensor:
    """90 is the 80th class, 3 the third: on top the small object, below all others the crowd."""
    mask = torch.zeros(HEIGHT, WIDTH, dtype=torch.long)
    mask[30:, :] = 3
    mask[5:36, 5:30] = 1
    mask[10:20, 10:20] = 80
    return mask


def test_81_classes_and_masks_with_the_smaller_object_on_top(root: Path) -> None:
    dataset = coco(root, "val2014")
    assert dataset.ids == (FIRST, SECOND, THIRD)
    assert len(dataset.class_names) == 81 and dataset.class_names[:2] == ("background", "thing 1")
    assert dataset.class_names[80] == "thing 90"
    item = dataset[0]
    assert item.mask is not None and torch.equal(item.mask, expected_first())
    second, third = dataset.mask(1), dataset.mask(2)
    assert second.unique().tolist() == [0, 25] and int((second == 25).sum()) == 32
    assert not third.any()


def test_masks_are_those_of_pycocotools(root: Path) -> None:
    """Whatever the outlines: here, polygons with corners between pixels, and packed run lengths."""
    from pycocotools import mask as painter
    from pycocotools.coco import COCO

    random = np.random.default_rng(0)
    outlines: list[object] = [
        [(random.random(2 * corners) * np.tile([WIDTH, HEIGHT], corners)).tolist() for corners in (3, 7)]
        for _ in range(5)
    ]
    for density in (0.1, 0.9):
        drawn = np.asfortranarray((random.random((HEIGHT, WIDTH)) < density).astype(np.uint8))
        packed = painter.encode(drawn)
        outlines.append({"size": packed["size"], "counts": packed["counts"].decode()})
    for outline in outlines:
        content = {
            "images": [{"id": 42, "file_name": f"{FIRST}.jpg", "height": HEIGHT, "width": WIDTH}],
            "annotations": [annotation(42, 1, outline, 1)],
            "categories": CATEGORIES,
        }
        write(root, content)
        api = COCO(str(root / "annotations" / "instances_val2014.json"))
        theirs = api.annToMask(api.loadAnns(api.getAnnIds())[0])
        assert torch.equal(coco(root, "val2014").mask(0), torch.from_numpy(theirs.astype(np.int64)))


def test_image_level_labels_are_the_classes_of_all_objects(root: Path) -> None:
    assert coco_labels(coco(root, "val2014")) == {FIRST: (1, 3, 80), SECOND: (25,), THIRD: ()}


@pytest.mark.parametrize("line", [SECOND, f"{SECOND}.jpg", "73", "000000000073", f"val2014/{SECOND}.jpg"])
def test_a_list_names_images_or_numbers(root: Path, tmp_path: Path, line: str) -> None:
    (tmp_path / "list.txt").write_text(f"{line}\n")
    assert coco(root, "val2014", tmp_path / "list.txt").ids == (SECOND,)
    (tmp_path / "list.txt").write_text("9999\n")
    with pytest.raises(InputError, match=r"list\.txt: '9999' is no image of the split"):
        coco(root, "val2014", tmp_path / "list.txt")


def test_the_layout_of_2017_in_a_folder_of_images(root: Path) -> None:
    (root / "images").mkdir()
    (root / "val2014").rename(root / "images" / "train2017")
    (root / "annotations" / "instances_val2014.json").rename(root / "annotations" / "instances_train2017.json")
    assert torch.equal(coco(root)[0].mask, expected_first())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"segmentation": [[1.0, 2.0, 1e30, 4.0, 5.0, 6.0]]}, None),
        ({"segmentation": [[1.0, 2.0, float("nan"), 4.0, 5.0, 6.0]]}, "finite"),
        ({"segmentation": [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]]}, "x and y in turn"),
        ({"segmentation": "none"}, "neither polygons nor run lengths"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [10**9]}}, "add up"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [-5, HEIGHT * WIDTH + 5]}}, "add up"),
        ({"segmentation": {"size": [1, 1], "counts": [1]}}, "of size"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "zzzz"}}, "."),
        ({"category_id": 12}, "12"),
    ],
)
def test_annotations_that_cannot_be_used_cost_their_image_alone(
    root: Path, annotations: dict[str, Any], change: dict[str, Any], message: str | None
) -> None:
    annotations["annotations"][0] |= change
    write(root, annotations)
    dataset = coco(root, "val2014")
    assert int((dataset.mask(1) == 25).sum()) == 32
    if message is None:
        assert dataset.mask(0).shape == (HEIGHT, WIDTH)  # what lies outside the image takes no memory
    else:
        with pytest.raises(InputError, match=rf"instances_val2014\.json: {FIRST}: .*{message}"):
            dataset.mask(0)


@pytest.mark.parametrize("content", ["[]", "{", '{"images": [], "annotations": [], "categories": []}', "[" * 10**5])
def test_other_files_are_named(root: Path, content: str) -> None:
    (root / "annotations" / "instances_val2014.json").write_text(content)
    with pytest.raises(InputError, match=r"instances_val2014\.json: "):
        coco(root, "val2014")


def test_what_is_missing_is_named(tmp_path: Path, root: Path) -> None:
    with pytest.raises(InputError, match="no folder train2014 of images in it, nor images/train2014"):
        coco(tmp_path)
    (root / "annotations" / "instances_val2014.json").unlink()
    with pytest.raises(InputError, match=r"instances_val2014\.json: No such file"):
        coco(root, "val2014")


def test_without_pycocotools_the_images_open_and_the_masks_say_what_to_do(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    dataset = coco(root, "val2014")
    assert not dataset.has_masks and dataset.image(0).shape == (3, HEIGHT, WIDTH)
    assert "pip install pycocotools" in dataset.notes.lines()[0]
    assert coco_labels(dataset)[SECOND] == (25,)


def test_masks_depend_on_their_own_annotations(root: Path, annotations: dict[str, Any]) -> None:
    before = [coco(root, "val2014").mask_sources(index) for index in range(3)]
    annotations["annotations"][0]["segmentation"][0][0] += 1
    write(root, annotations)
    after = [coco(root, "val2014").mask_sources(index) for index in range(3)]
    assert [first == second for first, second in zip(before, after, strict=True)] == [False, True, True]


def test_categories_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="categories: expected 1 to 254 different names"):
        class_names_of({"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]})


# The commands


def test_predictions_are_scored_over_81_classes(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = coco(root, "val2014")
    for index, id in enumerate(dataset.ids):
        mask = dataset.mask(index)
        save_mask(tmp_path / "masks" / f"{id}.png", torch.where(mask == 80, 1, mask))
    flags = ["--coco", str(root), "--split", "val2014", "--predictions", str(tmp_path / "masks")]
    assert evaluate.main([*flags, "--json", str(tmp_path / "scores.json")]) == 0
    figures = json.loads((tmp_path / "scores.json").read_text())["masks"]
    assert len(figures["per_class"]) == 81 and figures["images"] == 3
    assert figures["per_class"]["thing 90"] == 0 and figures["per_class"]["thing 27"] == 1
    first = int((expected_first() == 1).sum())
    assert figures["per_class"]["thing 1"] == pytest.approx(first / (first + 100))
    assert figures["per_class"]["thing 2"] is None


def test_expansion_of_81_classes_makes_masks_of_their_ids(root: Path, tmp_path: Path) -> None:
    flags = ["--coco", str(root), "--split", "val2014", "--features", "img", "--samples-per-class", "20"]
    assert expand.main([*flags, "--limit", "2", "--out", str(tmp_path / "out")]) == 0
    ids = set(read_mask(tmp_path / "out" / "img" / f"{FIRST}.png").unique().tolist())
    assert ids <= {0, 1, 3, 80, VOID} and 80 in ids


@pytest.mark.parametrize("flags", [["--root", "x"], ["--images", "x"]])
def test_coco_stands_alone(root: Path, flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert expand.main(["--coco", str(root), *flags]) == 2
    assert "--coco: give it alone" in capsys.readouterr().err
