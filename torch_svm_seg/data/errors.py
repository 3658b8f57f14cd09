"""What goes wrong with a user's files and arguments."""

import importlib
from typing import Any


class InputError(ValueError):
    """A problem with a user's file or argument; the message is one line that names it and gives the reason."""


def import_optional(module: str, advice: str) -> Any:
    """Import a package that only some features need.

    Args:
        module: Dotted name.
        advice: What to do where it is not installed, for the message.

    Raises:
        InputError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"package {module.split('.')[0]} is not installed: {advice}") from error
