"""Image-level labels: which classes an image shows, from PASCAL VOC's annotations, a file, or masks."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import torch
from torch import Tensor

from torch_svm_seg.data.constants import VOID
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import PathLike
from torch_svm_seg.data.lists import read_lines, without_image_suffix

ImageLabels = Mapping[str, Sequence[int]]
"""Image id -> ids of the classes it shows, from 1; background, which is everywhere, is not listed."""


@dataclass(frozen=True)
class LabelledImages:
    """The images of a data set whose classes are known.

    Attributes:
        images: the labelled images.
        present: the classes that each of them shows, bool (images, classes without background).
        unlabelled: ids of the data set's other images, which no label or only an empty one was found for.
    """

    dataset: ImageDataset
    present: Tensor
    unlabelled: tuple[str, ...]

    def __len__(self) -> int:
        """Gives the number of labelled images."""
        return len(self.dataset)

    def classes(self, index: int) -> tuple[int, ...]:
        """Gives the ids of the classes that an image shows, ascending, from 1."""
        return tuple((self.present[index].nonzero().flatten() + 1).tolist())


def with_labels(dataset: ImageDataset, labels: ImageLabels) -> LabelledImages:
    """Joins images with their labels; an image without any is left out and listed.

    Raises:
        InputError: no image has a label.
    """
    places = [place for place, id in enumerate(dataset.ids) if labels.get(id)]
    if not places:
        raise InputError(f"image labels: none of the {len(dataset)} images has a label, such as {dataset.ids[0]}")
    present = torch.zeros(len(places), len(dataset.class_names) - 1, dtype=torch.bool)
    for row, place in zip(present, places, strict=True):
        row[torch.tensor(list(labels[dataset.ids[place]])) - 1] = True
    unlabelled = tuple(id for id in dataset.ids if not labels.get(id))
    return LabelledImages(dataset.subset(places), present, unlabelled)


def labels_from_file(path: PathLike, class_names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Reads a file of image-level labels.

    Args:
        path: ``*.json``: an object of image names and lists of class names, ``{"cat1": ["cat", "sofa"]}``. Else text
            of comma-separated values, a line an image: its name, then its classes, ``cat1,cat,sofa``. Image names can
            have an image's suffix.
        class_names: name of each class id, background first.

    Raises:
        InputError: the file cannot be read, has another form, or names an unknown class.
    """
    suffix = Path(path).suffix.lower()
    if suffix in (".npy", ".npz", ".pkl", ".pth"):
        raise InputError(f"{path}: expected labels as .json or .csv, got {suffix}")
    entries = _read_json(path) if suffix == ".json" else _read_csv(path)
    return {
        without_image_suffix(name): _ids(classes, class_names, f"{path}: image {name}") for name, classes in entries
    }


def labels_from_annotations(folder: PathLike, ids: Iterable[str], class_names: Sequence[str]) -> ImageLabels:
    """Reads the classes of the objects in VOC's annotations, ``folder/ID.xml``, "difficult" objects among them.

    Raises:
        InputError: an annotation is missing or damaged, or names an unknown class.
    """
    return {id: _annotated(Path(folder) / f"{id}.xml", class_names) for id in ids}


def labels_from_masks(dataset: ImageDataset) -> ImageLabels:
    """Finds the classes in the masks of a data set.

    Raises:
        InputError: the data set has no masks, or one cannot be read.
    """
    found = (set(dataset.mask(place).unique().tolist()) - {0, VOID} for place in range(len(dataset)))
    return {id: tuple(sorted(classes)) for id, classes in zip(dataset.ids, found, strict=True)}


def _read_json(path: PathLike) -> list[tuple[str, list[str]]]:
    try:
        content = json.loads("\n".join(read_lines(path)))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not JSON ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected an object of image names and lists of class names")
    for name, classes in content.items():
        if not isinstance(classes, list) or not all(isinstance(item, str) for item in classes):
            raise InputError(f"{path}: image {name}: expected a list of class names, got {classes!r}")
    return list(content.items())


def _read_csv(path: PathLike) -> list[tuple[str, list[str]]]:
    rows = list(csv.reader(read_lines(path), skipinitialspace=True))
    if not any(len(row) > 1 for row in rows):
        raise InputError(f"{path}: expected lines of comma-separated values, NAME,cat,sofa, got no comma in any")
    return [(row[0].strip(), [cell.strip() for cell in row[1:] if cell.strip()]) for row in rows if row]


def _annotated(path: Path, class_names: Sequence[str]) -> tuple[int, ...]:
    try:
        names = [name.text or "" for name in ElementTree.parse(path).iterfind("object/name")]
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except ElementTree.ParseError as error:
        raise InputError(f"{path}: not XML ({error})") from error
    return _ids([name.strip() for name in names], class_names, str(path))


def _ids(names: Iterable[str], class_names: Sequence[str], source: str) -> tuple[int, ...]:
    known = {name: id for id, name in enumerate(class_names) if id > 0}
    unknown = sorted({name for name in names if name not in known})
    if unknown:
        raise InputError(f"{source}: unknown classes {', '.join(unknown)}; expected {', '.join(known)}")
    return tuple(sorted({known[name] for name in names}))
