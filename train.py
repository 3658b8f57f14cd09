"""Train what weak supervision needs from image-level labels, and apply it.

How to run:

    python train.py classify --root /data --out runs/sipe            a SIPE classifier on VOC 2012 train
    python train.py classify --images photos --labels labels.json --class-names classes.txt --out runs/mine
    torchrun --nproc-per-node 4 train.py classify --root /data --split train_aug --out runs/sipe
    python train.py cams --checkpoint runs/sipe/checkpoint.pt --root /data --out runs/sipe/cams
    python train.py irn --cams runs/sipe/cams --root /data --out runs/irn
    python train.py propagate --irn runs/irn/checkpoint.pt --cams runs/sipe/cams --root /data --out runs/irn/cams
"""

import argparse
import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from torch_svm_seg.arguments import add_data_arguments, add_label_arguments, open_dataset, open_labels
from torch_svm_seg.backbones import load_backbone
from torch_svm_seg.cam import SCALES, class_activation_maps
from torch_svm_seg.cam_files import cam_path, save_cams
from torch_svm_seg.classification import LabelledCrops, validate
from torch_svm_seg.classifier_checkpoints import METHODS, load_classifier
from torch_svm_seg.datasets import PhotographDataset
from torch_svm_seg.distributed import choose_device, gathered, processes
from torch_svm_seg.efficientnet_lite import VARIANTS
from torch_svm_seg.expansion_run import Progress, claim_folder, write_record
from torch_svm_seg.files import InputError, save_mask
from torch_svm_seg.image_labels import LabelledPhotographs
from torch_svm_seg.irn import IRNet, load_irn
from torch_svm_seg.irn.crops import SureCrops, label_path
from torch_svm_seg.irn.labels import label_by_activation
from torch_svm_seg.irn.refinement import refine_activation
from torch_svm_seg.irn.training import METHOD as IRN_METHOD
from torch_svm_seg.irn.training import centre_displacements
from torch_svm_seg.supervision import CamFiles, background_rule
from torch_svm_seg.training import Step, Training, TrainingSettings
from torch_svm_seg.training_run import CHECKPOINT_FILE, claim_run, train_into

CROP_SIZE, LITE_CROP_SIZE = 512, 320
# The deepest stride there is, so that all grids end with the crop.
IRN_CROP_MULTIPLE = 32
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
    _add_irn(
        commands.add_parser(
            "irn",
            help="train an IRNet: where class boundaries are",
            description="Label the pixels that class activation maps are sure of, DIR/labels/ID.png, and learn class "
            "boundaries from them (Ahn et al., CVPR 2019). Writes DIR/checkpoint.pt after each epoch, DIR/steps.csv "
            "and DIR/epochs.csv.",
            epilog=EXIT_CODES,
        )
    )
    _add_propagate(
        commands.add_parser(
            "propagate",
            help="refine class activation maps by an IRNet's random walk",
            description="Write refined maps to DIR/ID.npz, with a background of their own, for expand.py --cams DIR "
            "--background own. The same command continues an interrupted run.",
            epilog=EXIT_CODES,
        )
    )
    return parser


