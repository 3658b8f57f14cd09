"""Flags of expansion from seeds, without ground truth."""

import argparse
from pathlib import Path

from torch_svm_seg.cam.activation import SCALES
from torch_svm_seg.cam.classifier import Classifier
from torch_svm_seg.cli.options.data import add_label_arguments, open_labels
from torch_svm_seg.cli.options.maps import add_map_arguments, open_background, open_maps
from torch_svm_seg.cli.options.scales import add_scales_argument, check_scales
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.expansion.expander import SVMExpander
from torch_svm_seg.expansion.labelling import SeedLabeller
from torch_svm_seg.expansion.ppmg import PPMG
from torch_svm_seg.expansion.seed_expander import SelfTraining
from torch_svm_seg.pipeline.supervision import ClassifierCams, MaskSeeds, Supervision
from torch_svm_seg.refine import DenseCRF

BASELINES: dict[str, type[SeedLabeller] | type[PPMG]] = {"seed": SeedLabeller, "ppmg": PPMG}
"""The ways to make masks of seeds without an SVM, by name."""


def add_seed_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that the functions of this module read, as the groups "seeds" and "labels"."""
    group = parser.add_argument_group(
        "seeds",
        "For --supervision seed. Give --cams or --seeds, or a --checkpoint alone, whose maps are then computed.",
    )
    group.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="classifier of `train.py classify`: its backbone gives the features, instead of --backbone and --weights, "
        "and its class activation maps the seeds",
    )
    add_scales_argument(group, SCALES, "whose maps --checkpoint sums (default: 1 0.5 1.5 2)")
    add_map_arguments(group)
    group.add_argument("--seeds", metavar="DIR", help="masks ID.png, such as another method's; 255 is no label")
    group.add_argument(
        "--agreement",
        choices=("crf", "none"),
        default="crf",
        help="crf trains on pixels by the label that a dense CRF of the seed gives them, none by the seed's own "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--share",
        type=float,
        default=0.7,
        help="of each class's region to train on: its most confident pixels (default: %(default)s)",
    )
    group.add_argument(
        "--rounds",
        type=int,
        default=1,
        metavar="N",
        help="train again on the confident pixels of the SVM's own labels: N SVMs at most, until masks stop changing "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--baselines",
        nargs="+",
        choices=tuple(BASELINES),
        default=[],
        help="masks without an SVM, for comparison: the seed itself, and PPMG (Li et al., ICCV 2021)",
    )
    add_label_arguments(parser)


def check_no_seeds(args: argparse.Namespace) -> None:
    """Raises InputError if there is a flag of :func:`add_seed_arguments`: the ground truth was chosen."""
    parser = argparse.ArgumentParser()
    add_seed_arguments(parser)
    defaults = vars(parser.parse_args([]))
    given = [f"--{name.replace('_', '-')}" for name, default in defaults.items() if getattr(args, name) != default]
    if given:
        raise InputError(f"{' and '.join(given)}: only with --supervision seed")


def check_seeds(args: argparse.Namespace) -> None:
    """Raises InputError unless the flags name one source of seeds, and of the backbone's weights one at most."""
    if not _sources(args):
        raise InputError("--supervision seed: needs --cams DIR, --seeds DIR or --checkpoint FILE")
    for name in ("backbone", "weights"):
        if args.checkpoint is not None and getattr(args, name) is not None:
            raise InputError(f"--checkpoint and --{name}: give one of them, the checkpoint has a backbone of its own")
    if args.cams is not None and args.seeds is not None:
        raise InputError("--cams and --seeds: give one of them")
    check_scales(args)


def open_seeds(args: argparse.Namespace, dataset: ImageDataset, classifier: Classifier | None) -> Supervision:
    """Opens the seeds that the flags name: masks, maps, or else the maps of the classifier.

    Raises:
        InputError: they cannot be opened, or the labels that the classifier's maps need cannot.
    """
    if args.seeds is not None:
        if not Path(args.seeds).is_dir():
            raise InputError(f"--seeds: {args.seeds}: not a folder")
        return MaskSeeds(args.seeds)
    if args.cams is not None:
        return open_maps(args)
    assert classifier is not None
    if args.workers:
        raise InputError(
            "--workers: cannot read ahead while --checkpoint computes the maps; write them with `train.py cams`"
        )
    data = open_labels(args, dataset)
    labels = {id: data.classes(place) for place, id in enumerate(data.dataset.ids)}
    return ClassifierCams(classifier, labels, open_background(args), args.scales)


def open_self_training(args: argparse.Namespace, expander: SVMExpander) -> SelfTraining:
    """Builds the training on confident pixels of seeds.

    Raises:
        InputError: a value is out of its range.
    """
    try:
        agreement = DenseCRF.preset(args.crf) if args.agreement == "crf" else None
        return SelfTraining(expander, agreement, args.share, args.rounds)
    except ValueError as error:
        raise InputError(f"--{error}") from error


def _sources(args: argparse.Namespace) -> list[str]:
    return [f"--{name}" for name in ("cams", "seeds", "checkpoint") if getattr(args, name) is not None]
