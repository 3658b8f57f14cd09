"""Train what weak supervision needs from image-level labels, and apply it.

How to run:

    python train.py classify --root /data --out runs/sipe            a SIPE classifier on VOC 2012 train
    python train.py classify --images photos --labels labels.json --class-names classes.txt --out runs/mine
    torchrun --nproc-per-node 4 train.py classify --root /data --split train_aug --out runs/sipe
    python train.py cams --checkpoint runs/sipe/checkpoint.pt --root /data --out runs/sipe/cams
"""

import argparse
import hashlib
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from torch_svm_seg.arguments import add_data_arguments, add_label_arguments, open_dataset, open_labels
from torch_svm_seg.backbones import load_backbone
from torch_svm_seg.cam import SCALES, class_activation_maps
from torch_svm_seg.cam_files import cam_path, save_cams
from torch_svm_seg.classification_run import CHECKPOINT_FILE, claim_run, train_into
from torch_svm_seg.classifier import Classifier
from torch_svm_seg.classifier_checkpoints import METHODS, load_classifier
from torch_svm_seg.distributed import choose_device, gathered, processes
from torch_svm_seg.efficientnet_lite import VARIANTS
from torch_svm_seg.expansion_run import Progress, claim_folder, write_record
from torch_svm_seg.files import InputError
from torch_svm_seg.image_labels import LabelledPhotographs
from torch_svm_seg.training import ClassificationScore, Step, Training, TrainingSettings, validate

CROP_SIZE, LITE_CROP_SIZE = 512, 320
EXIT_CODES = (
    "exit code: 0 if done; 1 if images were skipped for bad files, which the summary lists; 2 if the arguments or the "
    "data cannot be used, or writing failed; 130 if interrupted"
)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    _add_classify(
        commands.add_parser(
            "classify",
            help="train a classifier on image-level labels",
            description="Train a multi-label classifier whose class activation maps show where its classes are. Writes "
            "DIR/checkpoint.pt after each epoch, DIR/steps.csv and DIR/epochs.csv.",
            epilog=EXIT_CODES,
        )
    )
    _add_cams(
        commands.add_parser(
            "cams",
            help="write a trained classifier's class activation maps",
            description="Write the class activation maps of images to DIR/ID.npz (torch_svm_seg/cam_files.py documents "
            "the format). The same command continues an interrupted run.",
            epilog=EXIT_CODES,
        )
    )
    return parser


def _add_classify(parser: argparse.ArgumentParser) -> None:
    add_data_arguments(parser)
    add_label_arguments(parser)
    model = parser.add_argument_group("classifier")
    model.add_argument(
        "--method",
        choices=tuple(METHODS),
        default="sipe",
        help="cam: a plain classifier; sipe: one that agrees with image-specific prototypes, whose maps cover objects "
        "better (Chen et al., CVPR 2022) (default: %(default)s)",
    )
    model.add_argument(
        "--backbone",
        default="efficientnet_lite0",
        metavar="NAME",
        help="efficientnet_lite0|1|2 (weights come as a package), resnet18|34|50|101 (torchvision), timm:NAME "
        "(default: %(default)s; SIPE's is resnet50)",
    )
    model.add_argument(
        "--weights", metavar="FILE", help="state dict or checkpoint of the backbone (default: its ImageNet weights)"
    )
    training = parser.add_argument_group("training", "The defaults are SIPE's and IRN's recipe but for what is said.")
    training.add_argument("--epochs", type=int, default=5, metavar="N", help="(default: %(default)s)")
    training.add_argument(
        "--batch-size",
        type=int,
        default=16,
        metavar="B",
        help="images a step, over all processes together (default: %(default)s)",
    )
    training.add_argument(
        "--learning-rate",
        type=float,
        default=0.1,
        metavar="R",
        help="of pretrained layers at the start; new ones have ten times as much; it decays to 0 with power 0.9 "
        "(default: %(default)s)",
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
        help="side of the square crops; an image's longest side becomes 0.625 to 1.25 times as long (default: 512, "
        "and 320 for efficientnet_lite, which trains on a CPU)",
    )
    training.add_argument(
        "--seed", type=int, default=0, help="of new layers, order and augmentation (default: %(default)s)"
    )
    validation = parser.add_argument_group("validation", "Average precision and F1 after each epoch.")
    validation.add_argument("--val-split", metavar="NAME", help="VOC list to validate on, labelled as --split's images")
    validation.add_argument("--val-list", metavar="FILE", help="image names, one a line, to validate on instead")
    run = _add_run(parser, "out/classify")
    run.add_argument("--amp", action="store_true", help="compute in bfloat16 where PyTorch deems it safe")
    run.add_argument(
        "--resume", action="store_true", help="continue from DIR/checkpoint.pt if there is one, with the same settings"
    )


