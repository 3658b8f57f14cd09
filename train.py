"""Train the networks of weak supervision, before and after the masks, and apply them.

How to run:

    python train.py classify --root /data --out runs/sipe            a SIPE classifier on VOC 2012 train
    python train.py classify --images photos --labels labels.json --class-names classes.txt --out runs/mine
    torchrun --nproc-per-node 4 train.py classify --root /data --split train_aug --out runs/sipe
    python train.py cams --checkpoint runs/sipe/checkpoint.pt --root /data --out runs/sipe/cams
    python train.py irn --cams runs/sipe/cams --root /data --out runs/irn
    python train.py propagate --irn runs/irn/checkpoint.pt --cams runs/sipe/cams --root /data --out runs/irn/cams
    python train.py segment --root /data --masks runs/weak/F4 --val-split val --out runs/network
    python train.py predict --checkpoint runs/network/checkpoint.pt --root /data --split val --out runs/network/val
"""

import argparse
import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from torch_svm_seg.arguments import add_data_arguments, add_label_arguments, open_dataset, open_labels
from torch_svm_seg.backbones import load_backbone
from torch_svm_seg.cam import SCALES, class_activation_maps
from torch_svm_seg.cam_files import cam_path, save_cams
from torch_svm_seg.classification import LabelledCrops
from torch_svm_seg.classification import validate as validate_classifier
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
from torch_svm_seg.refine.dense_crf import PRESETS, DenseCRF
from torch_svm_seg.segmentation import MaskedCrops, survey_masks
from torch_svm_seg.segmentation import validate as validate_segmenter
from torch_svm_seg.segmenter import build_segmenter, class_probabilities
from torch_svm_seg.segmenter_checkpoints import METHOD as SEGMENT_METHOD
from torch_svm_seg.segmenter_checkpoints import load_segmenter
from torch_svm_seg.supervision import CamFiles, background_rule
from torch_svm_seg.training import Step, Training, TrainingSettings
from torch_svm_seg.training_run import BEST_FILE, CHECKPOINT_FILE, TrainingRun
from torch_svm_seg.voc_archive import check_voc_archive, write_voc_archive

CROP_SIZE, LITE_CROP_SIZE = 512, 320
# The deepest stride there is, so that all grids end with the crop.
IRN_CROP_MULTIPLE = 32
EXIT_CODES = (
    "exit code: 0 if done; 1 if images were skipped for bad files, which the summary lists; 2 if the arguments or the "
    "data cannot be used, or writing failed; 130 if interrupted"
)


class Recipe(NamedTuple):
    """What a segmentation network is trained with unless the user says otherwise."""

    steps: int
    batch_size: int
    learning_rate: float
    crop_size: int


