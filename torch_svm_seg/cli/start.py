"""The entry points of the commands, and what stands around them: interruptions, and readers that go away.

PyTorch takes seconds to import; nothing here does, so that an interruption ends a command in order from the start.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any, NoReturn, TextIO

INTERRUPTED = 130
"""Exit code after an interruption."""


def expand() -> int:
    """Run ``expand.py``; return the exit code."""
    return run("expand")


def train() -> int:
    """Run ``train.py``; return the exit code."""
    return run("train")


def evaluate() -> int:
    """Run ``evaluate.py``; return the exit code."""
    return run("evaluate")


def label() -> int:
    """Run ``label.py``; return the exit code."""
    return run("label")


def run(command: str) -> int:
    """Import a command and run it on the arguments of this process; return its exit code.

    Until the command's own work begins, nothing is written: an interruption then ends the process at once.
    """

    def end(*_: object) -> NoReturn:
        with suppress(OSError):
            os.write(2, f"{command}.py: interrupted; nothing was done\n".encode())
        os._exit(INTERRUPTED)

    signal.signal(signal.SIGINT, end)
    _open_closed_streams()
    # OpenMP's threads wait for each other by spinning, which takes the cores from whatever else runs, and from
    # themselves where they have fewer than they think. PyTorch reads this as it is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        with output_that_may_end():
            exit_code: int = import_module(f"torch_svm_seg.cli.{command}").main()
    except OSError as error:  # of the output; all others are said by the command
        print(f"{command}.py: error: output: {error.strerror}", file=sys.stderr)
        exit_code = 2
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done
    return exit_code


@contextmanager
def interrupted_once() -> Iterator[None]:
    """Let the first interruption of the block end it in order, and further ones not disturb that."""

    def interrupt(*_: object) -> NoReturn:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def output_that_may_end() -> Iterator[None]:
    """Go on where nobody reads the output of the block any more: the files are what counts."""
    before = sys.stdout
    if before is None:  # closed from the beginning
        yield
        return
    sys.stdout = _Output(before)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stdout = before


class _Output:
    """A text stream whose reader may go away, as ``head`` does; what is written afterwards is lost.

    Any other failure, such as a full disk, is raised once.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text, if anybody reads it."""
        with self._ending():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Hand on what was written, if anybody reads it."""
        with self._ending():
            self._stream.flush()

    @contextmanager
    def _ending(self) -> Iterator[None]:
        """Send all further output nowhere after a failure, that of the interpreter's end included."""
        try:
            yield
        except OSError as error:
            with suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())
            if not isinstance(error, BrokenPipeError):
                raise


def _open_closed_streams() -> None:
    """Give a process that was started without streams some: a summary without an output goes to the errors.

    Otherwise the next file that is opened would take the number of the closed one, and with it what is printed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)
    if sys.stdout is None:
        sys.stdout = sys.stderr
