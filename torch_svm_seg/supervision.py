"""What an image's SVM learns from: its ground truth, or the seed that class activation maps give."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from torch_svm_seg.cam import ActivationMaps, constant_background, own_background, power_background
from torch_svm_seg.cam_files import read_cams
from torch_svm_seg.datasets import PhotographDataset
from torch_svm_seg.files import InputError, PathLike

Background = Callable[[ActivationMaps], Tensor]


class Supervised(NamedTuple):
    """An image and what is known about its pixels.

    Attributes:
        id: Its name in the data set.
        image: RGB values, uint8 of shape (3, H, W).
        knowledge: Class ids (H, W), or the activation of classes by id, (K, H, W).
    """

    id: str
    image: Tensor
    knowledge: Tensor


class Supervision(Protocol):
    """Where the knowledge about pixels comes from."""

    def read(self, dataset: PhotographDataset, place: int) -> Supervised:
        """Read an image with what is known about its pixels.

        Raises:
            InputError: A file is missing or damaged.
        """


class GroundTruth:
    """Labels are the data set's masks: the paper's study of the upper bound."""

    def read(self, dataset: PhotographDataset, place: int) -> Supervised:
        photograph = dataset[place]
        if photograph.mask is None:
            raise InputError(f"{photograph.id}: has no mask; supervision by ground truth needs one")
        return Supervised(photograph.id, photograph.image, photograph.mask)


@dataclass
class Seeds:
    """Activation comes from files of class activation maps; classes without a map are absent.

    Attributes:
        folder: Where the files lie, ``ID.npz`` or other code bases' ``ID.npy``.
        background: Gives the background's activation.
        trust_pickle: Whether to read ``.npy``, which is a pickle.
    """

    folder: PathLike
    background: Background
    trust_pickle: bool = False

    def read(self, dataset: PhotographDataset, place: int) -> Supervised:
        image = dataset.image(place)
        maps = self.maps(dataset, place, (image.shape[1], image.shape[2])).resized()
        activation = torch.full((len(dataset.class_names), *maps.size), -torch.inf)
        activation[list(maps.classes)] = maps.maps
        if maps.background is not None:
            activation[0] = maps.background
        return Supervised(dataset.ids[place], image, activation)

    def maps(self, dataset: PhotographDataset, place: int, size: tuple[int, int]) -> ActivationMaps:
        """Read the maps of an image of a size, with their background, at their own resolution.

        Raises:
            InputError: The file is missing or damaged.
        """
        id = dataset.ids[place]
        maps = read_cams(self.folder, id, size, dataset.class_names, self.trust_pickle)
        try:
            return replace(maps, background=self.background(maps))
        except ValueError as error:
            raise InputError(f"{id}: {error}") from error


def background_rule(text: str) -> Background:
    """The rule that a command line's ``own``, ``power:EXPONENT`` or ``constant:THRESHOLD`` asks for.

    Raises:
        ValueError: The text is none of these.
    """
    name, _, number = text.partition(":")
    rules: dict[str, Callable[[ActivationMaps, float], Tensor]] = {
        "power": power_background,
        "constant": constant_background,
    }
    if text == "own":
        return own_background
    try:
        rule, value = rules[name], float(number)
    except (KeyError, ValueError) as error:
        raise ValueError(f"expected own, power:EXPONENT or constant:THRESHOLD, got {text!r}") from error
    return lambda maps: rule(maps, value)