def _add_classify(parser: argparse.ArgumentParser) -> None:
    add_data_arguments(parser)
    add_label_arguments(parser)
    model = _add_model(parser, "classifier")
    model.add_argument(
        "--method",
        choices=tuple(METHODS),
        default="sipe",
        help="cam: a plain classifier; sipe: one that agrees with image-specific prototypes, whose maps cover objects "
        "better (Chen et al., CVPR 2022) (default: %(default)s)",
    )
    _add_training(
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
    _add_training_run(_add_run(parser, "out/classify"))


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
    _add_overwrite(_add_run(parser, "out/cams"))


def _add_irn(parser: argparse.ArgumentParser) -> None:
    add_data_arguments(parser)
    labels = _add_maps(parser, "sure labels", required=False)
    labels.add_argument(
        "--background-factor",
        type=float,
        default=0.5,
        metavar="F",
        help="a pixel is sure if it keeps its label when the background is F times as strong (default: %(default)s, "
        "SIPE's; IRN's is constant:0.3 with 0.167)",
    )
    labels.add_argument(
        "--sure-labels",
        type=Path,
        metavar="DIR",
        help="train on DIR/ID.png instead, such as pseudo masks: class ids, 255 where not sure",
    )
    _add_model(parser, "network")
    _add_training(
        parser,
        "The defaults are IRN's for train_aug, 990 steps; few images want smaller batches or more epochs.",
        epochs=3,
        batch_size=32,
        rate="of the boundary branch at the start; the displacement branch has ten times as much",
        crop="an image's longest side becomes 0.5 to 1.5 times as long",
    )
    _add_training_run(_add_run(parser, "out/irn"))


def _add_propagate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--irn", required=True, metavar="FILE", help="checkpoint of train.py irn")
    add_data_arguments(parser)
    _add_maps(parser, "maps", required=True)
    _add_overwrite(_add_run(parser, "out/propagate"))


def _add_maps(parser: argparse.ArgumentParser, title: str, required: bool) -> Any:
    maps = parser.add_argument_group(title)
    maps.add_argument("--cams", metavar="DIR", required=required, help="class activation maps, as of train.py cams")
    maps.add_argument("--trust-pickle", action="store_true", help="read .npy maps of other code bases too: pickles")
    maps.add_argument(
        "--background",
        default="own",
        metavar="RULE",
        help="activation of the background: own is what the method activates itself, as SIPE does, power:A is (1 - the "
        "largest activation)^A, constant:T a threshold (default: %(default)s)",
    )
    return maps


def _add_model(parser: argparse.ArgumentParser, title: str) -> Any:
    model = parser.add_argument_group(title)
    model.add_argument(
        "--backbone",
        default="efficientnet_lite0",
        metavar="NAME",
        help="efficientnet_lite0|1|2 (weights come as a package), resnet18|34|50|101 (torchvision), timm:NAME "
        "(default: %(default)s; the papers' is resnet50)",
    )
    model.add_argument(
        "--weights", metavar="FILE", help="state dict or checkpoint of the backbone (default: its ImageNet weights)"
    )
    return model


def _add_training(
    parser: argparse.ArgumentParser, description: str, epochs: int, batch_size: int, rate: str, crop: str
) -> None:
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
    training.add_argument(
        "--seed", type=int, default=0, help="of new layers, order and augmentation (default: %(default)s)"
    )


def _add_run(parser: argparse.ArgumentParser, out: str) -> Any:
    run = parser.add_argument_group("run")
    run.add_argument("--out", type=Path, default=Path(out), metavar="DIR", help="(default: %(default)s)")
    run.add_argument("--device", default="auto", help="cpu, cuda, cuda:N (default: a GPU where there is one)")
    run.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes that read images ahead (default: 0)"
    )
    return run


def _add_training_run(run: Any) -> None:
    run.add_argument("--amp", action="store_true", help="compute in bfloat16 where PyTorch deems it safe")
    run.add_argument(
        "--resume", action="store_true", help="continue from DIR/checkpoint.pt if there is one, with the same settings"
    )


