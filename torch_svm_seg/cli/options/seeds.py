"""Options of expansion from seeds, without ground truth."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from torch_svm_seg.cam.activation import SCALES
from torch_svm_seg.cam.classifier import Classifier
from torch_svm_seg.cli.options.data import DataOptions, LabelOptions
from torch_svm_seg.cli.options.maps import SeedFileOptions, check_scales
from torch_svm_seg.cli.options.option import option
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.expansion.expander import SVMExpander
from torch_svm_seg.expansion.labelling import SeedLabeller
from torch_svm_seg.expansion.ppmg import PPMG
from torch_svm_seg.expansion.self_training import SelfTraining
from torch_svm_seg.pipeline.cam_supervision import ClassifierCams
from torch_svm_seg.pipeline.supervision import Supervision
from torch_svm_seg.refine import DenseCRF

BASELINES: dict[str, type[SeedLabeller] | type[PPMG]] = {"seed": SeedLabeller, "ppmg": PPMG}
"""The ways to make masks of seeds without an SVM, by name."""


@dataclass(frozen=True)
class SeedOptions(SeedFileOptions):
    """The seeds, and the pixels of them that train the SVMs."""

    description: ClassVar = (
        "For --supervision seed. Give --cams or --seeds, or a --checkpoint alone, whose maps are then computed."
    )

    checkpoint: Path | None = option(
        None,
        metavar="FILE",
        content=True,
        help="classifier of `train.py classify`: its class activation maps are the seeds, and its backbone gives the "
        "features unless there is a --backbone",
    )
    scales: tuple[float, ...] = option(
        SCALES, metavar="S", help="factors on the image's size whose maps --checkpoint sums"
    )
    agreement: Literal["crf", "none"] = option(
        "crf",
        help="crf trains on pixels by the label that a dense CRF of the seed gives them, none by the seed's own",
    )
    share: float = option(0.7, help="part of each class's region to train on: its most confident pixels")
    rounds: int = option(
        1,
        metavar="N",
        help="train again on the confident pixels of the SVM's own labels: N SVMs at most, until masks stop changing",
    )
    prior: bool = option(
        False,
        help="multiply the SVM's probabilities by those of the seed, which pays where the seed comes from other "
        "features, such as those of train.py posterior",
    )
    baselines: tuple[str, ...] = option(
        (),
        choices=tuple(BASELINES),
        help="masks without an SVM, for comparison: the seed itself, and PPMG (Li et al., ICCV 2021)",
    )

    def check(self) -> None:
        """Raise InputError unless the options name one source of seeds."""
        if not (self.cams or self.seeds or self.checkpoint):
            raise InputError("--supervision seed: needs --cams DIR, --seeds DIR or --checkpoint FILE")
        check_scales(self.scales)

    def open_seeds(
        self, data: DataOptions, labels: LabelOptions, dataset: ImageDataset, classifier: Classifier | None
    ) -> Supervision:
        """Open the seeds that the options name: masks, maps, or else the maps of the classifier.

        Raises:
            InputError: They cannot be opened, or the labels that the classifier's maps need cannot.
        """
        if self.cams is not None or self.seeds is not None or classifier is None:
            return self.open_files(data, labels, dataset)
        labelled = labels.open(data, dataset)
        present = {id: labelled.classes(index) for index, id in enumerate(labelled.dataset.ids)}
        return ClassifierCams(classifier, present, self.background_rule(), self.scales)

    def self_training(self, expander: SVMExpander, crf: str) -> SelfTraining:
        """Build the training on confident pixels of seeds, with the agreement by published parameters of a CRF.

        Raises:
            InputError: A value is out of its range.
        """
        try:
            agreement = DenseCRF.preset(crf) if self.agreement == "crf" else None
            return SelfTraining(expander, agreement, self.share, self.rounds, self.prior)
        except ValueError as error:
            raise InputError(f"--{error}") from error
