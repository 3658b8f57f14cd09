"""What a network needs to be trained by ``torch_svm_seg.training``."""

from typing import Any

from torch import Tensor, nn


class Trainable(nn.Module):
    """A network that knows its losses and which of its parameters are new.

    Attributes:
        loss_names: names of the terms that :meth:`losses` gives.
    """

    loss_names: tuple[str, ...]

    @property
    def pretrained_parameters(self) -> list[nn.Parameter]:
        """The trained parameters that were trained before on other data."""
        raise NotImplementedError

    @property
    def new_parameters(self) -> list[nn.Parameter]:
        """What is not pretrained, and so learns faster."""
        raise NotImplementedError

    def losses(self, *batch: Any, **named: Any) -> dict[str, Tensor]:
        """Gives the terms whose sum is trained on.

        Args:
            *batch: what the training data gives for each image, stacked; RGB 0..255 of shape (B, 3, H, W) first.
            **named: the same by name.
        """
        raise NotImplementedError
