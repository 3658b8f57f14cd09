"""The frame of every command: processes, interruptions, errors in one line, exit codes."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, NoReturn, TextIO

from torch_svm_seg.data.errors import InputError, one_line
from torch_svm_seg.data.folder_lock import locked
from torch_svm_seg.pipeline.run_folder import is_out_of_memory
from torch_svm_seg.training.distributed import processes


def exit_code_of(program: str, work: Callable[[int, int], int], when_interrupted: str, out: Path | None = None) -> int:
    """Run a command as one of the processes of a ``torchrun``, or alone, and return its exit code.

    Args:
        program: Name for messages.
        work: Takes the number of this process and the number of processes; returns the exit code.
        when_interrupted: How to continue, for the message after an interruption.
        out: Folder that no other run may write to at the same time.

    Returns:
        The exit code of ``work``; 2 after an error of the input, of writing or of too little memory, 130 after an
        interruption.
    """
    with _interrupted_once(), _output_that_may_end():
        try:
            with processes() as (rank, number), nullcontext() if out is None or rank != 0 else locked(out):
                return work(rank, number)
        except KeyboardInterrupt:
            print(f"{program}: interrupted; {when_interrupted}", file=sys.stderr)
            return 130
        except Exception as error:
            if not isinstance(error, InputError | OSError) and not is_out_of_memory(error):
                raise
            reason = "not enough memory: " if is_out_of_memory(error) else ""
            print(f"{program}: error: {one_line(reason + str(error))}", file=sys.stderr)
            return 2


@contextmanager
def _interrupted_once() -> Iterator[None]:
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


class _Output:
    """A text stream whose reader may go away, as ``head`` does; what is written afterwards is lost."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text, if anybody reads it."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._close()
        return len(text)

    def flush(self) -> None:
        """Hand on what was written, if anybody reads it."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._close()

    def _close(self) -> None:
        """Send all further output nowhere, that of the interpreter's end included."""
        with suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), self._stream.fileno())


@contextmanager
def _output_that_may_end() -> Iterator[None]:
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
