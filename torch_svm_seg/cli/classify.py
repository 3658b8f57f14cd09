"""train.py classify: classifiers on image-level labels."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from torch_svm_seg.cam.checkpoints import METHODS
from torch_svm_seg.cam.training import LabelledCrops
from torch_svm_seg.cam.training import validate as validate_classifier
from torch_svm_seg.cli.options.backbone import BackboneOptions
from torch_svm_seg.cli.options.data import DataOptions, LabelOptions, open_labelled
from torch_svm_seg.cli.options.option import group, option
from torch_svm_seg.cli.options.run import TrainingRunOptions
from torch_svm_seg.cli.options.training import EpochOptions, crop_size_for, training_record, training_settings
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.image_labels import LabelledImages
from torch_svm_seg.pipeline.run_folder import print_notes
from torch_svm_seg.training.run import CHECKPOINT_FILE, TrainingRun
from torch_svm_seg.training.trainer import Training

HELP = "train a classifier on image-level labels"
DESCRIPTION = (
    "Train a multi-label classifier whose class activation maps show where its classes are. Writes "
    "DIR/checkpoint.pt after each epoch, DIR/steps.csv and DIR/epochs.csv."
)


@dataclass(frozen=True)
class ClassifierOptions(BackboneOptions):
    """The classifier."""

    title: ClassVar = "classifier"

    method: str = option(
        "sipe",
        choices=tuple(METHODS),
        help="cam: a plain classifier; sipe: one that agrees with image-specific prototypes, whose maps cover objects "
        "better (Chen et al., CVPR 2022); mct: a transformer with one class token per class, whose attention gives the "
        "maps (MCTformer, Xu et al., CVPR 2022), for plain timm:vit_* and timm:deit_*",
    )


@dataclass(frozen=True)
class ClassifierValidationOptions:
    """The images to validate on."""

    title: ClassVar = "validation"
    description: ClassVar = "Average precision and F1 after each epoch."

    val_split: str | None = option(
        None, metavar="NAME", help="VOC list to validate on, labelled as --split's images", affects_results=False
    )
    val_list: Path | None = option(
        None, metavar="FILE", help="image names, one per line, to validate on instead", affects_results=False
    )

    def open(self, data: DataOptions, labels: LabelOptions, rank: int) -> LabelledImages | None:
        """Open the images with their labels; None if there are none to validate on.

        Raises:
            InputError: They cannot be opened.
        """
        if self.val_split is None and self.val_list is None:
            return None
        if self.val_split is not None and data.root is None:
            raise InputError("--val-split: works only together with --root; give --val-list")
        chosen = replace(data, split=self.val_split, list=self.val_list, limit=None)
        return open_labelled(chosen, labels, rank)


@dataclass(frozen=True)
class Settings:
    """Settings of the command."""

    data: DataOptions = group()
    labels: LabelOptions = group()
    classifier: ClassifierOptions = group()
    training: EpochOptions = group(
        description="The defaults are SIPE's and IRN's recipe but for what is said. An image's longest side becomes "
        "0.625 to 1.25 times as long as a crop's."
    )
    validation: ClassifierValidationOptions = group()
    run: TrainingRunOptions = group(out=Path("out/classify"))


def run(settings: Settings, rank: int = 0, processes: int = 1) -> int:
    """Train a classifier; return the exit code."""
    data = open_labelled(settings.data, settings.labels, rank)
    validation = settings.validation.open(settings.data, settings.labels, rank)
    crop_size = crop_size_for(settings.training.crop_size, settings.classifier.backbone)
    how = training_settings(replace(settings.training, crop_size=crop_size), settings.run, settings.training.epochs)
    class_names, out = data.dataset.class_names, settings.run.out
    backbone = settings.classifier.load()
    network = METHODS[settings.classifier.method](backbone, len(class_names) - 1, how.seed)
    network.to(settings.run.choose_device())
    crops = LabelledCrops(data, crop_size, backbone.mean.cpu(), how.seed)

    def score() -> dict[str, float]:
        if validation is None:
            return {}
        result = validate_classifier(network, validation, crop_size, rank, processes)
        return {f"val_{name}": value for name, value in result._asdict().items()}

    training = Training(network, crops, how, rank, processes)
    record = training_record(settings, how, settings.data, crops)
    measured = ("val_average_precision", "val_f1")
    TrainingRun(out, training, record, class_names, measured, score).run(settings.run.resume, rank)
    if rank == 0:
        print_notes(data.dataset.notes.lines(), {})
        print(f"{len(data)} images, {training.step} steps; the classifier is {out / CHECKPOINT_FILE}")
    return 0
