"""train.py weak: all steps from image-level labels to a segmentation network, by a recipe."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import ClassVar, get_type_hints

from torch_svm_seg.cli.options.data import DataOptions, LabelOptions
from torch_svm_seg.cli.options.option import flags_of, group, option
from torch_svm_seg.cli.options.run import RunOptions, TrainingRunOptions
from torch_svm_seg.cli.steps import EVALUATE, STEPS, Command
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.pipeline.mask_agreement import mask_agreement
from torch_svm_seg.pipeline.recipe import PlannedStep, Recipe, RecipeStep, read_recipe, recipe_names
from torch_svm_seg.pipeline.step_times import StepTimes
from torch_svm_seg.training.distributed import gathered

HELP = "all steps from image-level labels to a segmentation network, by a recipe"
DESCRIPTION = (
    "Run the commands of a recipe one after the other: classifier, class activation maps, what refines them, masks, "
    "segmentation network, its masks of other images, and a report. Each step writes a folder of its name, DIR/NAME, "
    "as its own command does, and continues where it stopped: so does the same command of all of them."
)

TIMES_FILE = "times.json"


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
    generations: int = option(
        1,
        metavar="N",
        at_least=1,
        help="generations of masks, at most: the network of each one gives the seeds of the next (default: 1)",
    )
    settled: float = option(
        0.97, metavar="P", help="share of equal pixels in the masks of two generations at which there is no further one"
    )
    until: str | None = option(None, metavar="STEP", help="the last step to do (default: that of the recipe)")
    dry_run: bool = option(False, help="print the commands, and run none")

    def values(self, recipe: Recipe) -> dict[str, str]:
        """Return the values of the recipe's fields.

        Raises:
            InputError: One is not NAME=VALUE, or the recipe has no such value.
        """
        if wrong := [text for text in self.set if "=" not in text]:
            raise InputError(f"--set: expected NAME=VALUE, got {wrong[0]}")
        return recipe.resolved(dict(text.split("=", 1) for text in self.set))

    def planned(self, recipe: Recipe, end: str | None = None) -> list[PlannedStep]:
        """Return the steps to do, of which those from ``end`` on are not repeated.

        Raises:
            InputError: The recipe has no such last step, or repeats none.
        """
        if not 0 <= self.settled <= 1:
            raise InputError(f"--settled: expected 0 to 1, got {self.settled}")
        if self.generations > 1 and not any(step.repeats for step in recipe.steps):
            raise InputError(f"--generations: {self.generations}: the recipe {self.recipe} repeats no steps")
        names = [step.label for step in recipe.planned(self.generations)]
        if self.until not in (None, *names):
            raise InputError(f"--until: expected one of {', '.join(names)}, got {self.until}")
        kept = names[: names.index(self.until or names[-1]) + 1]
        return [step for step in recipe.planned(self.generations, end) if step.label in kept]


@dataclass(frozen=True)
class RecipeValidationOptions:
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
    validation: RecipeValidationOptions = group()
    run: RunOptions = group(out=Path("out/weak"))


def run(settings: Settings, rank: int = 0, processes: int = 1) -> int:
    """Run the steps; return the exit code: 1 if one of them skipped images."""
    pipeline = Pipeline.of(settings)
    if settings.pipeline.dry_run:
        print("\n".join(map(str, pipeline.commands)))
        return 0
    start, worst, step = time.monotonic(), 0, 0
    while step < len(pipeline.commands):
        if pipeline.has_settled(step, rank, processes):
            pipeline = Pipeline.of(settings, end=pipeline.commands[step].name)
            continue
        if rank == 0:
            pipeline.announce(step, time.monotonic() - start)
        # No process goes on to read what the first one still writes.
        worst = max(worst, *gathered(pipeline.do(step, rank, processes)))
        step += 1
    if rank == 0:
        print(f"\n{step} steps in {_shown(time.monotonic() - start)}; all that they wrote is in {settings.run.out}")
    return worst


@dataclass(frozen=True)
class Pipeline:
    """The steps to do.

    Attributes:
        settings: Settings of the command.
        commands: Commands of the steps, all of which are checked.
        times: What steps took, and take.
        end: Name of the step from which on nothing is repeated, since masks agree; None if that is still open.
    """

    settings: Settings
    commands: Sequence[Command]
    times: StepTimes
    end: str | None = None

    @classmethod
    def of(cls, settings: Settings, end: str | None = None) -> "Pipeline":
        """Return the steps of a recipe.

        Raises:
            InputError: The recipe, or a value of it, cannot be used.
        """
        recipe = read_recipe(settings.pipeline.recipe)
        planned = settings.pipeline.planned(recipe, end)
        pace = {step.name: recipe.seconds[step.pace] for step in planned if step.pace in recipe.seconds}
        times = StepTimes.open(settings.run.out / TIMES_FILE, pace)
        return cls(settings, list(_commands(settings, recipe, planned)), times, end)

    def has_settled(self, step: int, rank: int, processes: int) -> bool:
        """Whether a step trains a network on masks that are nearly those of the generation before."""
        masks = [command.trained_masks for command in self.commands[: step + 1] if command.trained_masks]
        if self.commands[step].trained_masks is None or len(masks) < 2:
            return False
        images = replace(self.settings.data, masks=None, masks_form=None).open()
        share = mask_agreement(images, masks[-2], masks[-1], rank, processes)
        if rank == 0:
            print(f"\n{100 * share:.2f} % of the pixels are the same in {masks[-2]} and {masks[-1]}")
        return share >= self.settings.pipeline.settled

    def announce(self, step: int, seconds: float) -> None:
        """Print which step comes, how long all took so far, and how long those left will take if that is known."""
        command = self.commands[step]
        left = self.times.left([(command.name, command.work) for command in self.commands[step:]])
        most = "at most " * (self.end is None and self.settings.pipeline.generations > 1)
        times = f"{_shown(seconds)} so far" + ("" if left is None else f", about {_shown(left)} left")
        print(f"\nstep {step + 1} of {most}{len(self.commands)}: {command.name} ({times})\n{command}", flush=True)

    def do(self, step: int, rank: int, processes: int) -> int:
        """Run a step, and keep how long it took; return its exit code."""
        command, start, done = self.commands[step], time.monotonic(), False
        try:
            exit_code = command.run(self.settings.run.out, rank, processes)
            done = True
        finally:
            if rank == 0:
                self.times.add(command.name, time.monotonic() - start, command.work, done)
        return exit_code


def _shown(seconds: float) -> timedelta:
    """Return a time in whole seconds."""
    return timedelta(seconds=round(seconds))


def _commands(settings: Settings, recipe: Recipe, planned: Sequence[PlannedStep]) -> Iterator[Command]:
    """Yield the commands of the steps to do, all of which are checked.

    Raises:
        InputError: A value of the recipe cannot be used.
    """
    values, images = settings.pipeline.values(recipe), settings.data.open()
    validation = settings.validation.images(settings.data)
    number = 0 if validation is None else len(validation.open())
    for each in planned:
        step, data = each.step, validation if each.step.validates else settings.data
        if data is None or (step.command == EVALUATE and not images.has_masks):
            continue
        folders = {name: str(settings.run.out / folder) for name, folder in each.folders.items()}
        flags = [*_flags(each, settings, data), *step.filled(values | folders)]
        yield Command.of(each.name, step.command, flags, number if step.validates else len(images))


def _flags(each: PlannedStep, settings: Settings, data: DataOptions) -> list[str]:
    """Return the flags that do not stand in the recipe: images, labels, folder, device."""
    step: RecipeStep = each.step
    kinds = get_type_hints(STEPS[step.command].Settings).values() if step.command in STEPS else ()
    # The masks that a network is trained on take the place of the images' own.
    flags = flags_of(replace(data, masks=None, masks_form=None) if "--masks" in step.flags else data)
    if LabelOptions in kinds:
        flags += flags_of(settings.labels)
    if any(issubclass(kind, RunOptions) for kind in kinds) and settings.run.device != "auto":
        flags += ["--device", settings.run.device]
    if TrainingRunOptions in kinds:
        flags += ["--resume"]
    return [*flags, "--out", str(settings.run.out / each.name)]
