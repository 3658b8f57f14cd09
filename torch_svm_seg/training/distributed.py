"""One run on several processes, as ``torchrun`` starts them: each takes its share of the images."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed

Value = TypeVar("Value")

# Processes wait for the slowest share of a run, by default for no more than half an hour.
_PATIENCE = timedelta(days=30)


@contextmanager
def process_group() -> Iterator[tuple[int, int]]:
    """Join the processes of a ``torchrun`` for the time of the block, and yield (rank, number of processes).

    Examples:
        >>> with process_group() as (rank, processes):
        ...     print(rank, processes)
        0 1
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield 0, 1
        return
    # Gloo serves on any machine, also where processes share a GPU.
    distributed.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield distributed.get_rank(), distributed.get_world_size()
    finally:
        distributed.destroy_process_group()


def gathered(value: Value) -> list[Value]:
    """Return the value of every process, in the order of ranks, on every process; wait for all of them.

    Examples:
        >>> gathered("mine")  # of the only process
        ['mine']
    """
    if not distributed.is_initialized():
        return [value]
    values: list[Value | None] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values  # type: ignore[return-value]


def is_first_process() -> bool:
    """Return whether this process is the one that prints and writes for all.

    Examples:
        >>> is_first_process()
        True
    """
    return process_rank() == 0


@contextmanager
def first_process_first() -> Iterator[None]:
    """Let the first process through the block before all others, which find the files that it downloads there.

    Examples:
        >>> with first_process_first():
        ...     pass
    """
    first = is_first_process()
    if not first:
        gathered(None)
    yield
    if first:
        gathered(None)


def process_rank() -> int:
    """Return the number of this process, from 0.

    Examples:
        >>> process_rank()
        0
    """
    return distributed.get_rank() if distributed.is_initialized() else 0


def process_number() -> int:
    """Return the number of processes.

    Examples:
        >>> process_number()
        1
    """
    return distributed.get_world_size() if distributed.is_initialized() else 1


def sum_over_processes(values: torch.Tensor) -> torch.Tensor:
    """Return the sum of a tensor over all processes, on every process, on the CPU.

    Examples:
        >>> sum_over_processes(torch.tensor([1, 2]))
        tensor([1, 2])
    """
    total = values.detach().cpu().clone()
    if distributed.is_initialized():
        distributed.all_reduce(total)
    return total


def mean_over_processes(values: torch.Tensor) -> torch.Tensor:
    """Return the mean of a tensor over all processes, on every process, on the CPU.

    Examples:
        >>> mean_over_processes(torch.tensor([1.0, 2.0]))
        tensor([1., 2.])
    """
    return sum_over_processes(values) / process_number()
