"""Regions of images from files of superpixels and of Segment Anything."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.regions import RegionFiles

SIZE = (20, 30)


def run_lengths(mask: np.ndarray, *, packed: bool) -> dict:
    """Run lengths as pycocotools writes them, packed into text or as numbers."""
    encoder = pytest.importorskip("pycocotools.mask")
    if packed:
        encoded = encoder.encode(np.asfortranarray(mask.astype(np.uint8)))
        return {"size": encoded["size"], "counts": encoded["counts"].decode()}
    flat = mask.T.flatten()
    edges = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff([0, *edges, len(flat)]).tolist()
    return {"size": list(mask.shape), "counts": [0, *lengths] if flat[0] else lengths}


def masks() -> list[np.ndarray]:
    """A small mask inside a large one, and another one."""
    large, small, other = np.zeros((3, *SIZE), bool)
    large[2:15, 3:20], small[5:9, 6:11], other[12:19, 22:30] = True, True, True
    return [small, large, other]


def same_parts(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether two images have the same regions, whatever their numbers."""
    pairs = torch.stack([first.flatten(), second.flatten()]).unique(dim=1)
    return len(pairs[0].unique()) == len(pairs[1].unique()) == pairs.shape[1]


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("wrapped", [True, False])
def test_masks_of_segment_anything_are_painted_small_ones_on_top(tmp_path: Path, packed: bool, wrapped: bool) -> None:
    listed = [{"segmentation": run_lengths(mask, packed=packed), "predicted_iou": 0.9} for mask in masks()]
    (tmp_path / "a.json").write_text(json.dumps({"annotations": listed} if wrapped else listed))
    found = RegionFiles(tmp_path).read("a", SIZE)
    small, large, other = (torch.from_numpy(mask) for mask in masks())
    assert bool((found[~(large | other)] == -1).all())
    assert same_parts(found, small.long() + large.long() + 3 * other.long())


@pytest.mark.parametrize("mode", ["grey", "wide", "colours"])
def test_each_value_or_colour_of_an_image_is_a_region(tmp_path: Path, mode: str) -> None:
    numbers = torch.arange(600).view(SIZE) // 100
    stored = {
        "grey": numbers.byte().numpy(),
        "wide": (numbers * 10_000).numpy().astype(np.uint16),
        "colours": torch.stack([numbers % 2, numbers // 2, 0 * numbers], 2).byte().numpy(),
    }[mode]
    Image.fromarray(stored).save(tmp_path / "a.png")
    assert same_parts(RegionFiles(tmp_path).read("a", SIZE), numbers)


def test_a_value_can_stand_for_no_region(tmp_path: Path) -> None:
    Image.fromarray(np.array([[7, 0], [0, 9]], np.uint8)).save(tmp_path / "a.png")
    assert RegionFiles(tmp_path, void=0).read("a", (2, 2)).tolist() == [[1, -1], [-1, 2]]
    assert RegionFiles(tmp_path).read("a", (2, 2)).tolist() == [[1, 0], [0, 2]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2]", "expected masks with a segmentation by run lengths"),
        ('[{"segmentation": [[1, 1, 5, 1, 5, 5]]}]', "expected masks with a segmentation by run lengths"),
        ('{"masks": []}', "expected a list of at most 100000 masks"),
        ('[{"segmentation": {"size": [30, 20], "counts": [600]}}]', "but the image has"),
        ('[{"segmentation": {"size": [20, 30], "counts": [601]}}]', "do not add up"),
        ('[{"segmentation": {"size": [20, 30], "counts": [-1, 601]}}]', "do not add up"),
        ('[{"segmentation": {"size": [20, 30]}}]', "counts"),
        ("[", "not JSON"),
    ],
)
def test_bad_files_are_named_with_the_reason(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(InputError, match=rf"a\.json.*{message}"):
        RegionFiles(tmp_path).read("a", SIZE)


def test_missing_and_wrong_sized_images_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.png"):
        RegionFiles(tmp_path).read("a", SIZE)
    Image.new("L", (20, 30)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png: 20x30 pixels, but the image has 30x20"):
        RegionFiles(tmp_path).read("a", SIZE)
    with pytest.raises(InputError, match="not a folder"):
        RegionFiles(tmp_path / "none")