RECIPES = {"lite": Recipe(400, 8, 1e-3, 256), "deeplabv2": Recipe(20_000, 10, 2.5e-4, 321)}
OTHER_RECIPE = Recipe(20_000, 10, 1e-3, 321)


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
    _add_segment(
        commands.add_parser(
            "segment",
            help="train a segmentation network on masks",
            description="Train a network that names the class of every pixel, on any folder of masks: pseudo masks of "
            "expand.py, somebody else's, or the ground truth. Writes DIR/checkpoint.pt, DIR/best.pt, DIR/steps.csv and "
            "DIR/checks.csv.",
            epilog=EXIT_CODES,
        )
    )
    _add_predict(
        commands.add_parser(
            "predict",
            help="write a trained segmentation network's masks",
            description="Write the masks of images to DIR/ID.png, as evaluate.py scores them. Image-level labels are "
            "never used. The same command continues an interrupted run.",
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


def _add_segment(parser: argparse.ArgumentParser) -> None:
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
    training.add_argument(
        "--seed", type=int, default=0, help="of new layers, order and augmentation (default: %(default)s)"
    )
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
    _add_training_run(_add_run(parser, "out/segment"))


def _add_predict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", required=True, metavar="FILE", help="of train.py segment")
    add_data_arguments(parser)
    masks = parser.add_argument_group("masks")
    masks.add_argument(
        "--scales",
        type=float,
        nargs="+",
        default=[1.0],
        metavar="S",
        help="factors on the image's size whose probabilities are averaged (default: 1; usual for the best masks: "
        "0.5 0.75 1 1.25 1.5 1.75 with --flip, 17 times the work)",
    )
    masks.add_argument("--flip", action="store_true", help="average with the mirror image")
    masks.add_argument(
        "--refine",
        metavar="crf[:PRESET]",
        help=f"refine the probabilities by a dense CRF; presets: {', '.join(PRESETS)} (crf alone is crf:deeplab)",
    )
    masks.add_argument(
        "--voc-archive",
        type=Path,
        metavar="FILE",
        help="also pack the masks for VOC's evaluation server, *.tar.gz, as comp6_SET_cls with --split's name",
    )
    _add_overwrite(_add_run(parser, "out/predict"))


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


def _defaults(field: str) -> str:
    values = [getattr(recipe, field) for recipe in (*RECIPES.values(), OTHER_RECIPE)]
    return f"(default: {', '.join(map(str, values))})"


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
    commands |= {"segment": segment, "predict": predict}
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
    settings = _training_settings(args, _crop_size(args), args.epochs)
    class_names = data.photographs.class_names
    backbone = load_backbone(args.backbone, args.weights)
    network = METHODS[args.method](backbone, len(class_names) - 1, args.seed).to(choose_device(args.device))
    crops = LabelledCrops(data, settings.crop_size, backbone.mean.cpu(), settings.seed)
    record = _run_settings(args, ("method", "backbone", "weights", "labels"), settings, len(data))

    def score() -> dict[str, float]:
        if validation is None:
            return {}
        result = validate_classifier(network, validation, settings.crop_size, rank, number)
        return {f"val_{name}": value for name, value in result._asdict().items()}

    training = Training(network, crops, settings, rank, number)
    measured = ("val_average_precision", "val_f1")
    _train(TrainingRun(args.out, training, record, class_names, measured, score), args.resume, rank)
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
    settings = _training_settings(args, _crop_size(args), args.epochs)
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
    label_flags = ("cams", "background", "background_factor", "backbone", "weights")
    record = labels | _run_settings(args, label_flags, settings, len(photographs))

    def centre() -> dict[str, float]:
        if training.finished:
            centre_displacements(network, crops, rank, number)
        return {}

    _train(TrainingRun(args.out, training, record, (), (), centre), args.resume, rank)
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


def segment(args: argparse.Namespace, rank: int = 0, number: int = 1) -> int:
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
    settings = _training_settings(args, args.crop_size, steps=args.steps)
    network = build_segmenter(args.network, len(data.class_names), args.weights, args.seed)
    if network.uses_batch_statistics and min(args.batch_size, len(data)) < 2 * number:
        raise InputError(f"--batch-size: {args.network} has BatchNorm and needs at least 2 images a process")
    network.to(choose_device(args.device))
    crops = MaskedCrops(data, args.crop_size, (low, high), network.fill.cpu(), args.seed)
    own = ("network", "weights", "masks", "scale_range", "val_split", "val_list", "val_masks", "check_every")
    record = {"method": SEGMENT_METHOD} | _run_settings(args, own, settings, len(data))

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
    _train(run, args.resume, rank)
    if rank == 0:
        print(f"{len(data)} images, {training.step} steps; the network is {args.out / CHECKPOINT_FILE}")
        if run.best is not None:
            print(
                f"{args.out / BEST_FILE} has the best mean IoU of all checks, {100 * run.best:.2f}, chosen by the "
                "ground truth of the validation images"
            )
    return 0


def predict(args: argparse.Namespace, rank: int = 0, number: int = 1) -> int:
    """Write the masks of images; returns the exit code."""
    dataset = open_dataset(args)
    if args.voc_archive is not None:
        check_voc_archive(args.voc_archive, dataset.class_names)
    if not min(args.scales) > 0:
        raise InputError(f"--scales: expected positive numbers, got {' '.join(map(str, args.scales))}")
    device = choose_device(args.device)
    network = load_segmenter(args.checkpoint, dataset.class_names).to(device)
    refine = _refinement(args.refine)
    settings = {"checkpoint": _digest(args.checkpoint), "scales": args.scales, "flip": args.flip}
    settings |= {"refine": args.refine, "image_level_labels": False}
    paths = [args.out / f"{id}.png" for id in dataset.ids]

    def write(place: int) -> None:
        image = dataset.image(place)
        probabilities = class_probabilities(network, image, args.scales, args.flip)
        if refine is not None:
            probabilities = refine(image[None].to(device), probabilities[None])[0]
        save_mask(paths[place], probabilities.argmax(0))

    code = _for_each(dataset, write, paths, args.out, settings, args.overwrite, rank, number)
    if rank == 0:
        print("The masks are predicted without image-level labels.")
        if args.voc_archive is not None:
            image_set = Path(args.list).stem if args.list else args.split or "train"
            write_voc_archive(args.voc_archive, args.out, dataset.ids, image_set)
            print(f"{args.voc_archive}: packed for VOC's evaluation server")
    return code


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


def _train(run: TrainingRun, resume: bool, rank: int) -> None:
    """Train, with a bar that shows the losses."""
    run.claim(resume)
    training = run.training
    with tqdm(total=training.steps, initial=training.step, unit="step", disable=None if rank == 0 else True) as bar:

        def show(step: Step) -> None:
            bar.set_postfix({name: f"{value:.3f}" for name, value in step.losses.items()}, refresh=False)
            bar.update()

        run.train(show, writes=rank == 0)


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


def _masked(args: argparse.Namespace, rank: int) -> PhotographDataset:
    """Open the photographs with their masks, having read all of them, and say which ones have none."""
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


def _masked_validation(args: argparse.Namespace, data: PhotographDataset, rank: int) -> PhotographDataset | None:
    if args.val_split is None and args.val_list is None:
        if args.val_masks is not None:
            raise InputError("--val-masks: works only together with --val-split or --val-list")
        return None
    masks = args.val_masks or (args.masks if args.root is None else None)
    where = {"split": args.val_split, "list": args.val_list, "masks": masks, "limit": None}
    dataset = _masked(argparse.Namespace(**vars(args) | where), rank)
    if rank == 0 and (shared := set(dataset.ids).intersection(data.ids)):
        print(f"{len(shared)} of {len(dataset)} validation images are trained on too")
    return dataset


def _refinement(name: str | None) -> DenseCRF | None:
    if name is None:
        return None
    method, _, preset = name.partition(":")
    if method != "crf" or (preset and preset not in PRESETS):
        raise InputError(f"--refine: expected crf or crf:PRESET of {', '.join(PRESETS)}, got {name!r}")
    return DenseCRF.preset(preset or "deeplab")


def _crop_size(args: argparse.Namespace) -> int:
    """The side of the crops of a classifier or an IRNet."""
    size: int = args.crop_size or (LITE_CROP_SIZE if args.backbone in VARIANTS else CROP_SIZE)
    return size


def _training_settings(
    args: argparse.Namespace, crop_size: int, epochs: int | None = None, steps: int | None = None
) -> TrainingSettings:
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


def _run_settings(
    args: argparse.Namespace, own: Sequence[str], settings: TrainingSettings, number: int
) -> dict[str, Any]:
    """What the result depends on: a run continues only with the same."""
    names = (*own, "root", "split", "images", "list", "limit")
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
