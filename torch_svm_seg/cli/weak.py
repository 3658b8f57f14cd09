"""train.py weak: all steps from image-level labels to a segmentation network, by a recipe."""

import argparse
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, NamedTuple, get_type_hints

from torch_svm_seg.cli.command import alone
from torch_svm_seg.cli.options.data import DataOptions, LabelOptions
from torch_svm_seg.cli.options.option import add_options, flags_of, group, option, read_options
from torch_svm_seg.cli.options.run import RunOptions, TrainingRunOptions
from torch_svm_seg.cli.steps import STEPS
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.pipeline.recipe import Recipe, RecipeStep, read_recipe, recipe_names
from torch_svm_seg.training.distributed import gathered

HELP = "all steps from image-level labels to a segmentation network, by a recipe"
DESCRIPTION = (
    "Run the commands of a recipe one after the other: classifier, class activation maps, what refines them, masks, "
    "segmentation network, its masks of other images, and a report. Each step writes a folder of its name, DIR/NAME, "
    "as its own command does, and continues where it stopped: so does the same command of all of them."
)

EVALUATE = ("evaluate.py",)


@dataclass(frozen=True)
class PipelineOptions:
    """The steps."""

    title: ClassVar = "pipeline"

    recipe: str = option(
        "light",
        metavar="NAME",
        help=f"{', '.join(recipe_names())}, or a JSON file of steps (docs/one_command.md)",
    )
    set: tuple[str, ...] = option((), metavar="NAME=VALUE", help="values of the recipe to replace, such as epochs=5")
    until: str | None = option(None, metavar="STEP", help="the last step to do (default: that of the recipe)")
    dry_run: bool = option(False, help="print the commands, and run none")
    processes: int = option(
        1, metavar="N", at_least=1, help="processes of each step, one per GPU, as torchrun has them"
    )

    def values(self, recipe: Recipe) -> dict[str, str]:
        """Return the values of the recipe's fields.

        Raises:
            InputError: One is not NAME=VALUE, or the recipe has no such value.
        """
        if wrong := [text for text in self.set if "=" not in text]:
            raise InputError(f"--set: expected NAME=VALUE, got {wrong[0]}")
        return recipe.resolved(dict(text.split("=", 1) for text in self.set))


@dataclass(frozen=True)
class ValidationOptions:
    """The images that the network is tried on."""

    title: ClassVar = "validation"
    description: ClassVar = "Without any, the steps on them are left out. Nothing is chosen by their ground truth."

    val_split: str | None = option(None, metavar="NAME", help="VOC list, with VOC's own masks")
    val_list: Path | None = option(None, metavar="FILE", help="image names, one per line, instead")

    def images(self, data: DataOptions) -> DataOptions | None:
        """Return the choice of these images; None if there are none."""
        if self.val_split is None and self.val_list is None:
            return None
        return replace(data, split=self.val_split, list=self.val_list)


@dataclass(frozen=True)
class Settings:
    """Settings of the command."""

    data: DataOptions = group()
    labels: LabelOptions = group()
    pipeline: PipelineOptions = group()
    validation: ValidationOptions = group()
    run: RunOptions = group(out=Path("out/weak"))


class Command(NamedTuple):
    """A step as it is run.

    Attributes:
        name: Name of the step.
        words: The script, its command if it has several, and the flags.
        module: The command's module.
        settings: What the flags say.

    Example:
        >>> print(Command.of("score", ("evaluate.py",), ["--predictions", "my masks"]))
        python evaluate.py --predictions 'my masks'
    """

    name: str
    words: tuple[str, ...]
    module: ModuleType
    settings: Any

    @classmethod
    def of(cls, name: str, kind: tuple[str, ...], flags: Sequence[str]) -> "Command":
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
        return cls(name, (*kind, *flags), module, settings)

    def __str__(self) -> str:
        return f"python {shlex.join(self.words)}"

    def run(self, out: Path, rank: int, number: int) -> int:
        """Run the command as it runs alone; return the exit code.

        Raises:
            InputError: It cannot be done.
        """
        try:
            with alone(out / self.name, rank):
                exit_code: int = self.module.run(self.settings, rank, number)
                return exit_code
        except InputError as error:
            raise InputError(f"step {self.name}: {error}") from error


def run(settings: Settings, rank: int = 0, number: int = 1) -> int:
    """Run the steps; return the exit code: 1 if one of them skipped images."""
    commands, out = list(_commands(settings)), settings.run.out
    if settings.pipeline.dry_run:
        print("\n".join(map(str, commands)))
        return 0
    start, worst = time.monotonic(), 0
    for step, command in enumerate(commands, 1):
        if rank == 0:
            print(f"\nstep {step} of {len(commands)}: {command.name} ({_since(start)} so far)\n{command}", flush=True)
        # No process goes on to read what the first one still writes.
        worst = max(worst, *gathered(command.run(out, rank, number)))
    if rank == 0:
        print(f"\n{len(commands)} steps in {_since(start)}; all that they wrote is in {out}")
    return worst


def _since(start: float) -> timedelta:
    """Return the time since a start, in whole seconds."""
    return timedelta(seconds=round(time.monotonic() - start))


def _commands(settings: Settings) -> Iterator[Command]:
    """Yield the commands of the steps to do, all of which are checked.

    Raises:
        InputError: The recipe, or a value of it, cannot be used.
    """
    pipeline, recipe = settings.pipeline, read_recipe(settings.pipeline.recipe)
    names = [step.name for step in recipe.steps]
    if pipeline.until not in (None, *names):
        raise InputError(f"--until: expected one of {', '.join(names)}, got {pipeline.until}")
    values = pipeline.values(recipe) | {name: str(settings.run.out / name) for name in names}
    has_masks = settings.data.open().has_masks
    for step in recipe.steps[: names.index(pipeline.until or names[-1]) + 1]:
        data = settings.validation.images(settings.data) if step.validates else settings.data
        if data is None or (step.command == EVALUATE and not has_masks):
            continue
        yield Command.of(step.name, step.command, [*_flags(step, settings, data), *step.filled(values)])


def _flags(step: RecipeStep, settings: Settings, data: DataOptions) -> list[str]:
    """Return the flags that do not stand in the recipe: images, labels, folder, device."""
    kinds = get_type_hints(STEPS[step.command].Settings).values() if step.command in STEPS else ()
    # The masks that a network is trained on take the place of the images' own.
    flags = flags_of(replace(data, masks=None, masks_form=None) if "--masks" in step.flags else data)
    if LabelOptions in kinds:
        flags += flags_of(settings.labels)
    if any(issubclass(kind, RunOptions) for kind in kinds) and settings.run.device != "auto":
        flags += ["--device", settings.run.device]
    if TrainingRunOptions in kinds:
        flags += ["--resume"]
    return [*flags, "--out", str(settings.run.out / step.name)]