def _add_overwrite(run: Any) -> None:
    run.add_argument("--overwrite", action="store_true", help="redo files that are there already")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = build_parser().parse_args(argv)
    commands = {"classify": classify, "cams": write_cams, "irn": train_irn, "propagate": propagate}
    try:
        with processes() as (rank, number):
            return commands[args.command](args, rank, number)
    except (InputError, OSError) as error:
        print(f"train.py: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        again = "add --resume to continue" if "resume" in args else "the same command continues"
        print(f"train.py: interrupted; {again} ({args.out})", file=sys.stderr)
        return 130


def classify(args: argparse.Namespace, rank: int = 0, number: int = 1) -> int:
    """Train a classifier; returns the exit code."""
    data = _labelled(args, rank)
    validation = _validation(args, rank)
    settings = _training_settings(args)
    class_names = data.photographs.class_names
    backbone = load_backbone(args.backbone, args.weights)
    network = METHODS[args.method](backbone, len(class_names) - 1, args.seed).to(choose_device(args.device))
    crops = LabelledCrops(data, settings.crop_size, backbone.mean.cpu(), settings.seed)
    record = _run_settings(args, ("method", "labels"), settings, len(data))

    def score() -> dict[str, float]:
        if validation is None:
            return {}
        result = validate(network, validation, settings.crop_size, rank, number)
        return {f"val_{name}": value for name, value in result._asdict().items()}

    training = Training(network, crops, settings, rank, number)
    _train(args, training, record, class_names, ("val_average_precision", "val_f1"), score, rank)
    if rank == 0:
        print(f"{len(data)} images, {training.step} steps; the classifier is {args.out / CHECKPOINT_FILE}")
    return 0


def write_cams(args: argparse.Namespace, rank: int = 0, number: int = 1) -> int:
    """Write the class activation maps of images; returns the exit code."""
    data = _labelled(args, rank)
    class_names = data.photographs.class_names
    network = load_classifier(args.checkpoint, class_names).to(choose_device(args.device))
    settings = {"checkpoint": _digest(args.checkpoint), "scales": args.scales, "flip": not args.no_flip}

    def write(place: int) -> None:
        image, classes = data.photographs.image(place), data.classes(place)
        maps = class_activation_maps(network, image, classes, args.scales, not args.no_flip)
        save_cams(cam_path(args.out, data.photographs.ids[place]), maps, class_names)

    paths = [cam_path(args.out, id) for id in data.photographs.ids]
    return _for_each(data.photographs, write, paths, args.out, settings, args.overwrite, rank, number)


def train_irn(args: argparse.Namespace, rank: int = 0, number: int = 1) -> int:
    """Label what is sure, and train an IRNet on it; returns the exit code."""
    if (args.cams is None) == (args.sure_labels is None):
        raise InputError("--cams and --sure-labels: give one of them, maps to label by or labels")
    photographs = open_dataset(args)
    settings = _training_settings(args)
    if settings.crop_size % IRN_CROP_MULTIPLE:
        raise InputError(f"--crop-size: expected a multiple of {IRN_CROP_MULTIPLE}, got {settings.crop_size}")
    backbone = load_backbone(args.backbone, args.weights)
    network = IRNet(backbone, args.seed).to(choose_device(args.device))
    folder, code = args.sure_labels, 0
    if folder is None:
        folder = args.out / "labels"
        code = _write_sure_labels(args, photographs, folder, rank, number)
    photographs = photographs.subset(
        [place for place, id in enumerate(photographs.ids) if label_path(folder, id).is_file()]
    )
    if not len(photographs):
        raise InputError(f"{folder}: no image has sure labels, ID.png")
    crops = SureCrops(photographs, folder, settings.crop_size, backbone.mean.cpu(), settings.seed)
    training = Training(network, crops, settings, rank, number)
    labels = {"sure_labels": None if args.sure_labels is None else str(args.sure_labels), "method": IRN_METHOD}
    label_flags = ("cams", "background", "background_factor")
    record = labels | _run_settings(args, label_flags, settings, len(photographs))

    def centre() -> dict[str, float]:
        if training.finished:
            centre_displacements(network, crops, rank, number)
        return {}

    _train(args, training, record, (), (), centre, rank)
    if rank == 0:
        print(f"{len(photographs)} images, {training.step} steps; the network is {args.out / CHECKPOINT_FILE}")
    return code


def propagate(args: argparse.Namespace, rank: int = 0, number: int = 1) -> int:
    """Write class activation maps refined by an IRNet; returns the exit code."""
    photographs = open_dataset(args)
    refinement = load_irn(args.irn).to(choose_device(args.device))
    cams = _cam_files(args)
    settings = {"irn": _digest(args.irn), "cams": args.cams, "background": args.background}

    def write(place: int) -> None:
        id, image, activation = cams.read(photographs, place)
        maps = refine_activation(refinement, image, activation)
        save_cams(cam_path(args.out, id), maps, photographs.class_names)

    paths = [cam_path(args.out, id) for id in photographs.ids]
    return _for_each(photographs, write, paths, args.out, settings, args.overwrite, rank, number)


def _write_sure_labels(
    args: argparse.Namespace, photographs: PhotographDataset, folder: Path, rank: int, number: int
) -> int:
    cams, device = _cam_files(args), choose_device(args.device)
    if not 0 <= args.background_factor <= 1:
        raise InputError(f"--background-factor: expected 0 to 1, got {args.background_factor}")
    settings = {name: getattr(args, name) for name in ("cams", "background", "background_factor")}

    def write(place: int) -> None:
        id, image, activation = cams.read(photographs, place)
        labels = label_by_activation(image.to(device), activation.to(device), args.background_factor)
        save_mask(label_path(folder, id), labels.cpu())

    paths = [label_path(folder, id) for id in photographs.ids]
    return _for_each(photographs, write, paths, folder, settings, False, rank, number)


def _train(
    args: argparse.Namespace,
    training: Training,
    record: dict[str, Any],
    class_names: Sequence[str],
    measured: Sequence[str],
    after_epoch: Callable[[], dict[str, float]],
    rank: int,
) -> None:
    """Train into ``args.out``, with a bar that shows the losses."""
    claim_run(args.out, training, record, class_names, args.resume)
    steps = args.epochs * training.steps_per_epoch
    with tqdm(total=steps, initial=training.step, unit="step", disable=None if rank == 0 else True) as bar:

        def show(step: Step) -> None:
            bar.set_postfix({name: f"{value:.3f}" for name, value in step.losses.items()}, refresh=False)
            bar.update()

        train_into(args.out, training, record, class_names, measured, after_epoch, show, writes=rank == 0)


def _for_each(
    photographs: PhotographDataset,
    write: Callable[[int], None],
    paths: Sequence[Path],
    out: Path,
    settings: dict[str, Any],
    overwrite: bool,
    rank: int,
    number: int,
) -> int:
    """Write a file for each photograph, this process its share, and report on all; returns the exit code.

    Args:
        photographs: the photographs.
        write: writes the file of the photograph at a place; an InputError skips it.
        paths: of the files.
        out: folder of the files and of the record.
        settings: what the files depend on: all of a folder have the same.
        overwrite: whether to write files that are there.
        rank: number of this process.
        number: number of processes.
    """
    if rank == 0:
        progress = claim_folder(out, settings, overwrite)
    places = [place for place, path in enumerate(paths) if overwrite or not path.is_file()]
    gathered(None)  # no process writes before all have looked
    start = time.perf_counter()
    own = Progress()
    for place in tqdm(places[rank::number], unit="image", disable=None if rank == 0 else True):
        try:
            write(place)
            own.images += 1
        except InputError as error:
            own.skipped[photographs.ids[place]] = str(error)
    parts = gathered(own)
    merged = Progress()
    for part in parts:
        merged.add(part)
    if rank == 0:
        seconds, done = time.perf_counter() - start, merged.images
        progress.add(merged)
        write_record(out, settings, progress, finished=True)
        for id, reason in progress.skipped.items():
            print(f"skipped {id}: {reason}")
        skipped = len(progress.skipped)
        print(f"{done} images in {seconds:.0f} s, {skipped} skipped; they are {out}/ID{paths[0].suffix}")
    return 1 if merged.skipped else 0


def _cam_files(args: argparse.Namespace) -> CamFiles:
    try:
        return CamFiles(args.cams, background_rule(args.background), args.trust_pickle)
    except ValueError as error:
        raise InputError(f"--background: {error}") from error


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


def _run_settings(
    args: argparse.Namespace, own: Sequence[str], settings: TrainingSettings, number: int
) -> dict[str, Any]:
    """What the result depends on: a run continues only with the same."""
    names = (*own, "backbone", "weights", "root", "split", "images", "list", "limit")
    record = {name: getattr(args, name) for name in names} | asdict(settings) | {"number": number}
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
