"""Options that choose refinements."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from torch_svm_seg.cli.options.option import option
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.irn import load_irn
from torch_svm_seg.pipeline.expansion_run import UNREFINED
from torch_svm_seg.refine import PAMR, DenseCRF
from torch_svm_seg.refine.dense_crf import PRESETS


@dataclass(frozen=True)
class RefinementOptions:
    """Parameters of the refinements that another option names."""

    crf: str = option("psa", choices=tuple(PRESETS), help="published parameters of the dense CRF")
    irn_weights: Path | None = option(
        None, metavar="FILE", content=True, help="checkpoint of `train.py irn`, for the refinement irn"
    )

    def open(self, name: str, device: torch.device, **more: Callable[[], nn.Module]) -> list[nn.Module]:
        """Build the modules that a refinement such as ``crf+pamr`` applies one after the other; none for ``none``.

        Args:
            name: The refinement.
            device: Where they will run.
            more: Further steps by name.

        Raises:
            InputError: There is no such refinement, or its weights are missing or cannot be read.
        """
        steps: dict[str, Callable[[], nn.Module]] = {
            "crf": lambda: DenseCRF.preset(self.crf),
            "pamr": PAMR,
            "par": lambda: PAMR("par"),
            "irn": lambda: load_irn(self.irn_weights or ""),
            **more,
        }
        chosen = [] if name == UNREFINED else name.split("+")
        unknown = [step for step in chosen if step not in steps]
        if unknown:
            raise InputError(f"--refine: expected none or {', '.join(steps)} joined by +, got {name!r}")
        if "irn" in chosen and self.irn_weights is None:
            raise InputError("--refine irn: needs --irn-weights FILE, which `train.py irn` writes")
        return [steps[step]().to(device) for step in chosen]
