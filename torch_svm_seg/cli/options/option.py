"""Options that are declared once, as fields of frozen dataclasses.

A declaration makes the flag of the parser, the field of the settings, and the entry in the record of a run, by which a
later run tells whether it continues the same one:

    parser -> frozen dataclass -> run.json -> comparison at the next start

An option is part of the record unless its declaration says that results do not depend on it. So none is forgotten.
"""

import argparse
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from torch_svm_seg.data.errors import InputError, one_line
from torch_svm_seg.data.io import digest
from torch_svm_seg.data.provenance import RunSettings
from torch_svm_seg.pipeline.run_folder import folder_digest

Settings = TypeVar("Settings")

_LARGEST_INTEGER = 2**31 - 1


@dataclass(frozen=True)
class _Declaration:
    """The declaration of one option; see :func:`option`."""

    help: str
    metavar: str | tuple[str, ...] | None
    choices: tuple[str, ...] | None
    parse: Callable[[str], Any] | None
    at_least: float | None
    affects_results: bool
    content: bool


@dataclass(frozen=True)
class _Group:
    """The declaration of a group of options in the settings of a command; see :func:`group`."""

    title: str | None
    description: str | None
    affects_results: bool
    defaults: Mapping[str, Any]


def option(
    default: Any = MISSING,
    *,
    help: str,
    metavar: str | tuple[str, ...] | None = None,
    choices: tuple[str, ...] | None = None,
    parse: Callable[[str], Any] | None = None,
    at_least: float | None = None,
    affects_results: bool = True,
    content: bool = False,
) -> Any:
    """Declare an option as the field of a dataclass; the flag is the field's name, the type its annotation.

    ``bool`` is a switch (with a ``--no-`` form where the default is true), ``tuple[T, ...]`` takes one value or more,
    and ``Literal`` takes one of its values.

    Args:
        default: Value without the flag; an option without a default is required.
        help: What the option does; the default is appended unless the text tells it.
        metavar: Name of the value in the help.
        choices: Allowed values.
        parse: Function that makes the value from the text; by default the annotated type.
        at_least: Smallest allowed number; integers that are not parsed must fit into 32 bits.
        affects_results: Whether what a run writes depends on the value, by more than an SVM's tolerance.
        content: Whether the value is the path of a file or folder whose content matters, not its name.

    Examples:
        >>> @dataclass(frozen=True)
        ... class Options:
        ...     steps: int = option(400, help="number of updates", at_least=1)
        >>> parser = argparse.ArgumentParser()
        >>> add_options(parser, Options)
        >>> read_options(Options, parser.parse_args(["--steps", "7"]))
        Options(steps=7)
    """
    declaration = _Declaration(help, metavar, choices, parse, at_least, affects_results, content)
    return field(default=default, kw_only=True, metadata={"option": declaration})


def group(
    title: str | None = None, description: str | None = None, affects_results: bool = True, **defaults: Any
) -> Any:
    """Declare a group of options, the annotated dataclass, as a field of a command's settings.

    Args:
        title: Title in the help; by default the dataclass's ``title``.
        description: Description in the help; by default the dataclass's ``description``.
        affects_results: Whether what a run writes depends on any of the options.
        defaults: Defaults of this command in place of the dataclass's, by name.
    """
    return field(kw_only=True, metadata={"group": _Group(title, description, affects_results, defaults)})


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one short line, whatever the arguments hold."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and the error, and exit with 2."""
        super().error(one_line(message))


def add_options(parser: Any, options: type, defaults: Mapping[str, Any] | None = None) -> None:
    """Add the options that a dataclass declares to a parser, each group under its title.

    Args:
        parser: Parser, or a group of one.
        options: Dataclass of fields made by :func:`option` and :func:`group`.
        defaults: Defaults in place of the declared ones, by name.
    """
    hints = get_type_hints(options)
    for declared in fields(options):
        if "group" in declared.metadata:
            declaration, kind = declared.metadata["group"], hints[declared.name]
            title = declaration.title or getattr(kind, "title", None)
            description = declaration.description or getattr(kind, "description", None)
            add_options(parser.add_argument_group(title, description), kind, declaration.defaults)
        else:
            default = (defaults or {}).get(declared.name, declared.default)
            parser.add_argument(flag(declared.name), **_argument(hints[declared.name], declared, default))


def read_options(options: type[Settings], arguments: argparse.Namespace) -> Settings:
    """Return the values of the options that :func:`add_options` added, as their dataclass.

    Raises:
        InputError: A number is smaller or larger than the option allows.
    """
    hints, values = get_type_hints(options), {}
    for declared in fields(options):  # type: ignore[arg-type]
        if "group" in declared.metadata:
            values[declared.name] = read_options(hints[declared.name], arguments)
            continue
        value = getattr(arguments, declared.name)
        _check_range(flag(declared.name), value, declared.metadata["option"])
        values[declared.name] = tuple(value) if isinstance(value, list) else value
    return options(**values)


