"""train.py propagate: class activation maps refined by an IRNet."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch_svm_seg.cam.io import cam_path, save_cams
from torch_svm_seg.cli.options.data import DataOptions
from torch_svm_seg.cli.options.maps import MapOptions
from torch_svm_seg.cli.options.option import group, option, recorded
from torch_svm_seg.cli.options.run import WriteOptions
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.irn import IRNRefinement, load_irn
from torch_svm_seg.irn.refinement import refine_activation
from torch_svm_seg.pipeline.runner import for_each

HELP = "refine class activation maps by an IRNet's random walk"
DESCRIPTION = (
    "Write refined maps to DIR/ID.npz, with a background of their own, for expand.py --cams DIR. The same "
    "command continues an interrupted run."
)


@dataclass(frozen=True)
class WalkOptions:
    """The random walk."""

    title: ClassVar = "walk"
    description: ClassVar = "The defaults are SIPE's use of IRN; IRN's own is --exponent 1 --threshold 0.25."

    irn: Path = option(metavar="FILE", content=True, help="checkpoint of train.py irn")
    exponent: float = option(1.5, metavar="E", help="exponent of the maps before the walk")
    threshold: float | None = option(
        None,
        metavar="T",
        help="of the background after the walk, in parts of the largest value that a class has in the image (default: "
        "the background walks like a class)",
    )

    def load(self) -> IRNRefinement:
        """Load the IRNet and its walk.

        Raises:
            InputError: A value is out of its range, or the checkpoint cannot be read.
        """
        if not self.exponent > 0:
            raise InputError(f"--exponent: expected a positive number, got {self.exponent}")
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise InputError(f"--threshold: expected more than 0 and less than 1, got {self.threshold}")
        return load_irn(self.irn, exponent=self.exponent, threshold=self.threshold)


@dataclass(frozen=True)
class Settings:
    """Settings of the command."""

    data: DataOptions = group(affects_results=False)
    maps: MapOptions = group()
    walk: WalkOptions = group()
    run: WriteOptions = group(out=Path("out/propagate"))


def run(settings: Settings, rank: int = 0, number: int = 1) -> int:
    """Write class activation maps refined by an IRNet; return the exit code."""
    dataset, out = settings.data.open(), settings.run.out
    refinement = settings.walk.load().to(settings.run.choose_device())
    cams = settings.maps.open()
    paths = [cam_path(out, id) for id in dataset.ids]

    def write(index: int) -> None:
        _, image, activation = cams.read(dataset, index)
        save_cams(paths[index], refine_activation(refinement, image, activation), dataset.class_names)

    return for_each(dataset, write, paths, out, recorded(settings), settings.run.overwrite, rank, number)
