"""Networks that know their loss, and random crops to train them on, as :class:`Training` takes both."""

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from torch_svm_seg.data.provenance import Source
from torch_svm_seg.tensors import hash_integers


class Trainable(nn.Module):
    """A network that knows its loss.

    Attributes:
        losses: Method that returns the terms of the loss by name, from a batch of :class:`Crops`; their sum is trained
            on.
        loss_names: Names of the terms.
        largest_gradient: Norm that the gradient is clipped to; None: it is not.

    Examples:
        >>> class Mean(Trainable):
        ...     loss_names, largest_gradient = ("distance",), None
        ...
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.colour = nn.Parameter(torch.zeros(3, 1, 1))
        ...
        ...     def parameter_groups(self):
        ...         return [([self.colour], 1.0)]
        ...
        ...     def losses(self, images):
        ...         return {"distance": (images - self.colour).abs().mean()}
        >>> Mean().losses(torch.ones(2, 3, 8, 8))["distance"].item()
        1.0
    """

    losses: Callable[..., dict[str, Tensor]]
    loss_names: tuple[str, ...]
    largest_gradient: float | None

    @abstractmethod
    def parameter_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """Return the trained parameters, in groups with a factor on the learning rate."""


class Crops(Dataset[tuple[Tensor, ...]]):
    """Random crops of a data set's images, RGB from 0 to 255, with their labels; other ones in each epoch.

    Args:
        seed: Seed of the random choices, which depend on it, the epoch and the image's index alone.

    Attributes:
        epoch: Epoch whose crops are read.

    Examples:
        >>> class Noise(Crops):
        ...     def __len__(self):
        ...         return 8
        ...
        ...     def __getitem__(self, index):
        ...         return (255 * torch.rand(3, 16, 16, generator=self.generator(index)),)
        ...
        ...     def sources(self, index):
        ...         return ("noise",)
        >>> crops = Noise(seed=0)
        >>> torch.equal(crops[5][0], crops[5][0]), torch.equal(crops[5][0], crops[6][0])
        (True, False)
    """

    def __init__(self, seed: int) -> None:
        self.seed, self.epoch = seed, 0

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images."""

    @abstractmethod
    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        """Return a crop (3, size, size) and its labels."""

    @abstractmethod
    def sources(self, index: int) -> Sequence[Source]:
        """Return all that the crops of an image and their labels are made from: files, or texts that stand for them."""

    def generator(self, index: int) -> torch.Generator:
        """Return the source of the random choices for an image."""
        return torch.Generator().manual_seed(int(hash_integers(self.seed, self.epoch, index)))
