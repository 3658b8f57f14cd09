"""What every command does around its work: processes, errors in one line, exit codes."""

import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from torch_svm_seg.data.errors import InputError, one_line
from torch_svm_seg.data.folder_lock import locked
from torch_svm_seg.training.distributed import processes


def exit_code_of(program: str, work: Callable[[int, int], int], when_interrupted: str, out: Path | None = None) -> int:
    """Run a command as one of the processes of a ``torchrun``, or alone, and return its exit code.

    Args:
        program: Name for messages.
        work: Takes the number of this process and the number of processes; returns the exit code.
        when_interrupted: How to continue, for the message after an interruption.
        out: Folder that no other run may write to at the same time.

    Returns:
        The exit code of ``work``; 2 after an error of the input or of writing, 130 after an interruption.
    """
    try:
        with processes() as (rank, number), nullcontext() if out is None or rank != 0 else locked(out):
            return work(rank, number)
    except (InputError, OSError) as error:
        print(f"{program}: error: {one_line(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{program}: interrupted; {when_interrupted}", file=sys.stderr)
        return 130
