"""What every command does around its work: processes, errors in one line, exit codes."""

import sys
from collections.abc import Callable

from torch_svm_seg.data.errors import InputError
from torch_svm_seg.training.distributed import processes


def exit_code_of(program: str, work: Callable[[int, int], int], when_interrupted: str) -> int:
    """Run a command as one of the processes of a ``torchrun``, or alone, and return its exit code.

    Args:
        program: Name for messages.
        work: Takes the number of this process and the number of processes; returns the exit code.
        when_interrupted: How to continue, for the message after an interruption.

    Returns:
        The exit code of ``work``; 2 after an error of the input or of writing, 130 after an interruption.
    """
    try:
        with processes() as (rank, number):
            return work(rank, number)
    except (InputError, OSError) as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{program}: interrupted; {when_interrupted}", file=sys.stderr)
        return 130
