"""train.py classify: classifiers on image-level labels."""

import argparse

from torch_svm_seg.backbones.builder import load_backbone
from torch_svm_seg.cam.checkpoints import METHODS
from torch_svm_seg.cam.training import LabelledCrops
from torch_svm_seg.cam.training import validate as validate_classifier
from torch_svm_seg.cli.options.backbone import add_backbone_arguments
from torch_svm_seg.cli.options.data import add_data_arguments, add_label_arguments, open_labelled
from torch_svm_seg.cli.options.run import add_run_arguments
from torch_svm_seg.cli.options.training import (
    add_training_arguments,
    add_training_run_arguments,
    crop_size_of,
    run_settings,
    training_settings,
)
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.image_labels import LabelledImages
from torch_svm_seg.pipeline.runner import train
from torch_svm_seg.training.distributed import choose_device
from torch_svm_seg.training.run import CHECKPOINT_FILE, TrainingRun
from torch_svm_seg.training.trainer import Training

HELP = "train a classifier on image-level labels"
DESCRIPTION = (
    "Train a multi-label classifier whose class activation maps show where its classes are. Writes "
    "DIR/checkpoint.pt after each epoch, DIR/steps.csv and DIR/epochs.csv."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    add_data_arguments(parser)
    add_label_arguments(parser)
    model = parser.add_argument_group("classifier")
    add_backbone_arguments(model)
    model.add_argument(
        "--method",
        choices=tuple(METHODS),
        default="sipe",
        help="cam: a plain classifier; sipe: one that agrees with image-specific prototypes, whose maps cover objects "
        "better (Chen et al., CVPR 2022) (default: %(default)s)",
    )
    add_training_arguments(
        parser,
        "The defaults are SIPE's and IRN's recipe but for what is said.",
        epochs=5,
        batch_size=16,
        rate="of pretrained layers at the start; new ones have ten times as much",
        crop="an image's longest side becomes 0.625 to 1.25 times as long",
    )
    validation = parser.add_argument_group("validation", "Average precision and F1 after each epoch.")
    validation.add_argument("--val-split", metavar="NAME", help="VOC list to validate on, labelled as --split's images")
    validation.add_argument("--val-list", metavar="FILE", help="image names, one a line, to validate on instead")
    add_training_run_arguments(add_run_arguments(parser, "out/classify"))


def run(args: argparse.Namespace, rank: int = 0, number: int = 1) -> int:
    """Train a classifier; returns the exit code."""
    data = open_labelled(args, rank)
    validation = _validation(args, rank)
    settings = training_settings(args, crop_size_of(args), args.epochs)
    class_names = data.dataset.class_names
    backbone = load_backbone(args.backbone, args.weights)
    network = METHODS[args.method](backbone, len(class_names) - 1, args.seed).to(choose_device(args.device))
    crops = LabelledCrops(data, settings.crop_size, backbone.mean.cpu(), settings.seed)
    record = run_settings(args, ("method", "backbone", "weights", "labels"), settings, len(data))

    def score() -> dict[str, float]:
        if validation is None:
            return {}
        result = validate_classifier(network, validation, settings.crop_size, rank, number)
        return {f"val_{name}": value for name, value in result._asdict().items()}

    training = Training(network, crops, settings, rank, number)
    measured = ("val_average_precision", "val_f1")
    train(TrainingRun(args.out, training, record, class_names, measured, score), args.resume, rank)
    if rank == 0:
        print(f"{len(data)} images, {training.step} steps; the classifier is {args.out / CHECKPOINT_FILE}")
    return 0


def _validation(args: argparse.Namespace, rank: int) -> LabelledImages | None:
    if args.val_split is None and args.val_list is None:
        return None
    if args.val_split is not None and args.root is None:
        raise InputError("--val-split: works only together with --root; give --val-list")
    where = {"split": args.val_split, "list": args.val_list, "limit": None}
    return open_labelled(argparse.Namespace(**vars(args) | where), rank)
