"""Flags of where and how to run."""

import argparse
from pathlib import Path
from typing import Any


def add_run_arguments(parser: argparse.ArgumentParser, out: str) -> Any:
    """Adds the flags of every run; returns their group.

    Args:
        parser: takes the flags.
        out: default of ``--out``.
    """
    run = parser.add_argument_group("run")
    run.add_argument("--out", type=Path, default=Path(out), metavar="DIR", help="(default: %(default)s)")
    run.add_argument("--device", default="auto", help="cpu, cuda, cuda:N (default: a GPU where there is one)")
    return run


def add_seed_argument(group: Any, text: str) -> None:
    """Adds ``--seed``, whose help says what it is the seed of."""
    group.add_argument("--seed", type=_seed, default=0, help=f"{text} (default: %(default)s)")


def _seed(text: str) -> int:
    seed = int(text)
    if not 0 <= seed < 2**63:
        raise argparse.ArgumentTypeError(f"expected 0 to 2^63 - 1, got {text}")
    return seed


def add_workers_argument(run: Any) -> None:
    """Adds the flag of runs that can read ahead to those of every run."""
    run.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes that read images ahead (default: 0)"
    )


def add_overwrite_argument(run: Any) -> None:
    """Adds the flag of runs that write a file for each image to those of every run."""
    run.add_argument("--overwrite", action="store_true", help="redo files that are there already")
