"""Options that choose class activation maps, and the scales at which they are computed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from torch_svm_seg.cam.forms import CAM_FORMS
from torch_svm_seg.cli.options.data import DataOptions, LabelOptions, annotated_of
from torch_svm_seg.cli.options.option import option
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.mask_forms import MASK_FORMS
from torch_svm_seg.pipeline.backgrounds import Background, background_rule
from torch_svm_seg.pipeline.cam_supervision import CamFiles
from torch_svm_seg.pipeline.supervision import MaskSeeds


@dataclass(frozen=True)
class MapOptions:
    """Files of class activation maps."""

    title: ClassVar = "maps"

    cams: Path | None = option(
        None, metavar="DIR", content=True, help="class activation maps, as train.py cams writes them"
    )
    cams_form: str | None = option(
        None,
        choices=tuple(CAM_FORMS),
        help="form of other code bases' files in --cams, where neither they nor --labels tell (docs/files.md)",
    )
    background: str = option(
        "auto",
        metavar="RULE",
        help="activation of the background: own is the method's own background map, as SIPE has one, power:A is (1 - "
        "the largest activation)^A, constant:T a threshold (default: auto, which is own where there is one, else "
        "power:4)",
    )

    def open(self, data: DataOptions, labels: LabelOptions, dataset: ImageDataset) -> CamFiles:
        """Return the maps in the folder.

        Args:
            data: Choice of the images.
            labels: Choice of their labels, which the maps then have to agree with.
            dataset: The images.

        Raises:
            InputError: There is no such folder, no such rule of the background, or the labels cannot be read.
        """
        return replace(self.files(), labels=labels.read(dataset), annotated=annotated_of(data, dataset))

    def files(self) -> CamFiles:
        """Return the maps in the folder as they are, whatever the images' labels.

        Raises:
            InputError: There is no such folder, or no such rule of the background.
        """
        if self.cams is None or not self.cams.is_dir():
            raise InputError(f"--cams: {self.cams}: not a folder")
        return CamFiles(self.cams, self.background_rule(), self.cams_form)

    def background_rule(self) -> Background:
        """Return the rule that --background names.

        Raises:
            InputError: There is no such rule.
        """
        try:
            return background_rule(self.background)
        except ValueError as error:
            raise InputError(f"--background: {error}") from error


@dataclass(frozen=True)
class SeedFileOptions(MapOptions):
    """Files of seeds: class activation maps, or masks."""

    title: ClassVar = "seeds"
    description: ClassVar = "Give --cams or --seeds."

    seeds: Path | None = option(
        None, metavar="DIR", content=True, help="masks ID.png, such as another method's; 255 is no label"
    )
    seeds_form: str | None = option(None, choices=tuple(MASK_FORMS), help="form of --seeds, where masks do not tell")
    seeds_certainty: float = option(
        0.7,
        metavar="P",
        help="probability that a label of --seeds is right; other classes of its mask share the rest",
    )

    def open_files(self, data: DataOptions, labels: LabelOptions, dataset: ImageDataset) -> CamFiles | MaskSeeds:
        """Return the masks in the folder of --seeds, or the maps in that of --cams.

        Args:
            data: Choice of the images.
            labels: Choice of their labels, which maps and masks have to agree with.
            dataset: The images.

        Raises:
            InputError: Both or neither are given, they cannot be opened, or a value is out of its range.
        """
        if self.seeds is None:
            return self.open(data, labels, dataset)
        if self.cams is not None:
            raise InputError("--cams and --seeds: give one of them")
        if not self.seeds.is_dir():
            raise InputError(f"--seeds: {self.seeds}: not a folder")
        if not 0 < self.seeds_certainty < 1:
            raise InputError(f"--seeds-certainty: expected more than 0 and less than 1, got {self.seeds_certainty}")
        return MaskSeeds(self.seeds, self.seeds_certainty, self.seeds_form, labels.read(dataset))


def check_scales(scales: Sequence[float]) -> None:
    """Raise InputError unless all of --scales are positive and finite."""
    if not all(0 < scale < math.inf for scale in scales):
        raise InputError(f"--scales: expected positive numbers, got {' '.join(map(str, scales))}")
