"""Checkpoints of trainings: enough to continue them, and to build their networks again."""

import io
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from torch_svm_seg.backbones.weights import why_unreadable
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import PathLike, write_atomically
from torch_svm_seg.data.notes import first_few
from torch_svm_seg.data.reading import read_bytes

Network = TypeVar("Network", bound=nn.Module)

_NEEDED = ("model", "settings", "class_names")
_OWN = ("settings", "class_names", "best")


@dataclass(frozen=True)
class Checkpoint:
    """Content of a checkpoint file.

    Attributes:
        settings: All that the training depends on; ``method`` among them.
        class_names: Name of each class id, background first.
        state: Result of :meth:`~torch_svm_seg.training.trainer.Training.state_dict`, or the network's part of it.
        best: Best validation score so far, where networks are chosen by one.

    Examples:
        >>> Checkpoint({"method": "cam"}, ("background", "cat"), {"model": {}}).settings["method"]
        'cam'
    """

    settings: dict[str, Any]
    class_names: tuple[str, ...]
    state: dict[str, Any]
    best: float | None = None


def save_checkpoint(path: PathLike, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, which appears whole or not at all; the same content makes the same bytes.

    Examples:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/checkpoint.pt"
        >>> save_checkpoint(path, Checkpoint({"method": "cam"}, ("background", "cat"), {"model": {}}))
        >>> read_checkpoint(path).class_names
        ('background', 'cat')
    """
    own = {"settings": checkpoint.settings, "class_names": list(checkpoint.class_names), "best": checkpoint.best}
    content = _interned(checkpoint.state | own)
    write_atomically(path, lambda stream: torch.save(content, stream))


def read_checkpoint(path: PathLike) -> Checkpoint:
    """Read a checkpoint, written by :func:`save_checkpoint`; code in it is never run.

    Raises:
        InputError: The file cannot be read, or is no checkpoint.

    Examples:
        >>> read_checkpoint("runs/sipe/checkpoint.pt").class_names  # doctest: +SKIP
    """
    file = read_bytes(path)
    try:
        _check_archive(file)
        content = torch.load(io.BytesIO(file), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # damaged files make the unpickler raise nearly anything
        raise InputError(f"{path}: {why_unreadable(error)}") from error
    missing = [key for key in _NEEDED if key not in content] if isinstance(content, dict) else list(_NEEDED)
    if missing:
        raise InputError(f"{path}: not a checkpoint of train.py (without {', '.join(missing)})")
    settings, names, best = content["settings"], content["class_names"], content.get("best")
    wrong = {
        "model": not _is_state_dict(content["model"]),
        "settings": not isinstance(settings, dict),
        "class_names": not (isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)),
        "best": not isinstance(best, float | int | None),
    }
    if any(wrong.values()):
        raise InputError(f"{path}: not a checkpoint of train.py (its {first_few(n for n in wrong if wrong[n])})")
    state = {key: value for key, value in content.items() if key not in _OWN}
    return Checkpoint(settings, tuple(names), state, best)


def setting(path: PathLike, checkpoint: Checkpoint, name: str) -> str:
    """Return a setting of a checkpoint that is a text, such as the name of its backbone.

    Raises:
        InputError: It is missing, or no text.

    Examples:
        >>> setting("a.pt", Checkpoint({"backbone": "resnet18"}, (), {}), "backbone")
        'resnet18'
    """
    value = checkpoint.settings.get(name)
    if not isinstance(value, str):
        raise InputError(f"{path}: not a checkpoint of train.py (without the name of its {name})")
    return value


def check_classes(path: PathLike, checkpoint: Checkpoint, class_names: Sequence[str] | None) -> None:
    """Raise InputError unless a checkpoint is of these classes, background first; None stands for any.

    Examples:
        >>> checkpoint = Checkpoint({}, ("background", "cat"), {})
        >>> check_classes("a.pt", checkpoint, ["background", "dog"])
        Traceback (most recent call last):
        torch_svm_seg.data.errors.InputError: a.pt: trained on 1 classes (cat), but the data set has 1 (dog)
    """
    own = checkpoint.class_names
    if class_names is None and len(own) < 2:
        raise InputError(f"{path}: not a checkpoint of train.py (trained on no class)")
    if class_names is not None and own != tuple(class_names):
        raise InputError(
            f"{path}: trained on {max(len(own) - 1, 0)} classes ({_some(own[1:])}), but the data set has "
            f"{len(class_names) - 1} ({_some(class_names[1:])})"
        )


def load_network(path: PathLike, checkpoint: Checkpoint, network: Network, name: str) -> Network:
    """Load the weights of a checkpoint into a network, and return it in evaluation mode.

    Args:
        path: Path of the checkpoint, for messages.
        checkpoint: Its content.
        network: Network of the kind that the checkpoint's settings name.
        name: Name of that kind, for messages.

    Raises:
        InputError: The weights do not fit the network.

    Examples:
        >>> network = nn.Linear(3, 2)
        >>> checkpoint = Checkpoint({}, (), {"model": network.state_dict()})
        >>> load_network("a.pt", checkpoint, nn.Linear(3, 2), "a layer").training
        False
    """
    try:
        network.load_state_dict(checkpoint.state["model"])
    except Exception as error:  # damaged state dicts make modules raise nearly anything
        raise InputError(f"{path}: does not fit {name}: {str(error).split(':')[0]}") from error
    return network.eval()


def _check_archive(content: bytes) -> None:
    """Raise BadZipFile where a part of an archive fails its checksum, which PyTorch does not look at."""
    if content.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            damaged = archive.testzip()
            if damaged is not None:
                raise zipfile.BadZipFile(f"{damaged} fails its checksum")


def _interned(value: Any) -> Any:
    """Return a value in which equal texts are one object: a pickle refers back to objects, not to equal ones."""
    if type(value) is dict:
        return {_interned(key): _interned(part) for key, part in value.items()}
    if type(value) is list:
        return [_interned(part) for part in value]
    return sys.intern(value) if type(value) is str else value


def _is_state_dict(value: object) -> bool:
    """Whether a value holds dense tensors by name, and no other kind of tensor that networks could not take."""
    return isinstance(value, dict) and all(
        isinstance(name, str) and not (isinstance(part, Tensor) and (part.layout != torch.strided or part.is_quantized))
        for name, part in value.items()
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