def _add_cams(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", required=True, metavar="FILE", help="of train.py classify")
    add_data_arguments(parser)
    add_label_arguments(parser)
    maps = parser.add_argument_group("maps")
    maps.add_argument(
        "--scales",
        type=float,
        nargs="+",
        default=list(SCALES),
        metavar="S",
        help="factors on the image's size whose maps are summed (default: 1 0.5 1.5 2; 1 alone is 7 times as fast)",
    )
    maps.add_argument("--no-flip", action="store_true", help="do not average with the mirror image: twice as fast")
    run = _add_run(parser, "out/cams")
    run.add_argument("--overwrite", action="store_true", help="redo files that are there already")


def _add_run(parser: argparse.ArgumentParser, out: str) -> Any:
    run = parser.add_argument_group("run")
    run.add_argument("--out", type=Path, default=Path(out), metavar="DIR", help="(default: %(default)s)")
    run.add_argument("--device", default="auto", help="cpu, cuda, cuda:N (default: a GPU where there is one)")
    run.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes that read images ahead (default: 0)"
    )
    return run


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = build_parser().parse_args(argv)
    command = {"classify": classify, "cams": write_cams}[args.command]
    try:
        with processes() as (rank, number):
            return command(args, rank, number)
    except (InputError, OSError) as error:
        print(f"train.py: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        again = "add --resume to continue" if args.command == "classify" else "the same command continues"
        print(f"train.py: interrupted; {again} ({args.out})", file=sys.stderr)
        return 130


def classify(args: argparse.Namespace, rank: int = 0, number: int = 1) -> int:
    """Train a classifier; returns the exit code."""
    data = _labelled(args, rank)
    validation = _validation(args, rank)
    settings = _training_settings(args)
    device = choose_device(args.device)
    network = _build_network(args, data).to(device)
    training = Training(network, data, settings, rank, number)
    record = _run_settings(args, settings, data)
    class_names = data.photographs.class_names
    claim_run(args.out, training, record, class_names, args.resume)
    steps = settings.epochs * training.steps_per_epoch
    with tqdm(total=steps, initial=training.step, unit="step", disable=None if rank == 0 else True) as bar:

        def show(step: Step) -> None:
            bar.set_postfix({name: f"{value:.3f}" for name, value in step.losses.items()}, refresh=False)
            bar.update()

        def score() -> ClassificationScore | None:
            return validate(network, validation, settings.crop_size, rank, number) if validation else None

        train_into(args.out, training, record, class_names, score, show, writes=rank == 0)
    if rank == 0:
        print(f"{len(data)} images, {steps} steps; the classifier is {args.out / CHECKPOINT_FILE}")
    return 0


def write_cams(args: argparse.Namespace, rank: int = 0, number: int = 1) -> int:
    """Write the maps of this process's share of the images and report on all of them; returns the exit code."""
    data = _labelled(args, rank)
    class_names = data.photographs.class_names
    network = load_classifier(args.checkpoint, class_names).to(choose_device(args.device))
    settings = {"checkpoint": _digest(args.checkpoint), "scales": args.scales, "flip": not args.no_flip}
    if rank == 0:
        progress = claim_folder(args.out, settings, args.overwrite)
    gathered(None)
    start = time.perf_counter()
    ids = data.photographs.ids
    places = [place for place, id in enumerate(ids) if args.overwrite or not cam_path(args.out, id).is_file()]
    own = Progress()
    for place in tqdm(places[rank::number], unit="image", disable=None if rank == 0 else True):
        try:
            image = data.photographs.image(place)
        except InputError as error:
            own.skipped[ids[place]] = str(error)
            continue
        maps = class_activation_maps(network, image, data.classes(place), args.scales, not args.no_flip)
        save_cams(cam_path(args.out, ids[place]), maps, class_names)
        own.images += 1
    parts = gathered(own)
    if rank != 0:
        return 0
    for part in parts:
        progress.add(part)
    write_record(args.out, settings, progress, finished=True)
    for id, reason in progress.skipped.items():
        print(f"skipped {id}: {reason}")
    print(
        f"maps of {sum(part.images for part in parts)} images in {time.perf_counter() - start:.0f} s, "
        f"{len(progress.skipped)} skipped; they are {args.out}/ID.npz"
    )
    return 1 if progress.skipped else 0


def _labelled(args: argparse.Namespace, rank: int) -> LabelledPhotographs:
    """Open the photographs with their labels, and say which ones have none."""
    data = open_labels(args, open_dataset(args))
    if data.unlabelled and rank == 0:
        shown = ", ".join(data.unlabelled[:5]) + (", ..." if len(data.unlabelled) > 5 else "")
        print(f"{len(data.unlabelled)} images without a label are left out: {shown}")
    return data


def _validation(args: argparse.Namespace, rank: int) -> LabelledPhotographs | None:
    if args.val_split is None and args.val_list is None:
        return None
    where = {"split": args.val_split, "list": args.val_list, "limit": None}
    return _labelled(argparse.Namespace(**vars(args) | where), rank)


def _training_settings(args: argparse.Namespace) -> TrainingSettings:
    least = {"epochs": 1, "batch_size": 1, "crop_size": 32, "momentum": 0, "weight_decay": 0, "workers": 0}
    for name, number in least.items():
        value = getattr(args, name)
        if value is not None and not value >= number:
            raise InputError(f"--{name.replace('_', '-')}: expected at least {number}, got {value}")
    if not args.learning_rate > 0 or args.momentum >= 1:
        raise InputError("--learning-rate and --momentum: expected a positive number, and one below 1")
    crop_size = args.crop_size or (LITE_CROP_SIZE if args.backbone in VARIANTS else CROP_SIZE)
    return TrainingSettings(
        epochs=args.epochs,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        momentum=args.momentum,
        weight_decay=args.weight_decay,
        crop_size=crop_size,
        seed=args.seed,
        amp=args.amp,
        workers=args.workers,
    )


def _build_network(args: argparse.Namespace, data: LabelledPhotographs) -> Classifier:
    backbone = load_backbone(args.backbone, args.weights)
    return METHODS[args.method](backbone, len(data.photographs.class_names) - 1, args.seed)


def _run_settings(args: argparse.Namespace, settings: TrainingSettings, data: LabelledPhotographs) -> dict[str, Any]:
    """What the result depends on: a run continues only with the same."""
    names = ("method", "backbone", "weights", "root", "split", "images", "list", "limit", "labels")
    record = {name: getattr(args, name) for name in names} | asdict(settings) | {"number": len(data)}
    del record["workers"]
    return record


def _digest(path: str) -> str:
    """Tell a checkpoint from another one of the same name."""
    try:
        return f"{Path(path).name} {hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]}"
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main())
