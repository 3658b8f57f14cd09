"""train.py propagate: class activation maps refined by a walk, between an IRNet's boundaries or similar features."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import torch

from torch_svm_seg.cam.activation import ActivationMaps, spread_maps
from torch_svm_seg.cam.io import cam_path, save_cams
from torch_svm_seg.cli.options.data import DataOptions, LabelOptions
from torch_svm_seg.cli.options.maps import MapOptions
from torch_svm_seg.cli.options.option import group, option, recorded
from torch_svm_seg.cli.options.run import WriteOptions
from torch_svm_seg.cli.options.walk import MapWalkOptions
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.irn import IRNRefinement, load_irn
from torch_svm_seg.irn.refinement import refine_activation
from torch_svm_seg.pipeline.cam_supervision import CamFiles
from torch_svm_seg.pipeline.image_run import ImageRun
from torch_svm_seg.refine import FeatureWalk

HELP = "refine class activation maps by a walk: an IRNet's, or one between similar features"
DESCRIPTION = (
    "Write refined maps to DIR/ID.npz, for expand.py --cams DIR. Those of an IRNet have a background of their own. The "
    "same command continues an interrupted run."
)


@dataclass(frozen=True)
class IRNWalkOptions:
    """The random walk between an IRNet's boundaries."""

    title: ClassVar = "IRN"
    description: ClassVar = "The defaults are SIPE's use of IRN; IRN's own is --exponent 1 --threshold 0.25."

    irn: Path | None = option(None, metavar="FILE", content=True, help="checkpoint of train.py irn")
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
        return load_irn(self.irn or "", exponent=self.exponent, threshold=self.threshold)


@dataclass(frozen=True)
class Settings:
    """Settings of the command."""

    data: DataOptions = group(affects_results=False)
    maps: MapOptions = group()
    labels: LabelOptions = group()
    irn: IRNWalkOptions = group()
    walk: MapWalkOptions = group()
    run: WriteOptions = group(out=Path("out/propagate"))

    def open(self, dataset: ImageDataset, cams: CamFiles, device: torch.device) -> Callable[[int], ActivationMaps]:
        """Return what makes the refined maps of the image of an index.

        Raises:
            InputError: Not one of the two walks is asked for, or it cannot be loaded.
        """
        if (self.irn.irn is None) != self.walk.walk:
            raise InputError("--irn and --walk: expected one of them")
        walk = self.walk.open()
        if walk is None:
            return partial(_between_boundaries, self.irn.load().to(device), cams, dataset)
        return partial(_between_features, walk.to(device), cams, dataset)


def run(settings: Settings, rank: int = 0, processes: int = 1) -> int:
    """Write class activation maps refined by a walk; return the exit code."""
    dataset, out = settings.data.open(), settings.run.out
    cams = settings.maps.open(settings.data, settings.labels, dataset)
    refined = settings.open(dataset, cams, settings.run.choose_device())
    paths = [cam_path(out, id) for id in dataset.ids]

    def write(index: int) -> None:
        save_cams(paths[index], refined(index), dataset.class_names)

    image_run = ImageRun(dataset, out, recorded(settings), settings.run.overwrite, rank, processes)
    return image_run.write_each(paths, write, partial(cams.sources, dataset))


def _between_boundaries(walk: IRNRefinement, cams: CamFiles, dataset: ImageDataset, index: int) -> ActivationMaps:
    seed = cams.read(dataset, index)
    maps = refine_activation(walk, seed.image, seed.known)
    return replace(maps, classes=tuple((seed.classes or ())[channel] for channel in maps.classes))


def _between_features(walk: FeatureWalk, cams: CamFiles, dataset: ImageDataset, index: int) -> ActivationMaps:
    image = dataset.image(index)
    return spread_maps(walk, image, cams.maps(dataset, dataset.ids[index], (image.shape[1], image.shape[2])))
