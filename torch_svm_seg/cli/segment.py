"""train.py segment: segmentation networks on masks."""

import argparse
from typing import NamedTuple

from tqdm import tqdm

from torch_svm_seg.cli.options.data import add_data_arguments, open_dataset
from torch_svm_seg.cli.options.run import add_run_arguments, add_seed_argument
from torch_svm_seg.cli.options.training import add_training_run_arguments, run_settings, training_settings
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.pipeline.runner import train
from torch_svm_seg.segmenters import build_segmenter
from torch_svm_seg.segmenters.builder import METHOD as SEGMENT_METHOD
from torch_svm_seg.segmenters.training import MaskedCrops, survey_masks
from torch_svm_seg.segmenters.training import validate as validate_segmenter
from torch_svm_seg.training.distributed import choose_device
from torch_svm_seg.training.run import BEST_FILE, CHECKPOINT_FILE, TrainingRun
from torch_svm_seg.training.trainer import Training

HELP = "train a segmentation network on masks"
DESCRIPTION = (
    "Train a network that names the class of every pixel, on any folder of masks: pseudo masks of "
    "expand.py, somebody else's, or the ground truth. Writes DIR/checkpoint.pt, DIR/best.pt, DIR/steps.csv and "
    "DIR/checks.csv."
)


class Recipe(NamedTuple):
    """What a segmentation network is trained with unless the user says otherwise."""

    steps: int
    batch_size: int
    learning_rate: float
    crop_size: int


RECIPES = {"lite": Recipe(400, 8, 1e-3, 256), "deeplabv2": Recipe(20_000, 10, 2.5e-4, 321)}
OTHER_RECIPE = Recipe(20_000, 10, 1e-3, 321)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    add_data_arguments(parser)
    model = parser.add_argument_group("network")
    model.add_argument(
        "--network",
        default="lite:efficientnet_lite0",
        metavar="NAME",
        help="deeplabv2:resnet101, the field's; lite:BACKBONE, which trains on a CPU; deeplabv3:resnet50, "
        "lraspp:mobilenet_v3_large and others of torchvision; smp:ARCHITECTURE:ENCODER of the package "
        "segmentation-models-pytorch (default: %(default)s)",
    )
    model.add_argument(
        "--weights",
        metavar="FILE",
        help="state dict or checkpoint of the backbone, or random (default: its ImageNet weights)",
    )
    training = parser.add_argument_group(
        "training", "Stochastic gradient descent as in DeepLab. Defaults: of lite, of deeplabv2, of all others."
    )
    training.add_argument("--steps", type=int, metavar="N", help=f"updates {_defaults('steps')}")
    training.add_argument(
        "--batch-size",
        type=int,
        metavar="B",
        help=f"images a step, over all processes together {_defaults('batch_size')}",
    )
    training.add_argument(
        "--learning-rate",
        type=float,
        metavar="R",
        help="of pretrained layers at the start; new ones have ten times as much; it decays to 0 with power 0.9 "
        f"{_defaults('learning_rate')}",
    )
    training.add_argument("--momentum", type=float, default=0.9, metavar="M", help="(default: %(default)s)")
    training.add_argument("--weight-decay", type=float, default=5e-4, metavar="D", help="(default: %(default)s)")
    training.add_argument(
        "--crop-size", type=int, metavar="PIXELS", help=f"side of the square crops {_defaults('crop_size')}"
    )
    training.add_argument(
        "--scale-range",
        type=float,
        nargs=2,
        default=[0.5, 1.5],
        metavar=("LOW", "HIGH"),
        help="factor on an image's size before the crop, uniform (default: 0.5 1.5)",
    )
    add_seed_argument(training, "of new layers, order and augmentation")
    validation = parser.add_argument_group(
        "validation",
        "The network with the best mean IoU is kept as best.pt. That choice uses the ground truth of these images: "
        "report best.pt on others, or report checkpoint.pt, the last one, which nothing was chosen by.",
    )
    validation.add_argument("--val-split", metavar="NAME", help="VOC list to validate on, with VOC's own masks")
    validation.add_argument("--val-list", metavar="FILE", help="image names, one a line, to validate on instead")
    validation.add_argument(
        "--val-masks", metavar="DIR", help="their ground truth (default: VOC's; with --images, the folder of --masks)"
    )
    validation.add_argument(
        "--check-every",
        type=int,
        metavar="N",
        help="steps between checkpoints, each with a validation (default: a tenth of --steps)",
    )
    add_training_run_arguments(add_run_arguments(parser, "out/segment"))


