"""Errors in a user's files and arguments, told in one short line."""

import importlib
from typing import Any

LONGEST_MESSAGE = 300
"""Most characters of a message: enough for a path, what was found and what was expected."""


class InputError(ValueError):
    r"""A problem with a user's file or argument; the message is one line that names it and gives the reason.

    The message is cleaned by :func:`one_line`, since names of files, classes and keys in it come from others.

    Examples:
        >>> str(InputError("a.json: unknown class 'cat\x1b[31m'"))
        "a.json: unknown class 'cat\\x1b[31m'"
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def one_line(text: str) -> str:
    r"""Return a text as one line without control characters, its middle cut out where it is too long.

    Examples:
        >>> one_line("first\nsecond\x07")
        'first second\\x07'
        >>> len(one_line("a" * 1000))
        300
    """
    if not text.isprintable():
        lines = " ".join(text.splitlines())
        text = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in lines)
    if len(text) <= LONGEST_MESSAGE:
        return text
    gap = " ... "
    head = (LONGEST_MESSAGE - len(gap)) // 2
    return text[:head] + gap + text[head + len(gap) - LONGEST_MESSAGE :]


def reason_of(error: BaseException) -> str:
    """Return in one line why something failed: the error's message, or its type where it has none.

    Examples:
        >>> reason_of(FileNotFoundError(2, "No such file or directory", "a.png"))
        'No such file or directory'
    """
    if isinstance(error, MemoryError):
        return "not enough memory"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return one_line(" ".join(text.split()) or type(error).__name__)


def import_optional(module: str, advice: str) -> Any:
    """Import a package that only some features need.

    Args:
        module: Dotted name.
        advice: What to do where it is not installed, for the message.

    Raises:
        InputError: It is not installed.

    Examples:
        >>> import_optional("json", "it comes with Python").loads("[1]")
        [1]
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"package {module.split('.')[0]} is not installed: {advice}") from error
