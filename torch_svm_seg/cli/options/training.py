"""Flags of trainings."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from torch_svm_seg.backbones.efficientnet_lite import VARIANTS
from torch_svm_seg.cli.options.run import add_seed_argument, add_workers_argument
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.training.trainer import TrainingSettings

CROP_SIZE, LITE_CROP_SIZE = 512, 320


def add_training_arguments(
    parser: argparse.ArgumentParser, description: str, epochs: int, batch_size: int, rate: str, crop: str
) -> None:
    """Adds the flags of a training by epochs.

    Args:
        parser: takes the flags.
        description: of their group.
        epochs: default.
        batch_size: default.
        rate: says what --learning-rate is the rate of.
        crop: says how images are scaled before they are cropped.
    """
    training = parser.add_argument_group("training", description)
    training.add_argument("--epochs", type=int, default=epochs, metavar="N", help="(default: %(default)s)")
    training.add_argument(
        "--batch-size",
        type=int,
        default=batch_size,
        metavar="B",
        help="images a step, over all processes together (default: %(default)s)",
    )
    training.add_argument(
        "--learning-rate",
        type=float,
        default=0.1,
        metavar="R",
        help=f"{rate}; it decays to 0 with power 0.9 (default: %(default)s)",
    )
    training.add_argument(
        "--momentum",
        type=float,
        default=0.0,
        metavar="M",
        help="(default: %(default)s: the published code of IRN and SIPE sets none in effect, since it hands the weight "
        "decay to the momentum's place; with 0.9 take a tenth of the learning rate)",
    )
    training.add_argument("--weight-decay", type=float, default=1e-4, metavar="D", help="(default: %(default)s)")
    training.add_argument(
        "--crop-size",
        type=int,
        metavar="PIXELS",
        help=f"side of the square crops; {crop} (default: 512, and 320 for efficientnet_lite, which trains on a CPU)",
    )
    add_seed_argument(training, "of new layers, order and augmentation")


def add_training_run_arguments(run: Any) -> None:
    """Adds the flags of runs that train to those of every run."""
    add_workers_argument(run)
    run.add_argument("--amp", action="store_true", help="compute in bfloat16 where PyTorch deems it safe")
    run.add_argument(
        "--resume", action="store_true", help="continue from DIR/checkpoint.pt if there is one, with the same settings"
    )


def crop_size_of(args: argparse.Namespace) -> int:
    """The side of the crops of a classifier or an IRNet."""
    size: int = args.crop_size or (LITE_CROP_SIZE if args.backbone in VARIANTS else CROP_SIZE)
    return size


def training_settings(
    args: argparse.Namespace, crop_size: int, epochs: int | None = None, steps: int | None = None
) -> TrainingSettings:
    """Check and collect how to train, for a number of epochs or of steps."""
    least = {"epochs": 1, "steps": 1, "check_every": 1, "batch_size": 1, "crop_size": 32, "momentum": 0}
    least |= {"weight_decay": 0, "workers": 0}
    for name, number in least.items():
        value = getattr(args, name, None)
        if value is not None and not value >= number:
            raise InputError(f"--{name.replace('_', '-')}: expected at least {number}, got {value}")
    if not args.learning_rate > 0 or args.momentum >= 1:
        raise InputError("--learning-rate and --momentum: expected a positive number, and one below 1")
    return TrainingSettings(
        epochs=epochs,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        momentum=args.momentum,
        weight_decay=args.weight_decay,
        crop_size=crop_size,
        seed=args.seed,
        amp=args.amp,
        workers=args.workers,
        steps=steps,
    )


def run_settings(
    args: argparse.Namespace, own: Sequence[str], settings: TrainingSettings, number: int
) -> dict[str, Any]:
    """What the result depends on: a run continues only with the same."""
    names = (*own, "root", "split", "images", "list", "limit")
    record = {name: getattr(args, name) for name in names} | asdict(settings) | {"number": number}
    del record["workers"]
    return record
