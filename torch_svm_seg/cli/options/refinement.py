"""Options that choose refinements."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, TypeVar

import torch
from torch import nn

from torch_svm_seg.backbones.backbone import Backbone
from torch_svm_seg.cli.options.option import option
from torch_svm_seg.cli.options.walk import WalkOptions
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.regions import RegionFiles
from torch_svm_seg.irn import load_irn
from torch_svm_seg.pipeline.expansion_run import UNREFINED, Refinement
from torch_svm_seg.pipeline.supervision import Supervision, WithRegions
from torch_svm_seg.refine import PAMR, DenseCRF, RegionVote
from torch_svm_seg.refine.dense_crf import PRESETS

Built = TypeVar("Built")


@dataclass(frozen=True)
class RefinementOptions:
    """Parameters of the refinements that another option names."""

    crf: str = option("psa", choices=tuple(PRESETS), help="published parameters of the dense CRF")
    irn_weights: Path | None = option(
        None, metavar="FILE", content=True, help="checkpoint of `train.py irn`, for the refinement irn"
    )

    def open(self, name: str, device: torch.device) -> list[nn.Module]:
        """Build the modules that a refinement such as ``crf+pamr`` applies one after the other; none for ``none``.

        Args:
            name: The refinement.
            device: Where they will run.

        Raises:
            InputError: There is no such refinement, or its weights are missing or cannot be read.
        """
        return _built(name, self.steps(device))

    def steps(self, device: torch.device) -> dict[str, Callable[[], nn.Module]]:
        """Return what builds each step, by name; see :meth:`open`."""
        return {
            "crf": lambda: DenseCRF.preset(self.crf).to(device),
            "pamr": PAMR,
            "par": lambda: PAMR("par"),
            "irn": lambda: self._irn().to(device),
        }

    def _irn(self) -> nn.Module:
        if self.irn_weights is None:
            raise InputError("--refine irn: needs --irn-weights FILE, which `train.py irn` writes")
        return load_irn(self.irn_weights)


def _built(name: str, steps: Mapping[str, Callable[[], Built]]) -> list[Built]:
    chosen = [] if name == UNREFINED else name.split("+")
    if not set(chosen) <= steps.keys():
        raise InputError(f"--refine: expected none or {', '.join(steps)} joined by +, got {name!r}")
    return [steps[step]() for step in chosen]


@dataclass(frozen=True)
class MaskOptions(RefinementOptions, WalkOptions):
    """The refinements of the SVM's probabilities."""

    title: ClassVar = "refinement"

    refine: tuple[str, ...] = option(
        ("none",),
        metavar="HOW",
        help="refinements of the SVM's calibrated probabilities, each written beside the others: none, crf, pamr, par, "
        "irn, walk (between similar features of --backbone), regions (the mean over each of --regions), or several in "
        "a row such as crf+pamr",
    )
    regions: Path | None = option(
        None,
        metavar="DIR",
        content=True,
        help="regions of each image, for the refinement regions: ID.png, each value or colour is one, or ID.json, "
        "masks of Segment Anything by run lengths",
    )
    regions_void: int | None = option(None, metavar="V", help="value of ID.png in --regions that is no region")
    ignore_below: float = option(
        0.0,
        metavar="P",
        help="write 255 where the most likely class is less likely than P, for networks that are trained on the masks; "
        "scored, such pixels count as misses (default: 0, nowhere)",
    )

    def open_refinements(self, device: torch.device, backbone: Backbone) -> dict[str, list[Refinement]]:
        """Build the refinements, by name.

        Args:
            device: Where they will run.
            backbone: Gives the features of the walk.

        Raises:
            InputError: See :meth:`RefinementOptions.open` and :meth:`WalkOptions.open_walk`.
        """
        steps: dict[str, Callable[[], Refinement]] = {
            **self.steps(device),
            "walk": partial(self.open_walk, backbone),
            "regions": lambda: RegionVote,
        }
        return {name: _built(name, steps) for name in self.refine}

    def with_regions(self, supervision: Supervision) -> Supervision:
        """Return a supervision that gives the regions of images, too, where a refinement needs them.

        Raises:
            InputError: They are needed and not given, or given and not needed, or there is no such folder.
        """
        needed = any("regions" in name.split("+") for name in self.refine)
        if needed != (self.regions is not None):
            raise InputError("--refine regions and --regions DIR: each works only together with the other")
        if self.regions_void is not None and not needed:
            raise InputError("--regions-void: works only together with --regions")
        if self.regions is None:
            return supervision
        return WithRegions(supervision, RegionFiles(self.regions, self.regions_void))
