"""Flags that choose refinements."""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from torch_svm_seg.data.errors import InputError
from torch_svm_seg.irn import load_irn
from torch_svm_seg.pipeline.expansion_run import UNREFINED
from torch_svm_seg.refine import PAMR, DenseCRF
from torch_svm_seg.refine.dense_crf import PRESETS


def add_refinement_arguments(group: Any, crf: str, crf_help: str) -> None:
    """Adds the flags that :func:`open_refinement` reads, besides the refinements' names.

    Args:
        group: takes the flags.
        crf: default of the dense CRF's parameters.
        crf_help: says what the dense CRF is used for.
    """
    group.add_argument(
        "--crf",
        choices=tuple(PRESETS),
        default=crf,
        help=f"published parameters of the dense CRF{crf_help} (default: %(default)s)",
    )
    group.add_argument("--irn-weights", metavar="FILE", help="checkpoint of `train.py irn`, for the refinement irn")


def open_refinement(args: argparse.Namespace, name: str, device: torch.device) -> list[nn.Module]:
    """Builds the modules that a refinement such as ``crf+pamr`` applies one after the other; for ``none``, no module.

    Raises:
        InputError: there is no such refinement, or its weights are missing or cannot be read.
    """
    steps: dict[str, Callable[[], nn.Module]] = {
        "crf": lambda: DenseCRF.preset(args.crf),
        "pamr": PAMR,
        "par": lambda: PAMR("par"),
        "irn": lambda: load_irn(args.irn_weights),
    }
    chosen = [] if name == UNREFINED else name.split("+")
    unknown = [step for step in chosen if step not in steps]
    if unknown:
        raise InputError(f"--refine: expected none or {', '.join(steps)} joined by +, got {name!r}")
    if "irn" in chosen and args.irn_weights is None:
        raise InputError("--refine irn: needs --irn-weights FILE, which `train.py irn` writes")
    return [steps[step]().to(device) for step in chosen]
