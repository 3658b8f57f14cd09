"""The frame of every command: processes, interruptions, errors in one line, exit codes."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from torch_svm_seg.cli.start import INTERRUPTED, interrupted_once, output_that_may_end
from torch_svm_seg.data.errors import InputError, one_line
from torch_svm_seg.data.folder_lock import locked
from torch_svm_seg.pipeline.run_folder import is_out_of_memory
from torch_svm_seg.training.distributed import process_group


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
    with interrupted_once():
        try:
            with output_that_may_end(), process_group() as (rank, processes), alone(out, rank):
                return work(rank, processes)
        except KeyboardInterrupt:
            print(f"{program}: interrupted; {when_interrupted}", file=sys.stderr)
            return INTERRUPTED
        except Exception as error:
            if not isinstance(error, InputError | OSError) and not is_out_of_memory(error):
                raise
            reason = "not enough memory: " if is_out_of_memory(error) else ""
            print(f"{program}: error: {one_line(reason + str(error))}", file=sys.stderr)
            return 2


def alone(out: Path | None, rank: int) -> AbstractContextManager[None]:
    """Keep other runs out of a folder; the first process does for all."""
    return nullcontext() if out is None or rank != 0 else locked(out)
