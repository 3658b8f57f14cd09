"""COCO 2014 and 2017 in their official layout, with semantic masks made of the outlines of objects.

The classes are the background and COCO's 80 categories in the order of their ids: 81, as weakly supervised segmentation
counts them; "stuff" is background. Where objects overlap, the smaller one is on top, whatever the order of the
annotations; crowds lie below all other objects and are of their class.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torch_svm_seg.data.coco_json import (
    AnnotatedImage,
    Instance,
    annotated_images,
    class_names_of,
    decode_run_lengths,
    is_coco,
)
from torch_svm_seg.data.constants import IMAGE_SUFFIXES
from torch_svm_seg.data.dataset import Conventions, ImageDataset
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.file_index import listed_files
from torch_svm_seg.data.lists import read_lines, without_image_suffix
from torch_svm_seg.data.mask_files import MaskFiles
from torch_svm_seg.data.mask_forms import StoredMask
from torch_svm_seg.data.notes import Notes
from torch_svm_seg.data.pillow import MOST_PIXELS
from torch_svm_seg.data.reading import LARGEST_TEXT, PathLike, read_bytes, reading

SPLITS = ("train2014", "train2017")
"""Splits that are opened by default, the first one that is there."""

Rasterize = Callable[[Sequence[NDArray[np.float32]], int, int], NDArray[np.uint8]]
"""Paints polygons on an image of some height and width, 0 and 1."""


def coco(
    root: PathLike,
    split: str | None = None,
    list_file: PathLike | None = None,
    conventions: Conventions | None = None,
) -> ImageDataset:
    """Open COCO: ``root/SPLIT/*.jpg`` or ``root/images/SPLIT/*.jpg``, and ``root/annotations/instances_SPLIT.json``.

    Masks need the package pycocotools; without it the data set opens without masks.

    Args:
        root: Folder of the images' folders and of ``annotations``.
        split: Name of a split, such as ``val2014``; by default train2014 or train2017.
        list_file: Text file with the name of one image per line, or its number, in place of all images of the split.
        conventions: How to read files whose form leaves it open; images are seen as they are stored by default, as
            COCO's annotations are.

    Raises:
        InputError: A folder or file is missing or damaged, or the list names an image that the split lacks.

    Examples:
        >>> dataset = coco("/data/coco", "val2017")  # doctest: +SKIP
        >>> len(dataset), len(dataset.class_names)  # doctest: +SKIP
        (5000, 81)
    """
    split = split or next((name for name in SPLITS if _images_of(Path(root), name).is_dir()), SPLITS[0])
    images = _images_of(Path(root), split)
    path = Path(root) / "annotations" / f"instances_{split}.json"
    if not images.is_dir():
        raise InputError(f"{root}: no folder {split} of images in it, nor images/{split}")
    names, annotated = read_annotations(path)
    ids = list(annotated) if list_file is None else _listed(list_file, annotated)
    given = conventions or Conventions()
    given = Conventions(given.exif or "stored", given.bits, given.masks, given.colours)
    dataset = _COCO(images, ids, names, annotated, path, given)
    strays = len(listed_files(images, IMAGE_SUFFIXES)[0]) - len(annotated)
    if strays > 0:
        dataset.notes.about_all(f"{strays} images in {split} are not in {path.name}, and left out")
    return dataset


def coco_labels(dataset: ImageDataset) -> dict[str, tuple[int, ...]]:
    """Return the image-level labels of a data set that :func:`coco` opened: the classes of all objects, crowds too.

    Raises:
        InputError: The data set is another one.
    """
    if not isinstance(dataset, _COCO):
        raise InputError("expected a data set of COCO")
    return {id: tuple(sorted({one.class_id for one in dataset.annotated[id].instances})) for id in dataset.ids}


def read_annotations(path: PathLike) -> tuple[tuple[str, ...], dict[str, AnnotatedImage]]:
    """Read the class names, background first, and the images by name, with their objects.

    Raises:
        InputError: The file is missing, damaged or not of COCO's form.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "instances_val.json")
        ...     _ = path.write_text('{"images": [], "annotations": [], "categories": [{"id": 17, "name": "cat"}]}')
        ...     read_annotations(path)
        (('background', 'cat'), {})
    """
    with reading(path):
        content = json.loads(read_bytes(path, LARGEST_TEXT))
        if not is_coco(content):
            raise InputError(f"{path}: expected COCO's annotations: images, annotations and categories")
        return class_names_of(content), annotated_images(content)


class _COCO(ImageDataset):
    """The images of a split, with masks made of their objects."""

    def __init__(
        self,
        images: Path,
        ids: Sequence[str],
        names: tuple[str, ...],
        annotated: Mapping[str, AnnotatedImage],
        path: Path,
        conventions: Conventions,
    ) -> None:
        super().__init__(images, None, ids, names, IMAGE_SUFFIXES, path, conventions)
        self.annotated = annotated
        paint = _rasterizer()
        if paint is None:
            self.notes.about_all("no masks: pycocotools, which makes them, is not installed; pip install pycocotools")
        else:
            self._masks = _CocoMasks(path, annotated, paint, names, self.notes)

    def mask_sources(self, index: int) -> tuple[Path | str, ...]:
        if isinstance(self._masks, _CocoMasks):
            return (self.annotated[self.ids[index]].digest(),)
        return super().mask_sources(index)


class _CocoMasks(MaskFiles):
    """Masks painted from annotations; each is made when it is asked for, in the memory of one image."""

    def __init__(
        self,
        path: Path,
        annotated: Mapping[str, AnnotatedImage],
        paint: Rasterize,
        names: tuple[str, ...],
        notes: Notes,
    ) -> None:
        super().__init__(path.parent, names, tuple(annotated), form="ids", notes=notes)
        self._path, self._annotated, self._paint = path, annotated, paint

    def find(self, id: str) -> Path | None:
        return self._path if id in self._annotated else None

    def size(self, id: str) -> tuple[int, int] | None:
        return self._annotated[id].size if id in self._annotated else None

    def _stored(self, id: str) -> StoredMask:
        with reading(f"{self._path}: {id}"):
            return StoredMask(self._path, semantic_mask(self._annotated[id], self._paint), {}, False, "COCO")


def semantic_mask(image: AnnotatedImage, paint: Rasterize) -> Tensor:
    """Paint the objects of an image: crowds first, then from large to small.

    Returns:
        Class ids, int64 of the image's size (H, W).

    Raises:
        ValueError: An outline is none, or lies outside the image.

    Examples:
        >>> image = AnnotatedImage("a", (2, 3), [Instance(8, False, 2.0, {"size": [2, 3], "counts": [2, 2, 2]})])
        >>> semantic_mask(image, lambda polygons, height, width: np.zeros((height, width), np.uint8)).tolist()
        [[0, 8, 0], [0, 8, 0]]
    """
    height, width = image.size
    if image.problem is not None:
        raise ValueError(image.problem)
    if not (height > 0 and width > 0 and height * width <= MOST_PIXELS):
        raise ValueError(f"an image of {width}x{height} pixels")
    mask = np.zeros((height, width), np.int64)
    for instance in sorted(image.instances, key=lambda one: (not one.is_crowd, -one.area)):
        mask[_painted(instance, height, width, paint)] = instance.class_id
    return torch.from_numpy(mask)


def _painted(instance: Instance, height: int, width: int, paint: Rasterize) -> NDArray[np.bool_]:
    if isinstance(instance.outline, dict):
        return decode_run_lengths(instance.outline, (height, width))
    polygons = [_inside(polygon, height, width) for polygon in instance.outline if len(polygon) >= 6]
    return paint(polygons, height, width) > 0


def _inside(polygon: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Return a polygon without what lies outside the image: painting it would take memory by its extent."""
    if polygon.ndim != 1 or len(polygon) % 2 or not np.isfinite(polygon).all():
        raise ValueError("a polygon is not a list of finite x and y in turn")
    return np.clip(polygon.reshape(-1, 2), 0, [width, height]).astype(np.float32).reshape(-1)


def _rasterizer() -> Rasterize | None:
    """Return how pycocotools paints polygons; None if it is not installed."""
    try:
        from pycocotools import mask as painter
    except ImportError:
        return None

    def paint(polygons: Sequence[NDArray[np.float32]], height: int, width: int) -> NDArray[np.uint8]:
        if not polygons:
            return np.zeros((height, width), np.uint8)
        lists = [polygon.astype(float).tolist() for polygon in polygons]
        decoded: NDArray[np.uint8] = painter.decode(painter.merge(painter.frPyObjects(lists, height, width)))
        return decoded

    return paint


def _images_of(root: Path, split: str) -> Path:
    nested = root / "images" / split
    return nested if nested.is_dir() else root / split


def _listed(list_file: PathLike, annotated: Mapping[str, AnnotatedImage]) -> list[str]:
    """Return the ids of a list of names, with or without suffix, or of numbers, such as 42 for ..._000000000042."""
    by_number = {_number(name): name for name in annotated}
    ids = []
    for line in read_lines(list_file):
        name = without_image_suffix(line.split()[0]).rpartition("/")[2]
        id = name if name in annotated else by_number.get(_number(name))
        if id is None:
            raise InputError(f"{list_file}: {line!r} is no image of the split")
        ids.append(id)
    return ids


def _number(name: str) -> int | None:
    digits = name.rpartition("_")[2]
    return int(digits) if digits.isdecimal() else None
