"""Options of where and how to run, none of which changes what a run writes."""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from torch_svm_seg.cli.options.option import option
from torch_svm_seg.data.errors import InputError


@dataclass(frozen=True)
class RunOptions:
    """Options of every run."""

    title: ClassVar = "run"

    out: Path = option(Path("out"), metavar="DIR", help="folder to write to", affects_results=False)
    device: str = option("auto", help="cpu, cuda, cuda:N (default: a GPU where there is one)", affects_results=False)

    def choose_device(self) -> torch.device:
        """Return the device to compute on.

        Raises:
            InputError: There is no such device.
        """
        return choose_device(self.device)


@dataclass(frozen=True)
class WriteOptions(RunOptions):
    """Options of runs that write one file per image."""

    overwrite: bool = option(False, help="redo files that are there already", affects_results=False)


@dataclass(frozen=True)
class TrainingRunOptions(RunOptions):
    """Options of runs that train."""

    workers: int = option(0, metavar="N", at_least=0, help="processes that read images ahead", affects_results=False)
    amp: bool = option(False, help="compute in bfloat16 where PyTorch deems it safe")
    resume: bool = option(
        False,
        help="continue from DIR/checkpoint.pt if there is one, with the same settings",
        affects_results=False,
    )


def choose_device(name: str) -> torch.device:
    """Return the device of a ``--device`` flag; ``auto`` is the process's own GPU where there is one, as is ``cuda``.

    Raises:
        InputError: There is no such device.

    Examples:
        >>> choose_device("cpu")
        device(type='cpu')
    """
    if name not in ("auto", "cuda") or (name == "cuda" and not torch.cuda.is_available()):
        try:
            device = torch.empty(0, device=name).device
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise InputError(f"--device {name}: {str(error).splitlines()[0]}") from error
        if device.type == "meta":
            raise InputError("--device meta: holds no values to compute with")
        return device
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    return torch.device("cpu")


def seed_option(text: str) -> Any:
    """Declare ``--seed``, whose help says what it is the seed of."""
    return option(0, parse=_seed, help=text)


def _seed(text: str) -> int:
    seed = int(text)
    if not 0 <= seed < 2**63:
        raise argparse.ArgumentTypeError(f"expected 0 to 2^63 - 1, got {text}")
    return seed
