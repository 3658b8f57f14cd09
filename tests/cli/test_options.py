"""Options declared once: parser, settings and record all say the same."""

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pytest

from torch_svm_seg.cli import expand
from torch_svm_seg.cli.expand import Settings
from torch_svm_seg.cli.options.option import (
    add_options,
    changed_flags,
    declared_defaults,
    group,
    option,
    read_options,
    recorded,
)
from torch_svm_seg.cli.train import COMMANDS
from torch_svm_seg.data.errors import InputError


@dataclass(frozen=True)
class Numbers:
    """Options of several types."""

    steps: int = option(5, help="steps", at_least=1)
    rate: float | None = option(None, help="rate")
    scales: tuple[float, ...] = option((1.0, 2.0), help="scales")
    bounds: tuple[int, int] = option((0, 1), help="bounds")
    kind: Literal["a", "b"] = option("a", help="kind")
    mirror: bool = option(True, help="mirror")
    quiet: bool = option(False, help="quiet", affects_results=False)
    source: Path | None = option(None, help="source", content=True)


@dataclass(frozen=True)
class Both:
    """Settings of a command."""

    numbers: Numbers = group(steps=7)


def read(*flags: str) -> Numbers:
    parser = argparse.ArgumentParser()
    add_options(parser, Both)
    return read_options(Both, parser.parse_args(flags)).numbers


def test_types_come_from_annotations() -> None:
    assert read() == Numbers(steps=7)
    flags = [
        "--steps",
        "3",
        "--rate",
        "0.5",
        "--scales",
        "1",
        "--bounds",
        "4",
        "6",
        "--kind",
        "b",
        "--no-mirror",
        "--quiet",
        "--source",
        "x",
    ]
    expected = Numbers(
        steps=3, rate=0.5, scales=(1.0,), bounds=(4, 6), kind="b", mirror=False, quiet=True, source=Path("x")
    )
    assert read(*flags) == expected


@pytest.mark.parametrize("flags", [["--kind", "c"], ["--steps", "x"], ["--bounds", "1"], ["--no-quiet"]])
def test_bad_values_end_the_parser(flags: list[str]) -> None:
    with pytest.raises(SystemExit):
        read(*flags)


@pytest.mark.parametrize("flags", [["--bogus", "x" * 5000], ["--seed", "\x1b[31m" + "1" * 5000]])
def test_what_the_parser_refuses_is_one_short_line(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        expand.build_parser().parse_args(flags)
    last = capsys.readouterr().err.splitlines()[-1]
    assert ": error: " in last and last.isprintable() and len(last) <= 330


def test_numbers_below_their_least_are_named() -> None:
    with pytest.raises(InputError, match="--steps: expected at least 1, got 0"):
        read("--steps", "0")


def test_the_record_has_all_but_what_results_do_not_depend_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a")
    first = recorded(replace(read(), source=tmp_path / "file")).values
    assert first == {
        "steps": 7,
        "rate": None,
        "scales": [1.0, 2.0],
        "bounds": [0, 1],
        "kind": "a",
        "mirror": True,
        "source": first["source"],
    }
    (tmp_path / "file").write_text("b")
    assert recorded(replace(read(), source=tmp_path / "file")).values["source"] != first["source"]


def test_flags_that_are_not_the_defaults_are_known() -> None:
    assert changed_flags(Numbers()) == []
    assert changed_flags(Numbers(steps=7, kind="b")) == ["--steps", "--kind"]


@pytest.mark.parametrize("settings", [expand.Settings, *(command.Settings for command in COMMANDS.values())])
def test_no_two_options_of_a_command_share_a_name(settings: type) -> None:
    """Records are flat: a name that stood for two options would hide one of them."""
    parser = argparse.ArgumentParser()
    add_options(parser, settings)  # argparse refuses a flag that is there already
    flags = {action.dest for action in parser._actions} - {"help"}
    assert set(declared_defaults(settings)) <= flags


def test_a_folder_of_an_earlier_version_continues(tiny_voc: Path, tmp_path: Path) -> None:
    """Its record lacks what that version did not know, and keeps the choice of images apart."""
    command = ["--root", str(tiny_voc), "--features", "img", "--samples-per-class", "20", "--out", str(tmp_path)]
    assert expand.main(command) == 0
    record = json.loads((tmp_path / "run.json").read_text())
    del record["checksum"]
    settings = record["settings"]
    images = {name: settings.pop(name) for name in ("root", "split", "list", "images", "masks")}
    for name in ("scales", "background", "agreement", "share", "rounds"):
        del settings[name]
    (tmp_path / "run.json").write_text(json.dumps(record | {"settings": settings | {"data": images}}))
    mask = next((tmp_path / "img").glob("*.png"))
    made = mask.stat().st_mtime_ns
    assert expand.main(command) == 0
    assert mask.stat().st_mtime_ns == made
    assert expand.main([*command, "--C", "2"]) == 2


def test_settings_that_depend_on_others_are_filled_in() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser, Settings)
    study = read_options(Settings, parser.parse_args([])).checked()
    assert study.features.features == ("img", "F1", "F2", "F3", "F4", "F5")
    assert (study.samples.samples_per_class, study.features.backbone) == (2500, "efficientnet_lite0")
    assert (study.svm.kernel, study.svm.C) == ("rbf", 1.0)
    seeds = read_options(Settings, parser.parse_args(["--supervision", "seed", "--seeds", "x"])).checked()
    assert (seeds.features.features, seeds.samples.samples_per_class) == (("F4",), 200)
    assert (seeds.svm.kernel, seeds.svm.C) == ("linear", 3e-4)
