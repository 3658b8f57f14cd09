"""What an image's SVM learns from: its ground truth, or the seed that class activation maps give."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from torch_svm_seg.cam.activation import (
    SCALES,
    ActivationMaps,
    class_activation_maps,
    constant_background,
    own_background,
    power_background,
)
from torch_svm_seg.cam.classifier import Classifier
from torch_svm_seg.cam.io import read_cams
from torch_svm_seg.data.constants import VOID
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import PathLike, read_mask, size_text
from torch_svm_seg.refine.probabilities import label_probabilities

Background = Callable[[ActivationMaps], Tensor]


class Supervised(NamedTuple):
    """An image and what is known about its pixels.

    Attributes:
        id: Its name in the data set.
        image: RGB values, uint8 of shape (3, H, W).
        knowledge: Class ids (H, W), or the activation of classes by id, (K, H, W), -inf for absent classes.
    """

    id: str
    image: Tensor
    knowledge: Tensor


class Supervision(Protocol):
    """Where the knowledge about pixels comes from."""

    def read(self, dataset: ImageDataset, place: int) -> Supervised:
        """Read an image with what is known about its pixels.

        Raises:
            InputError: A file is missing or damaged.
        """


class GroundTruth:
    """Labels are the data set's masks: the paper's study of the upper bound."""

    def read(self, dataset: ImageDataset, place: int) -> Supervised:
        item = dataset[place]
        if item.mask is None:
            raise InputError(f"{item.id}: has no mask; supervision by ground truth needs one")
        if bool((item.mask == VOID).all()):
            raise InputError(f"{item.id}: no pixel of its mask is labelled")
        return Supervised(item.id, item.image, item.mask)


@dataclass
class CamFiles:
    """Activation comes from files of class activation maps; classes without a map are absent.

    Attributes:
        folder: Where the files lie, ``ID.npz`` or other code bases' ``ID.npy``.
        background: Gives the background's activation.
        trust_pickle: Whether to read ``.npy``, which is a pickle.
    """

    folder: PathLike
    background: Background
    trust_pickle: bool = False

    def read(self, dataset: ImageDataset, place: int) -> Supervised:
        id, image = dataset.ids[place], dataset.image(place)
        size = (image.shape[1], image.shape[2])
        maps = read_cams(self.folder, id, size, dataset.class_names, self.trust_pickle)
        return Supervised(id, image, _activation(id, maps, self.background, dataset))


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

    def read(self, dataset: ImageDataset, place: int) -> Supervised:
        id, image = dataset.ids[place], dataset.image(place)
        if not self.labels.get(id):
            raise InputError(f"{id}: has no image-level label")
        maps = class_activation_maps(self.network, image, self.labels[id], self.scales)
        return Supervised(id, image, _activation(id, maps, self.background, dataset))


@dataclass
class MaskSeeds:
    """The seed is a folder of masks, such as another method's pseudo masks; classes that a mask lacks are absent.

    Attributes:
        folder: Where they lie, ``ID.png``; 255 is where nothing is known.
        confidence: Probability that a label is right.
    """

    folder: PathLike
    confidence: float = 0.7

    def read(self, dataset: ImageDataset, place: int) -> Supervised:
        id, image = dataset.ids[place], dataset.image(place)
        path, number = Path(self.folder) / f"{id}.png", len(dataset.class_names)
        mask = read_mask(path)
        if mask.shape != image.shape[1:]:
            raise InputError(f"{path}: {size_text(mask.shape)} pixels, but the image has {size_text(image.shape[1:])}")
        present = mask.unique()
        present = present[present != VOID]
        unknown = present[present >= number].tolist()
        if unknown:
            raise InputError(f"{path}: unknown class ids {unknown}; there are {number} classes")
        if not len(present):
            raise InputError(f"{path}: no pixel is labelled")
        has = torch.isin(torch.arange(number), present)
        activation = label_probabilities(mask[None], number, self.confidence, has[None])[0]
        activation[~has] = -torch.inf
        return Supervised(id, image, activation)


def activation_of(maps: ActivationMaps, background: Background, number: int) -> Tensor:
    """Maps as activation of all classes by id at the image's size, (K, H, W), -inf for absent classes.

    Args:
        maps: Of the classes present.
        background: Gives the background's activation.
        number: K, of classes.

    Raises:
        ValueError: The rule does not suit the maps, or these are not finite.
    """
    if not bool(maps.maps.isfinite().all()):
        raise ValueError("maps: expected finite activation, got nan or inf")
    # At the image's size, the background is that of the coarse maps, interpolated as they are.
    resized = ActivationMaps(maps.classes, maps.maps, maps.size, background(maps)).resized()
    assert resized.background is not None
    activation = resized.maps.new_full((number, *maps.size), -torch.inf)
    activation[list(maps.classes)] = resized.maps
    activation[0] = resized.background
    return activation


def _activation(id: str, maps: ActivationMaps, background: Background, dataset: ImageDataset) -> Tensor:
    try:
        return activation_of(maps, background, len(dataset.class_names))
    except ValueError as error:
        raise InputError(f"{id}: {error}") from error


@dataclass(frozen=True)
class _Rule:
    """A rule with its number: unlike a lambda, it can be sent to other processes."""

    rule: Callable[[ActivationMaps, float], Tensor]
    value: float

    def __call__(self, maps: ActivationMaps) -> Tensor:
        return self.rule(maps, self.value)


def usual_background(maps: ActivationMaps) -> Tensor:
    """The background that the method activates itself, and (1 - the largest activation)^4 of one that does not."""
    return power_background(maps, 4) if maps.background is None else own_background(maps)


def background_rule(text: str) -> Background:
    """The rule that a command line's ``auto``, ``own``, ``power:EXPONENT`` or ``constant:THRESHOLD`` asks for.

    Raises:
        ValueError: The text is none of these.
    """
    name, _, number = text.partition(":")
    rules: dict[str, Callable[[ActivationMaps, float], Tensor]] = {
        "power": power_background,
        "constant": constant_background,
    }
    if text in ("auto", "own"):
        return usual_background if text == "auto" else own_background
    try:
        rule, value = rules[name], float(number)
    except (KeyError, ValueError) as error:
        raise ValueError(f"expected auto, own, power:EXPONENT or constant:THRESHOLD, got {text!r}") from error
    return _Rule(rule, value)
