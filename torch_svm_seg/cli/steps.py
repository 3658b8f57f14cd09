"""The commands that each do one step, from image-level labels to a segmentation network and its score."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from torch_svm_seg.cli import cams, classify, evaluate, expand, irn, pixels, posterior, predict, propagate, segment
from torch_svm_seg.cli.command import alone
from torch_svm_seg.cli.options.option import add_options, read_options
from torch_svm_seg.data.errors import InputError

EVALUATE, SEGMENT = ("evaluate.py",), ("train.py", "segment")

TRAIN: dict[str, ModuleType] = {
    "classify": classify,
    "cams": cams,
    "irn": irn,
    "propagate": propagate,
    "pixels": pixels,
    "posterior": posterior,
    "segment": segment,
    "predict": predict,
}
"""Those of ``train.py``. Each has ``HELP``, ``DESCRIPTION``, ``Settings``, and ``run(settings, rank, processes)``."""

STEPS: dict[tuple[str, ...], ModuleType] = {
    **{("train.py", name): command for name, command in TRAIN.items()},
    ("expand.py",): expand,
    EVALUATE: evaluate,
}
"""All of them, as they are called. Each has its ``Settings``."""


class Command(NamedTuple):
    """A step as it is run.

    Attributes:
        name: Name of the step.
        words: The script, its command if it has several, and the flags.
        module: The command's module.
        settings: What the flags say.
        images: Number of images that it is about.

    Examples:
        >>> print(Command.of("score", ("evaluate.py",), ["--predictions", "my masks"]))
        python evaluate.py --predictions 'my masks'
    """

    name: str
    words: tuple[str, ...]
    module: ModuleType
    settings: Any
    images: int = 0

    @classmethod
    def of(cls, name: str, kind: tuple[str, ...], flags: Sequence[str], images: int = 0) -> "Command":
        """Read the flags of a kind of command.

        Raises:
            InputError: There is no such command, or it does not take the flags.
        """
        if kind not in STEPS:
            raise InputError(f"--recipe: step {name}: no such command as {' '.join(kind)}")
        module, parser = STEPS[kind], argparse.ArgumentParser(prog=" ".join(kind))
        add_options(parser, module.Settings)
        try:
            settings = read_options(module.Settings, parser.parse_args(flags))
        except SystemExit as error:  # the parser has said what is wrong
            raise InputError(f"--recipe: step {name}: cannot be run, see above") from error
        return cls(name, (*kind, *flags), module, settings, images)

    @property
    def work(self) -> float:
        """How much there is to do: steps of a training, or images times the passes over them."""
        training = getattr(self.settings, "training", None)
        return float(getattr(training, "steps", None) or self.images * getattr(training, "epochs", 1))

    @property
    def trained_masks(self) -> Path | None:
        """The folder of masks that it trains a network on."""
        return self.settings.data.masks if self.words[:2] == SEGMENT else None

    def __str__(self) -> str:
        return f"python {shlex.join(self.words)}"

    def run(self, out: Path, rank: int, processes: int) -> int:
        """Run the command as it runs alone; return the exit code.

        Raises:
            InputError: It cannot be done.
        """
        try:
            with alone(out / self.name, rank):
                exit_code: int = self.module.run(self.settings, rank, processes)
                return exit_code
        except InputError as error:
            raise InputError(f"step {self.name}: {error}") from error
