"""What networks and their data have in common to be trained by :class:`~torch_svm_seg.training.trainer.Training`."""

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from torch_svm_seg.tensors import hash_integers


class Trainable(nn.Module):
    """A network that knows its loss.

    Attributes:
        losses: gives the terms whose sum is trained on by name, from a batch of :class:`Crops`.
        loss_names: their names.
        largest_gradient: what the norm of the gradient is clipped to; None: it is not.
    """

    losses: Callable[..., dict[str, Tensor]]
    loss_names: tuple[str, ...]
    largest_gradient: float | None

    @abstractmethod
    def parameter_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """Gives what is trained, in groups with a factor on the learning rate."""


class Crops(Dataset[tuple[Tensor, ...]]):
    """Random crops of a data set's images, RGB 0..255, with what is known about each; other ones in each epoch.

    Args:
        seed: of the choices; they depend on it, the epoch and the image's place alone.

    Attributes:
        epoch: which epoch's crops to give.
    """

    def __init__(self, seed: int) -> None:
        self.seed, self.epoch = seed, 0

    @abstractmethod
    def __len__(self) -> int:
        """Gives the number of images."""

    @abstractmethod
    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        """Gives a crop (3, size, size) and what is known about it."""

    def generator(self, index: int) -> torch.Generator:
        """Gives the source of the choices for an image."""
        return torch.Generator().manual_seed(int(hash_integers(self.seed, self.epoch, index)))