def recorded(settings: Any) -> RunSettings:
    """Return what results depend on; files and folders by their content.

    Raises:
        InputError: A file cannot be read.
    """
    values = {
        name: _fingerprint(value) if declaration.content else _plain(value)
        for name, value, declaration in _values(settings)
        if declaration.affects_results
    }
    return RunSettings(values, declared_defaults(type(settings)))


def declared_defaults(options: type) -> dict[str, Any]:
    """Return the declared default of each option by name, in plain types: what a record without the name stands for."""
    hints = get_type_hints(options)
    defaults: dict[str, Any] = {}
    for declared in fields(options):
        if "group" in declared.metadata:
            defaults |= declared_defaults(hints[declared.name]) | {
                name: _plain(value) for name, value in declared.metadata["group"].defaults.items()
            }
        elif declared.default is not MISSING:
            defaults[declared.name] = _plain(declared.default)
    return defaults


def changed_flags(settings: Any) -> list[str]:
    """Return the flags whose values are not the declared defaults."""
    defaults = declared_defaults(type(settings))
    return [flag(name) for name, value, _ in _values(settings) if _plain(value) != defaults.get(name)]


def flags_of(options: Any) -> list[str]:
    """Return the command line of a group's values, without those that are the declared defaults.

    Examples:
        >>> @dataclass(frozen=True)
        ... class Options:
        ...     steps: int = option(400, help="number of updates")
        ...     flip: bool = option(True, help="also see the mirror image")
        >>> flags_of(Options(steps=7, flip=False))
        ['--steps', '7', '--no-flip']
    """
    flags: list[str] = []
    for declared in fields(options):
        value = getattr(options, declared.name)
        if value == declared.default:
            continue
        if isinstance(value, bool):
            flags.append(flag(declared.name if value else f"no_{declared.name}"))
        else:
            flags += [flag(declared.name), *map(str, value if isinstance(value, tuple) else (value,))]
    return flags


def flag(name: str) -> str:
    """Return the flag of an option.

    Examples:
        >>> flag("samples_per_class")
        '--samples-per-class'
    """
    return f"--{name.replace('_', '-')}"


def _check_range(name: str, value: Any, declaration: _Declaration) -> None:
    """Raise InputError where a number is out of its range."""
    least = declaration.at_least
    if value is not None and least is not None and not value >= least:
        raise InputError(f"{name}: expected at least {least}, got {value}")
    if isinstance(value, int) and declaration.parse is None and value > _LARGEST_INTEGER:
        raise InputError(f"{name}: expected at most {_LARGEST_INTEGER}, got {value}")


def _values(settings: Any) -> Iterator[tuple[str, Any, _Declaration]]:
    """Name, value and declaration of each option in the groups that results depend on."""
    for declared in fields(settings):
        value = getattr(settings, declared.name)
        if is_dataclass(value):
            if declared.metadata["group"].affects_results:
                yield from _values(value)
        else:
            yield declared.name, value, declared.metadata["option"]


def _argument(hint: Any, declared: Any, default: Any) -> dict[str, Any]:
    """Return the arguments of ``add_argument``."""
    declaration, kind = declared.metadata["option"], _without_none(hint)
    argument: dict[str, Any] = {"help": _help(declaration.help, default), "dest": declared.name}
    if default is MISSING:
        argument["required"] = True
    else:
        argument["default"] = default
    if kind is bool:
        action = argparse.BooleanOptionalAction if default is True else "store_true"
        return argument | {"action": action}
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        kind, argument["nargs"] = inner[0], "+" if inner[-1] is Ellipsis else len(inner)
    if get_origin(kind) is Literal:
        argument["choices"], kind = get_args(kind), str
    if declaration.choices is not None:
        argument["choices"] = declaration.choices
    if declaration.metavar is not None:
        argument["metavar"] = declaration.metavar
    return argument | {"type": declaration.parse or kind}


def _without_none(hint: Any) -> Any:
    """Return the type in ``T | None``."""
    if get_origin(hint) in (Union, types.UnionType):
        return next(part for part in get_args(hint) if part is not type(None))
    return hint


def _help(text: str, default: Any) -> str:
    if "(default" in text or default is MISSING or default is None or isinstance(default, bool) or default == ():
        return text
    shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
    return f"{text} (default: {shown})"


def _fingerprint(value: Any) -> str | None:
    return folder_digest(value) if value is not None and Path(value).is_dir() else digest(value)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value
