"""Recipes: what is in the package, and files that are none."""

import json
from pathlib import Path

import pytest

from torch_svm_seg.data.errors import InputError
from torch_svm_seg.pipeline.recipe import RecipeStep, read_recipe, recipe_names


def write(path: Path, content: object) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


@pytest.mark.parametrize("name", recipe_names())
def test_the_package_s_recipes_end_with_the_score_of_a_network(name: str) -> None:
    recipe = read_recipe(name)
    start = [step.name for step in recipe.steps[:2]]
    assert start == (["walk", "pixels"] if name == "own_maps" else ["classifier", "maps"])
    assert [step.name for step in recipe.steps[-3:]] == ["network", "prediction", "score"]
    assert [step.name for step in recipe.steps if step.validates] == ["prediction", "score"]


def test_fields_are_filled_and_spaces_kept() -> None:
    step = RecipeStep.of("maps", "train.py cams --checkpoint '{folder}/a b.pt' --scales 1 {scale} @validation")
    assert step.command == ("train.py", "cams") and step.validates
    filled = step.filled({"folder": "my runs", "scale": "0.5"})
    assert filled == ["--checkpoint", "my runs/a b.pt", "--scales", "1", "0.5"]


def test_values_are_replaced_and_missing_ones_asked_for(tmp_path: Path) -> None:
    content = {"about": "a test", "values": {"epochs": 2, "weights": None}, "steps": {"a": "expand.py --x {epochs}"}}
    recipe = read_recipe(write(tmp_path / "a.json", content))
    assert recipe.resolved({"weights": "w.pt"}) == {"epochs": "2", "weights": "w.pt"}
    assert recipe.resolved({"weights": "w.pt", "epochs": "9"})["epochs"] == "9"
    with pytest.raises(InputError, match=r"--set weights=VALUE: this recipe needs it \(a test\)"):
        recipe.resolved({})
    with pytest.raises(InputError, match="--set: steps: expected one of epochs, weights in this recipe"):
        recipe.resolved({"steps": "1"})


def test_generations_repeat_steps_and_fields_stand_for_the_latest(tmp_path: Path) -> None:
    again = {"maps": "train.py cams --checkpoint {network}", "network": "train.py segment --masks {maps}"}
    steps = {"network": "train.py segment", "generations": again, "score": "evaluate.py --predictions {network}"}
    recipe = read_recipe(write(tmp_path / "a.json", {"steps": steps, "seconds": {"maps-2": 3}}))

    def shown(generations: int, end: str | None = None) -> list[tuple[str, list[str]]]:
        return [(each.name, each.step.filled(each.folders)) for each in recipe.planned(generations, end)]

    first, second = ("network", []), ("maps-2", ["--checkpoint", "network"])
    assert shown(1) == [first, ("score", ["--predictions", "network"])]
    third, fourth = ("network-2", ["--masks", "maps-2"]), ("maps-3", ["--checkpoint", "network-2"])
    assert shown(3)[:4] == [first, second, third, fourth]
    assert shown(3)[4:] == [("network-3", ["--masks", "maps-3"]), ("score-3", ["--predictions", "network-3"])]
    # Masks that agree train no further network: the last steps are about the one before.
    assert shown(5, "network-3") == [*shown(3)[:4], ("score-2", ["--predictions", "network-2"])]
    assert [each.pace for each in recipe.planned(3)][-3:] == ["maps-2", "network-2", "score"]
    assert recipe.seconds == {"maps-2": 3.0}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "a.json: "),
        ([], "no recipe: expected "),
        ({"steps": {}}, "no recipe: expected "),
        ({"steps": {"a": ["expand.py"]}}, "each step's command as a text"),
        ({"steps": {"generations": {"a": 1}}}, "each step's command as a text"),
        ({"steps": {"a": "expand.py"}, "seconds": {"a": "long"}}, "a.json: "),
        ({"steps": {"a": "expand.py '"}}, "a.json: No closing quotation"),
        ({"steps": {"../a": "expand.py"}}, r"step '../a': expected a name of letters"),
        ({"steps": {"a": "expand.py --cams {b}", "b": "expand.py"}}, r"step a: \{b\} is neither an earlier step nor"),
    ],
)
def test_files_that_are_no_recipes_are_named(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_recipe(write(tmp_path / "a.json", content))


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(
        InputError, match="--recipe: expected one of light, own_maps, resnet50, transformer, or a JSON file, got x"
    ):
        read_recipe("x")
