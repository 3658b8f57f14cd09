"""Flags that choose class activation maps."""

import argparse
from pathlib import Path
from typing import Any

from torch_svm_seg.data.errors import InputError
from torch_svm_seg.pipeline.supervision import Background, CamFiles, background_rule


def add_map_arguments(group: Any, required: bool = False) -> None:
    """Adds the flags that :func:`open_maps` reads.

    Args:
        group: takes the flags.
        required: whether there must be maps.
    """
    group.add_argument("--cams", metavar="DIR", required=required, help="class activation maps, as of train.py cams")
    group.add_argument(
        "--trust-pickle",
        action="store_true",
        help="read the ID.npy that other code bases write into --cams: a pickle, of which only arrays, dictionaries, "
        "numbers and strings are admitted",
    )
    group.add_argument(
        "--background",
        default="auto",
        metavar="RULE",
        help="activation of the background: own is what the method activates itself, as SIPE does, power:A is (1 - the "
        "largest activation)^A, constant:T a threshold (default: auto, which is own where there is one, else power:4)",
    )


def open_background(args: argparse.Namespace) -> Background:
    """The rule that --background names.

    Raises:
        InputError: there is no such rule.
    """
    try:
        return background_rule(args.background)
    except ValueError as error:
        raise InputError(f"--background: {error}") from error


def open_maps(args: argparse.Namespace) -> CamFiles:
    """The maps that the flags of :func:`add_map_arguments` choose.

    Raises:
        InputError: there is no such folder, or no such rule of the background.
    """
    if not Path(args.cams).is_dir():
        raise InputError(f"--cams: {args.cams}: not a folder")
    return CamFiles(args.cams, open_background(args), args.trust_pickle)
