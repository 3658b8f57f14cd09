"""Recipes: the steps from image-level labels to a segmentation network, as commands with names.

A recipe is a JSON file:

    {
      "about": "what it is for",
      "values": {"epochs": "2", "weights": null},
      "steps": {
        "classifier": "train.py classify --method cam --epochs {epochs}",
        "maps": "train.py cams --checkpoint {classifier}/checkpoint.pt",
        "generations": {
          "maps": "train.py cams --checkpoint {network}/checkpoint.pt",
          "masks": "expand.py --supervision seed --cams {maps} --agreement none --features F4",
          "network": "train.py segment --masks {masks}/F4"
        },
        "prediction": "train.py predict --checkpoint {network}/checkpoint.pt @validation"
      },
      "seconds": {"classifier": 0.2, "maps": 0.4, "maps-2": 0.7}
    }

``{NAME}`` stands for the folder of this step or an earlier one, or for a value, which ``--set NAME=VALUE`` replaces; a
value of null must be set. A step with ``@validation`` takes the images to validate on, all others those to train on.
Images, labels and the folder of each step are added to its command by whoever runs the recipe.

The steps in ``generations`` are done once for each generation after the first, in folders NAME-2, NAME-3, ...; those
that follow belong to the last one. A field stands for the latest folder of its name. ``seconds`` is how long steps take
on some machine, see :class:`~torch_svm_seg.pipeline.step_times.StepTimes`.
"""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import takewhile
from pathlib import Path
from typing import Any

from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.reading import read_bytes, reading
from torch_svm_seg.pipeline.image_log import numbers

VALIDATION, GENERATIONS = "@validation", "generations"
_LARGEST_FILE = 2**20  # bytes
_FOLDER = files("torch_svm_seg") / "recipes"
_FIELD = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class RecipeStep:
    """A step of a recipe.

    Attributes:
        name: Its name, and that of its folder.
        command: The script, and the command of it if it has several: ``("train.py", "cams")``.
        flags: Its flags, with fields such as ``{classifier}``.
        validates: Whether it takes the images to validate on.
        repeats: Whether it is done once for each generation after the first.

    Examples:
        >>> step = RecipeStep.of("maps", "train.py cams --checkpoint {classifier}/checkpoint.pt")
        >>> step.command, step.filled({"classifier": "runs/classifier"})
        (('train.py', 'cams'), ['--checkpoint', 'runs/classifier/checkpoint.pt'])
    """

    name: str
    command: tuple[str, ...]
    flags: tuple[str, ...]
    validates: bool = False
    repeats: bool = False

    @classmethod
    def of(cls, name: str, line: str, repeats: bool = False) -> "RecipeStep":
        """Read a step from its command line."""
        words = shlex.split(line)
        validates = VALIDATION in words
        words = [word for word in words if word != VALIDATION]
        flags = next((number for number, word in enumerate(words) if word.startswith("-")), len(words))
        return cls(name, tuple(words[:flags]), tuple(words[flags:]), validates, repeats)

    @property
    def fields(self) -> list[str]:
        """Names of the fields in its flags."""
        return [name for flag in self.flags for name in _FIELD.findall(flag)]

    def filled(self, values: Mapping[str, str]) -> list[str]:
        """Return its flags with the values of their fields."""
        return [_FIELD.sub(lambda field: values[field[1]], flag) for flag in self.flags]


@dataclass(frozen=True)
class PlannedStep:
    """A step as it is done in one of the generations.

    Attributes:
        name: Name of its folder.
        step: What is done.
        generation: The generation that it belongs to, from 1.
        folders: Name of the folder that each field of its flags stands for.

    Examples:
        >>> step = RecipeStep.of("maps", "train.py cams", repeats=True)
        >>> PlannedStep("maps-3", step, 3, {"maps": "maps-3"}).pace
        'maps-2'
    """

    name: str
    step: RecipeStep
    generation: int
    folders: Mapping[str, str]

    @property
    def label(self) -> str:
        """The name that it is chosen by: what follows all generations has one name, whichever of them is the last."""
        return self.name if self.step.repeats else self.step.name

    @property
    def pace(self) -> str:
        """The name that its time is known by: all generations after the first take equally long."""
        return _folder(self.step.name, 2) if self.step.repeats else self.step.name


