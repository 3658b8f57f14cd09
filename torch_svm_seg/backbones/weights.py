"""Weight files: reading them without running their code, and fitting them to a network.

A file that does not fit is the quiet way to wrong results: PyTorch's own ``strict=False`` leaves a network random and
says nothing. Here what did not fit is reported, and a checkpoint of another network is refused.
"""

import argparse
import errno
import logging
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from torch_svm_seg.data.errors import InputError, import_optional
from torch_svm_seg.data.io import PathLike

Rename = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
"""Turns the names of a file into the names of a network."""

RANDOM = "random"
"""In place of a weight file: leave the weights random, as PyTorch's generator draws them."""

# Where training scripts put the state dict: this project's and torchvision's; timm's and Lightning's; DINO's, whose
# teacher is the network to use.
_STATE_KEYS = ("model", "state_dict", "teacher")

_logger = logging.getLogger(__name__)

# Between a changed classification head, which leaves nearly all to fit, and a ResNet-152 in a ResNet-101, whose
# names and shapes agree in two thirds of the tensors.
_LEAST_SHARE = 0.75

_HUBS = ("hf-hub", "hf_hub", "local-dir")


@dataclass(frozen=True)
class WeightReport:
    """The outcome of loading a weight file.

    BatchNorm's step counters are left out of all four, since old files lack them and nothing here uses them.

    Attributes:
        loaded: Number of tensors taken over.
        missing: Names of the network that the file lacks; they keep their values.
        unexpected: Names of the file that the network lacks.
        other_shape: Names that both have in different shapes, such as a head of another number of classes; the
            network keeps its values.

    Examples:
        >>> print(WeightReport(265, other_shape=("fc.weight", "fc.bias")))
        265 tensors loaded; of another shape, not loaded: fc.weight, fc.bias
    """

    loaded: int
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    other_shape: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether file and network agreed in every name and shape."""
        return not (self.missing or self.unexpected or self.other_shape)

    def __str__(self) -> str:
        groups = {
            "of another shape, not loaded": self.other_shape,
            "missing in the file": self.missing,
            "not of this network": self.unexpected,
        }
        return "; ".join(
            [f"{self.loaded} tensors loaded", *(f"{title}: {_some(names)}" for title, names in groups.items() if names)]
        )


def load_or_warn(network: nn.Module, file: PathLike, rename: Rename | None = None) -> None:
    """Load a weight file as :func:`load_weights` does, and log as a warning what of it does not fit."""
    report = load_weights(network, file, rename)
    if not report.complete:
        _logger.warning("%s: %s", file, report)


def load_weights(network: nn.Module, file: PathLike, rename: Rename | None = None) -> WeightReport:
    """Load a weight file into a network, as far as names and shapes agree.

    Args:
        network: Takes the weights; it is unchanged if this raises.
        file: A file that :func:`read_state_dict` reads. The network's names may all stand behind a prefix, such as
            ``module.`` of DistributedDataParallel or ``backbone.network.`` of a larger model.
        rename: Turns the names of the file into the network's.

    Returns:
        What was loaded and what did not fit.

    Raises:
        InputError: The file cannot be read, is no checkpoint, holds objects other than tensors that would need code
            to load, or is the checkpoint of another network.
    """
    state = read_state_dict(file)
    own = network.state_dict()
    inside, outside = _split_prefix(rename(state) if rename else state, tuple(own))
    fitting = {name: value for name, value in inside.items() if name in own and value.shape == own[name].shape}
    _check_same_network(file, network, _weight_names(inside), _weight_names(fitting))
    network.load_state_dict(fitting, strict=False)
    return WeightReport(
        loaded=len(_weight_names(fitting)),
        missing=tuple(name for name in _weight_names(own) if name not in inside),
        unexpected=tuple(name for name in [*_weight_names(inside), *outside] if name not in own),
        other_shape=tuple(name for name in _weight_names(own) if name in inside and name not in fitting),
    )


def read_state_dict(file: PathLike) -> dict[str, Tensor]:
    """Read the tensors of a weight file; code in it is never run.

    Args:
        file: A ``.safetensors`` file, or one written by ``torch.save``: a state dict, or a dict that holds one under
            ``"model"``, ``"state_dict"`` or ``"teacher"``.

    Returns:
        The named tensors, on the CPU.

    Raises:
        InputError: The file cannot be read, is no checkpoint, or holds objects that would need code to load.
    """
    content = _read_safetensors(file) if Path(file).suffix == ".safetensors" else _read_checkpoint(file)
    if isinstance(content, dict):
        content = next((content[key] for key in _STATE_KEYS if isinstance(content.get(key), dict)), content)
        state = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
        if state:
            return state
    raise InputError(f"{file}: holds no state dict: expected named tensors, or a dict with them as 'model'")


def _read_checkpoint(file: PathLike) -> object:
    try:
        # The settings that DINO, timm and others save beside the weights: names and plain values, no code.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(file, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # damaged files make the unpickler raise nearly anything
        raise InputError(f"{file}: {why_unreadable(error)}") from error


def _read_safetensors(file: PathLike) -> object:
    safetensors = import_optional("safetensors.torch", f"reading {file} needs it; pip install safetensors")
    try:
        return safetensors.load_file(file)
    except OSError as error:
        raise InputError(f"{file}: {one_line(error)}") from error
    except Exception as error:  # SafetensorError, and others of damaged headers
        raise InputError(f"{file}: not a safetensors file, or a damaged one") from error


def refuse_hub(name: str) -> None:
    """Raise InputError for a network that only a hub describes: its name, which a file may hold, would be fetched.

    Examples:
        >>> refuse_hub("smp:Unet:tu-hf-hub:someone/network")
        Traceback (most recent call last):
        torch_svm_seg.data.errors.InputError: smp:Unet:tu-hf-hub:someone/network: a network of a hub is never fetched
    """
    if any(word in name for word in _HUBS):
        raise InputError(f"{name}: a network of a hub is never fetched")


def one_line(error: Exception) -> str:
    """Return an error's message as one line; its type where it has none."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


