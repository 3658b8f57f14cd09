"""The flag that chooses the scales at which an image is seen."""

import argparse
import math
from collections.abc import Sequence
from typing import Any

from torch_svm_seg.data.errors import InputError


def add_scales_argument(group: Any, default: Sequence[float], text: str) -> None:
    """Adds ``--scales``, whose help begins with "factors on the image's size"."""
    group.add_argument(
        "--scales",
        type=float,
        nargs="+",
        default=list(default),
        metavar="S",
        help=f"factors on the image's size {text}",
    )


def check_scales(args: argparse.Namespace) -> None:
    """Raises InputError unless all of --scales are positive and finite."""
    if not all(0 < scale < math.inf for scale in args.scales):
        raise InputError(f"--scales: expected positive numbers, got {' '.join(map(str, args.scales))}")