@dataclass(frozen=True)
class Recipe:
    """The steps of a pipeline.

    Attributes:
        about: What it is for, in a line.
        values: Values of the fields; None for those that have to be set.
        steps: The steps in their order.
        seconds: How long steps take, see :class:`~torch_svm_seg.pipeline.step_times.StepTimes`.

    Examples:
        >>> [step.name for step in read_recipe("light").steps][:3]
        ['classifier', 'maps', 'walk']
    """

    about: str
    values: Mapping[str, str | None]
    steps: tuple[RecipeStep, ...]
    seconds: Mapping[str, float] = field(default_factory=dict)

    def planned(self, generations: int = 1, end: str | None = None) -> Iterator[PlannedStep]:
        """Yield the steps of so many generations in their order.

        Args:
            generations: Number of generations, at least 1.
            end: Folder of the repeated step, such as ``"network-3"``, from which on nothing is repeated.

        Examples:
            >>> [step.name for step in read_recipe("light").planned(generations=3)][-4:]
            ['report-3', 'network-3', 'prediction-3', 'score-3']
        """
        latest: dict[str, str] = {}
        for step, generation in self._in_order(generations, end):
            latest[step.name] = _folder(step.name, generation)
            yield PlannedStep(latest[step.name], step, generation, dict(latest))

    def _in_order(self, generations: int, end: str | None) -> list[tuple[RecipeStep, int]]:
        """Return each step with the generation that it belongs to; the last steps belong to the last complete one."""
        repeated = [step for step in self.steps if step.repeats]
        first = self.steps.index(repeated[0]) if repeated else len(self.steps)
        again = [(step, generation) for generation in range(2, generations + 1) for step in repeated]
        again = list(takewhile(lambda pair: _folder(pair[0].name, pair[1]) != end, again))
        complete = 1 + len(again) // max(len(repeated), 1)
        before, after = self.steps[:first], self.steps[first + len(repeated) :]
        return [*((step, 1) for step in before), *again, *((step, complete) for step in after)]

    def resolved(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return the values of the fields, with those given in place of the recipe's.

        Raises:
            InputError: A value is unknown, or one that has to be given is not.
        """
        if unknown := sorted(set(given) - set(self.values)):
            known = f"one of {', '.join(self.values)}" if self.values else "none"
            raise InputError(f"--set: {unknown[0]}: expected {known} in this recipe")
        values = {name: given.get(name, value) for name, value in self.values.items()}
        if missing := [name for name, value in values.items() if value is None]:
            raise InputError(f"--set {missing[0]}=VALUE: this recipe needs it ({self.about})")
        return {name: str(value) for name, value in values.items()}


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with the package.

    Examples:
        >>> recipe_names()
        ['light', 'own_maps', 'resnet50', 'transformer']
    """
    return sorted(Path(file.name).stem for file in _FOLDER.iterdir() if file.name.endswith(".json"))


def read_recipe(name: str) -> Recipe:
    """Read a recipe of the package by its name, or any other by its path.

    Raises:
        InputError: There is none, or the file is no recipe.
    """
    known = name in recipe_names()
    if not known and not Path(name).is_file():
        raise InputError(f"--recipe: expected one of {', '.join(recipe_names())}, or a JSON file, got {name}")
    content = (_FOLDER / f"{name}.json").read_bytes() if known else read_bytes(name, _LARGEST_FILE)
    with reading(name):
        recipe = _recipe(json.loads(content))
    _check(recipe, name)
    return recipe


def _recipe(content: Any) -> Recipe:
    """Return the recipe of a JSON file's content; ValueError where it has another form."""
    if not isinstance(content, dict) or not isinstance(content.get("steps"), dict) or not content["steps"]:
        raise ValueError('no recipe: expected {"about": TEXT, "values": {...}, "steps": {NAME: COMMAND, ...}}')
    values, steps = content.get("values", {}), tuple(_steps(content["steps"]))
    if not isinstance(values, dict):
        raise ValueError("no recipe: expected values by name")
    values = {name: None if value is None else str(value) for name, value in values.items()}
    return Recipe(str(content.get("about", "")), values, steps, numbers(content.get("seconds", {})))


def _steps(lines: Mapping[str, Any]) -> Iterator[RecipeStep]:
    """Yield the steps of a recipe's content."""
    for name, line in lines.items():
        repeats = name == GENERATIONS and isinstance(line, dict)
        for own, text in (line if repeats else {name: line}).items():
            if not isinstance(text, str):
                raise ValueError("no recipe: expected each step's command as a text")
            yield RecipeStep.of(own, text, repeats)


def _folder(name: str, generation: int) -> str:
    """Return the name of a step's folder."""
    return f"{name}-{generation}" if generation > 1 else name


def _check(recipe: Recipe, source: str) -> None:
    """Raise InputError unless every name can be a folder's, and every field is a value or an earlier step."""
    known = set(recipe.values)
    for step in recipe.steps:
        if not re.fullmatch(r"\w[\w-]*", step.name):
            raise InputError(f"{source}: step {step.name!r}: expected a name of letters, digits, _ and -")
        known.add(step.name)
        if unknown := [name for name in step.fields if name not in known]:
            raise InputError(f"{source}: step {step.name}: {{{unknown[0]}}} is neither an earlier step nor a value")
