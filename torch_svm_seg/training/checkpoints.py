"""Checkpoints of trainings: enough to continue them, and to build their networks again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from torch_svm_seg.backbones.weights import why_unreadable
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import PathLike, write_atomically

Network = TypeVar("Network", bound=nn.Module)

_NEEDED = ("model", "settings", "class_names")
_OWN = ("settings", "class_names", "best")


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    Attributes:
        settings: all that the training depends on; ``method`` among them.
        class_names: name of each class id, background first.
        state: what :meth:`~torch_svm_seg.training.trainer.Training.state_dict` gave, or of it the network's alone.
        best: the best validation score so far, where networks are chosen by one.
    """

    settings: dict[str, Any]
    class_names: tuple[str, ...]
    state: dict[str, Any]
    best: float | None = None


def save_checkpoint(path: PathLike, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint, which appears whole or not at all."""
    own = {"settings": checkpoint.settings, "class_names": list(checkpoint.class_names), "best": checkpoint.best}
    write_atomically(path, lambda stream: torch.save(checkpoint.state | own, stream))


def read_checkpoint(path: PathLike) -> Checkpoint:
    """Reads a checkpoint, written by :func:`save_checkpoint`; code in it is never run.

    Raises:
        InputError: the file cannot be read, or is no checkpoint.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # damaged files make the unpickler raise nearly anything
        raise InputError(f"{path}: {why_unreadable(error)}") from error
    missing = [key for key in _NEEDED if key not in content] if isinstance(content, dict) else list(_NEEDED)
    if missing:
        raise InputError(f"{path}: not a checkpoint of train.py (without {', '.join(missing)})")
    state = {key: value for key, value in content.items() if key not in _OWN}
    return Checkpoint(content["settings"], tuple(content["class_names"]), state, content.get("best"))


def check_classes(path: PathLike, checkpoint: Checkpoint, class_names: Sequence[str] | None) -> None:
    """Raises InputError unless a checkpoint is of these classes, background first; None stands for any."""
    own = checkpoint.class_names
    if class_names is not None and own != tuple(class_names):
        raise InputError(
            f"{path}: trained on {len(own) - 1} classes ({_some(own[1:])}), but the data set has "
            f"{len(class_names) - 1} ({_some(class_names[1:])})"
        )


def load_network(path: PathLike, checkpoint: Checkpoint, network: Network, name: str) -> Network:
    """Gives a network its weights of a checkpoint, and puts it in evaluation mode.

    Args:
        path: of the checkpoint, for messages.
        checkpoint: what it holds.
        network: of the kind that the checkpoint's settings name.
        name: of that kind, for messages.

    Raises:
        InputError: the weights do not fit the network.
    """
    try:
        network.load_state_dict(checkpoint.state["model"])
    except RuntimeError as error:
        raise InputError(f"{path}: does not fit {name}: {str(error).split(':')[0]}") from error
    return network.eval()


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
