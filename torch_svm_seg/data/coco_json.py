"""COCO's annotations: classes, images, image-level labels and the outlines of objects."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from torch_svm_seg.data.constants import VOID
from torch_svm_seg.data.lists import without_image_suffix
from torch_svm_seg.data.notes import first_few

Outline = list[NDArray[np.float32]] | dict[str, Any]
"""Polygons, x and y in turn; or run lengths, with ``size`` and ``counts``."""


class Instance(NamedTuple):
    """An object of an image.

    Attributes:
        class_id: Its class, from 1.
        is_crowd: Whether it is a group of objects that were not told apart.
        area: In pixels.
        outline: Where it is.

    Examples:
        >>> Instance(8, False, 12.0, [[0, 0, 4, 0, 4, 3]]).class_id
        8
    """

    class_id: int
    is_crowd: bool
    area: float
    outline: Outline


@dataclass
class AnnotatedImage:
    """An image as the annotations describe it.

    Attributes:
        name: File name without folder and suffix.
        size: Height and width.
        instances: Its objects, in the order of the annotations.
        problem: Why its annotations cannot be used, if so.

    Examples:
        >>> AnnotatedImage("COCO_val2014_000000000042", (480, 640)).instances
        []
    """

    name: str
    size: tuple[int, int]
    instances: list[Instance] = field(default_factory=list)
    problem: str | None = None

    def digest(self) -> str:
        """Return what tells these annotations from others."""
        content = hashlib.sha256(repr((self.size, self.problem)).encode())
        for instance in self.instances:
            content.update(repr(instance[:3]).encode())
            if isinstance(instance.outline, dict):
                content.update(repr(instance.outline).encode())
            else:
                for polygon in instance.outline:
                    content.update(polygon.tobytes())
        return content.hexdigest()


def is_coco(content: Any) -> bool:
    """Whether a JSON file's content is that of COCO's annotations of objects.

    Examples:
        >>> is_coco({"cat.jpg": ["cat"]})
        False
    """
    return isinstance(content, dict) and all(
        isinstance(content.get(name), list) for name in ("images", "annotations", "categories")
    )


def class_names_of(content: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the background and the names of all categories by ascending id: COCO's 80 ids, 1 to 90, become 1 to 80.

    Raises:
        ValueError: Two categories share a name, or there are too many.

    Examples:
        >>> class_names_of({"categories": [{"id": 18, "name": "dog"}, {"id": 17, "name": "cat"}]})
        ('background', 'cat', 'dog')
    """
    names = tuple(str(category["name"]) for category in _by_id(content["categories"]))
    if len(set(names)) < len(names) or not 0 < len(names) < VOID:
        raise ValueError(f"categories: expected 1 to {VOID - 1} different names, got {len(names)}: {first_few(names)}")
    return ("background", *names)


def annotated_images(content: Mapping[str, Any]) -> dict[str, AnnotatedImage]:
    """Return the images by name, with their objects.

    What is wrong with the objects of one image is noted there, so that the others can be used.

    Examples:
        >>> content = {
        ...     "categories": [{"id": 17, "name": "cat"}],
        ...     "images": [{"id": 1, "file_name": "a.jpg", "height": 4, "width": 6}],
        ...     "annotations": [{"image_id": 1, "category_id": 17, "segmentation": [[0, 0, 4, 0, 4, 3]]}],
        ... }
        >>> annotated_images(content)["a"].size, annotated_images(content)["a"].instances[0].class_id
        ((4, 6), 1)
    """
    class_ids = {category["id"]: number for number, category in enumerate(_by_id(content["categories"]), 1)}
    by_number: dict[Any, AnnotatedImage] = {}
    for image in content["images"]:
        name = without_image_suffix(PurePosixPath(image["file_name"]).name)
        by_number[image["id"]] = AnnotatedImage(name, (int(image["height"]), int(image["width"])))
    for annotation in content["annotations"]:
        image = by_number.get(annotation["image_id"])
        if image is None:
            continue
        try:
            image.instances.append(_instance(annotation, class_ids))
        except (KeyError, TypeError, ValueError) as error:
            image.problem = f"annotation {annotation.get('id')}: {error!r}"
    return {image.name: image for image in by_number.values()}


def image_labels(content: Mapping[str, Any], class_names: Sequence[str]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Return the name of each image and the classes of its objects, crowds among them.

    Raises:
        ValueError: An object's category is none of the classes.

    Examples:
        >>> content = {
        ...     "categories": [{"id": 17, "name": "cat"}],
        ...     "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
        ...     "annotations": [{"image_id": 1, "category_id": 17}],
        ... }
        >>> list(image_labels(content, ["background", "cat"]))
        [('a.jpg', (1,)), ('b.jpg', ())]
    """
    names = {category["id"]: str(category["name"]) for category in content["categories"]}
    known = {name: id for id, name in enumerate(class_names) if id > 0}
    shown: dict[Any, set[int]] = {image["id"]: set() for image in content["images"]}
    for annotation in content["annotations"]:
        name = names.get(annotation["category_id"], f"category {annotation['category_id']}")
        if name not in known:
            raise ValueError(f"unknown class {name}; expected {first_few(known, 10)}")
        shown.setdefault(annotation["image_id"], set()).add(known[name])
    for image in content["images"]:
        yield PurePosixPath(image["file_name"]).name, tuple(sorted(shown[image["id"]]))


def decode_run_lengths(lengths: Mapping[str, Any], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return where an object is by run lengths along columns, outside and inside in turn.

    Args:
        lengths: ``size``, height and width; and ``counts``, a list of numbers or the text that COCO packs them in.
        size: Height and width of the image.

    Returns:
        Bool (H, W).

    Raises:
        ValueError: The run lengths are of another size, or do not add up to the image's pixels.

    Examples:
        >>> decode_run_lengths({"size": [2, 3], "counts": [2, 2, 2]}, (2, 3)).astype(int).tolist()
        [[0, 1, 0], [0, 1, 0]]
    """
    height, width = size
    if list(lengths["size"]) != [height, width]:
        raise ValueError(f"run lengths of size {lengths['size']}, but the image has {[height, width]}")
    counts = lengths["counts"]
    counts = np.asarray(_unpacked(counts) if isinstance(counts, str) else counts, dtype=np.int64)
    if (counts < 0).any() or (counts > height * width).any() or counts.sum() != height * width:
        raise ValueError("run lengths do not add up to the image's pixels")
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height).T


def _by_id(categories: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(categories, key=lambda category: int(category["id"]))


def _instance(annotation: Mapping[str, Any], class_ids: Mapping[Any, int]) -> Instance:
    """Return an annotation without what masks do not need; numbers in arrays take a tenth of the memory."""
    outline = annotation["segmentation"]
    if isinstance(outline, list):
        outline = [np.asarray(polygon, dtype=np.float32) for polygon in outline]
    elif not isinstance(outline, dict):
        raise TypeError("segmentation is neither polygons nor run lengths")
    area = float(annotation.get("area", 0.0))
    return Instance(class_ids[annotation["category_id"]], bool(annotation.get("iscrowd", 0)), area, outline)


def _unpacked(text: str) -> list[int]:
    """Return the run lengths that COCO's text packs: five bits per character, from the third on as differences."""
    counts: list[int] = []
    value = shift = 0
    for code in text.encode("ascii"):
        bits = code - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return counts