def why_unreadable(error: Exception) -> str:
    """Say in one line why ``torch.load`` failed, without its advice to load the file by running its code."""
    if "TorchScript" in str(error):
        return "a TorchScript archive, as OpenAI's CLIP is, which holds code; save its state dict alone"
    if isinstance(error, OSError) and error.errno != errno.EINVAL:  # EINVAL: a seek before the start of a cut file
        return one_line(error)
    if isinstance(error, pickle.UnpicklingError) and "global" in str(error).lower():
        return (
            "holds Python objects besides tensors, which could run code and are not loaded; save the state dict alone"
        )
    return "not a checkpoint of torch.save, or a damaged one"


def _weight_names(state: Mapping[str, Tensor]) -> list[str]:
    return [name for name in state if not name.endswith("num_batches_tracked")]


def _split_prefix(state: Mapping[str, Tensor], names: Sequence[str]) -> tuple[dict[str, Tensor], list[str]]:
    """Find the prefix behind which most names of the network stand.

    Returns:
        The tensors behind the prefix, without it, and the names of the others.
    """
    anchor = f".{names[0]}"
    prefixes = ["", *(name.removesuffix(anchor) + "." for name in state if name.endswith(anchor))]
    prefix = max(prefixes, key=lambda prefix: sum(prefix + name in state for name in names))
    inside = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    return inside, [name for name in state if not name.startswith(prefix)]


def _check_same_network(file: PathLike, network: nn.Module, found: Sequence[str], fitting: Sequence[str]) -> None:
    """Refuse a file when too few tensors fit, of the network's or of the file's for the same parts.

    Both counts matter: every tensor of a ResNet-50 finds its like in a ResNet-101's file. Parts that only the file
    has, such as the heads of a larger model, do not count.
    """
    wanted = _weight_names(network.state_dict())
    parts = {name for name, _ in network.named_children()}
    same_parts = [name for name in found if name.split(".")[0] in parts]
    if len(fitting) >= _LEAST_SHARE * max(len(wanted), len(same_parts)):
        return
    left_in_file, left_in_network = ([n for n in names if n not in set(fitting)] for names in (found, wanted))
    raise InputError(
        f"{file}: a checkpoint of another network: {len(fitting)} tensors fit, of {len(found)} in the file "
        f"and {len(wanted)} in the network; without a match in the file: {_some(left_in_file, shown=2)}; "
        f"in the network: {_some(left_in_network, shown=2)}"
    )


def _some(names: Sequence[str], shown: int = 4) -> str:
    rest = f" and {len(names) - shown} more" if len(names) > shown else ""
    return (", ".join(names[:shown]) or "none") + rest