def _defaults(field: str) -> str:
    values = [getattr(recipe, field) for recipe in (*RECIPES.values(), OTHER_RECIPE)]
    return f"(default: {', '.join(map(str, values))})"


def run(args: argparse.Namespace, rank: int = 0, number: int = 1) -> int:
    """Train a segmentation network; returns the exit code."""
    data = _masked(args, rank)
    validation = _masked_validation(args, data, rank)
    recipe = RECIPES.get(args.network.split(":")[0], OTHER_RECIPE)
    for name, value in recipe._asdict().items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    args.check_every = max(1, args.steps // 10) if args.check_every is None else args.check_every
    low, high = args.scale_range
    if not 0 < low <= high:
        raise InputError(f"--scale-range: expected positive numbers, the smaller one first, got {low} {high}")
    settings = training_settings(args, args.crop_size, steps=args.steps)
    network = build_segmenter(args.network, len(data.class_names), args.weights, args.seed)
    if network.uses_batch_statistics and min(args.batch_size, len(data)) < 2 * number:
        raise InputError(f"--batch-size: {args.network} has BatchNorm and needs at least 2 images a process")
    network.to(choose_device(args.device))
    crops = MaskedCrops(data, args.crop_size, (low, high), network.fill.cpu(), args.seed)
    own = ("network", "weights", "masks", "scale_range", "val_split", "val_list", "val_masks", "check_every")
    record = {"method": SEGMENT_METHOD} | run_settings(args, own, settings, len(data))

    def score() -> dict[str, float]:
        if validation is None:
            return {}
        result = validate_segmenter(network, validation, rank, number)
        return {"val_miou": result.miou, "val_pixel_accuracy": result.pixel_accuracy}

    training = Training(network, crops, settings, rank, number)
    run = TrainingRun(
        args.out,
        training,
        record,
        data.class_names,
        measured=("val_miou", "val_pixel_accuracy"),
        after_unit=score,
        unit="check",
        unit_steps=args.check_every,
        chosen_by="val_miou",
    )
    train(run, args.resume, rank)
    if rank == 0:
        print(f"{len(data)} images, {training.step} steps; the network is {args.out / CHECKPOINT_FILE}")
        if run.best is not None:
            print(
                f"{args.out / BEST_FILE} has the best mean IoU of all checks, {100 * run.best:.2f}, chosen by the "
                "ground truth of the validation images"
            )
    return 0


def _masked(args: argparse.Namespace, rank: int) -> ImageDataset:
    """Open the images with their masks, having read all of them, and say which ones have none."""
    dataset = open_dataset(args)
    if not dataset.has_masks:
        raise InputError("--masks: needed, the folder of masks to train on")
    quiet = None if rank == 0 else True
    with tqdm(total=len(dataset), desc="reading masks", unit="image", leave=False, disable=quiet) as bar:
        summary = survey_masks(dataset, bar.update)
    if rank == 0:
        if summary.without:
            shown = ", ".join(summary.without[:5]) + (", ..." if len(summary.without) > 5 else "")
            print(f"{len(summary.without)} images without a mask are left out: {shown}")
        number = int((summary.pixels > 0).sum())
        share = summary.unlabelled / (summary.unlabelled + int(summary.pixels.sum()))
        print(f"{len(summary.with_masks)} masks of {number} classes; {100 * share:.1f} % of their pixels have no label")
    return summary.with_masks


def _masked_validation(args: argparse.Namespace, data: ImageDataset, rank: int) -> ImageDataset | None:
    if args.val_split is None and args.val_list is None:
        if args.val_masks is not None:
            raise InputError("--val-masks: works only together with --val-split or --val-list")
        return None
    if args.val_split is not None and args.root is None:
        raise InputError("--val-split: works only together with --root; give --val-list")
    masks = args.val_masks or (args.masks if args.root is None else None)
    where = {"split": args.val_split, "list": args.val_list, "masks": masks, "limit": None}
    dataset = _masked(argparse.Namespace(**vars(args) | where), rank)
    if rank == 0 and (shared := set(dataset.ids).intersection(data.ids)):
        print(f"{len(shared)} of {len(dataset)} validation images are trained on too")
    return dataset
