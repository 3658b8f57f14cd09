"""Train the networks of weak supervision, and apply them: classifiers before the masks, segmentation after them.

How to run:

    python train.py classify --root /data --out runs/sipe            a SIPE classifier on VOC 2012 train
    python train.py classify --images photos --labels labels.json --class-names classes.txt --out runs/mine
    torchrun --nproc-per-node 4 train.py classify --root /data --split train_aug --out runs/sipe
    python train.py cams --checkpoint runs/sipe/checkpoint.pt --root /data --out runs/sipe/cams
    python train.py segment --root /data --masks runs/weak/F3 --val-split val --out runs/network
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

from torch import Tensor
from tqdm import tqdm

from torch_svm_seg.arguments import add_data_arguments, add_label_arguments, open_dataset, open_labels
from torch_svm_seg.backbones import load_backbone
from torch_svm_seg.cam import SCALES, class_activation_maps
from torch_svm_seg.cam_files import cam_path, save_cams
from torch_svm_seg.classification import ClassificationScore, LabelledCrops
from torch_svm_seg.classification import validate as validate_classifier
from torch_svm_seg.classifier import Classifier
from torch_svm_seg.classifier_checkpoints import METHODS, load_classifier
from torch_svm_seg.datasets import PhotographDataset
from torch_svm_seg.distributed import choose_device, gathered, processes
from torch_svm_seg.efficientnet_lite import VARIANTS
from torch_svm_seg.expansion_run import Progress, claim_folder, write_record
from torch_svm_seg.files import InputError, save_mask
from torch_svm_seg.image_labels import LabelledPhotographs
from torch_svm_seg.refine.dense_crf import PRESETS, DenseCRF
from torch_svm_seg.segmentation import MaskedCrops, survey_masks
from torch_svm_seg.segmentation import validate as validate_segmenter
from torch_svm_seg.segmenter import build_segmenter, class_probabilities
from torch_svm_seg.segmenter_checkpoints import load_segmenter
from torch_svm_seg.training import Step, Training, TrainingSettings
from torch_svm_seg.training_run import BEST_FILE, CHECKPOINT_FILE, TrainingRun
from torch_svm_seg.voc_archive import check_voc_archive, write_voc_archive

CROP_SIZE, LITE_CROP_SIZE = 512, 320
CLASSIFIER_LARGEST_GRADIENT = 1.0  # of SIPE and IRN
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
    _add_seed(training)
    validation = parser.add_argument_group("validation", "Average precision and F1 after each epoch.")
    validation.add_argument("--val-split", metavar="NAME", help="VOC list to validate on, labelled as --split's images")
    validation.add_argument("--val-list", metavar="FILE", help="image names, one a line, to validate on instead")
    _add_training_run(parser, "out/classify")


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
    _add_seed(training)
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
    _add_training_run(parser, "out/segment")


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
        "0.5 0.75 1 1.25 1.5 1.75 with --flip, 15 times the work)",
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
    run = _add_run(parser, "out/predict")
    run.add_argument("--overwrite", action="store_true", help="redo masks that are there already")


def _defaults(field: str) -> str:
    values = [getattr(recipe, field) for recipe in (*RECIPES.values(), OTHER_RECIPE)]
    return f"(default: {', '.join(map(str, values))})"


def _add_seed(group: Any) -> None:
    group.add_argument(
        "--seed", type=int, default=0, help="of new layers, order and augmentation (default: %(default)s)"
    )


def _add_training_run(parser: argparse.ArgumentParser, out: str) -> None:
    run = _add_run(parser, out)
    run.add_argument("--amp", action="store_true", help="compute in bfloat16 where PyTorch deems it safe")
    run.add_argument(
        "--resume", action="store_true", help="continue from DIR/checkpoint.pt if there is one, with the same settings"
    )


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
    command = {"classify": classify, "cams": write_cams, "segment": segment, "predict": predict}[args.command]
    try:
        with processes() as (rank, number):
            return command(args, rank, number)
    except (InputError, OSError) as error:
        print(f"train.py: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        again = "add --resume to continue" if hasattr(args, "resume") else "the same command continues"
        print(f"train.py: interrupted; {again} ({args.out})", file=sys.stderr)
        return 130


def classify(args: argparse.Namespace, rank: int = 0, number: int = 1) -> int:
    """Train a classifier; returns the exit code."""
    data = _labelled(args, rank)
    validation = _labelled_validation(args, rank)
    _check_at_least(args, epochs=1, batch_size=1, crop_size=32, momentum=0, weight_decay=0, workers=0)
    epoch_steps = len(data) // min(args.batch_size, len(data))
    settings = _training_settings(args, args.epochs * epoch_steps, CLASSIFIER_LARGEST_GRADIENT)
    network = _build_classifier(args, data).to(choose_device(args.device))
    crop_size = args.crop_size or (LITE_CROP_SIZE if args.backbone in VARIANTS else CROP_SIZE)
    crops = LabelledCrops(data, crop_size, network.backbone.mean.cpu())

    def score() -> dict[str, float]:
        assert validation is not None
        return validate_classifier(network, validation, crop_size, rank, number)._asdict()

    names = ("method", "backbone", "weights", "root", "split", "images", "list", "limit", "labels", "epochs")
    run = TrainingRun(
        args.out,
        Training(network, crops, settings, rank, number),
        _run_settings(args, names, settings) | {"crop_size": crop_size, "number": len(data)},
        data.photographs.class_names,
        unit="epoch",
        unit_steps=epoch_steps,
        score=score if validation else None,
        score_names=ClassificationScore._fields,
    )
    run.claim("classify", "method", args.resume)
    _train(run, rank)
    if rank == 0:
        print(f"{len(data)} images, {settings.steps} steps; the classifier is {args.out / CHECKPOINT_FILE}")
    return 0


def write_cams(args: argparse.Namespace, rank: int = 0, number: int = 1) -> int:
    """Write the maps of this process's share of the images and report on all of them; returns the exit code."""
    data = _labelled(args, rank)
    class_names = data.photographs.class_names
    network = load_classifier(args.checkpoint, class_names).to(choose_device(args.device))
    settings = {"checkpoint": _digest(args.checkpoint), "scales": args.scales, "flip": not args.no_flip}

    def write(place: int, image: Tensor, path: Path) -> None:
        maps = class_activation_maps(network, image, data.classes(place), args.scales, not args.no_flip)
        save_cams(path, maps, class_names)

    done = _write_each(args, settings, data.photographs, cam_path, write, rank, number)
    return _report(done, f"maps of {{}}; they are {args.out}/ID.npz") if done else 0


def segment(args: argparse.Namespace, rank: int = 0, number: int = 1) -> int:
    """Train a segmentation network; returns the exit code."""
    data = _masked(args, rank)
    validation = _masked_validation(args, data, rank)
    recipe = RECIPES.get(args.network.split(":")[0], OTHER_RECIPE)
    for name, value in recipe._asdict().items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    args.check_every = args.check_every or max(1, args.steps // 10)
    _check_at_least(args, steps=1, batch_size=1, crop_size=32, momentum=0, weight_decay=0, workers=0, check_every=1)
    low, high = args.scale_range
    if not 0 < low <= high:
        raise InputError(f"--scale-range: expected positive numbers, the smaller one first, got {low} {high}")
    settings = _training_settings(args, args.steps)
    network = build_segmenter(args.network, len(data.class_names), args.weights, args.seed)
    if network.uses_batch_statistics and min(args.batch_size, len(data)) < 2 * number:
        raise InputError(f"--batch-size: {args.network} has BatchNorm and needs at least 2 images a process")
    network.to(choose_device(args.device))
    crops = MaskedCrops(data, args.crop_size, (low, high), network.fill.cpu())

    def score() -> dict[str, float]:
        assert validation is not None
        result = validate_segmenter(network, validation, rank, number)
        return {"miou": result.miou, "pixel_accuracy": result.pixel_accuracy}

    names = ["network", "weights", "root", "split", "images", "masks", "list", "limit", "crop_size", "scale_range"]
    names += ["val_split", "val_list", "val_masks", "check_every"]
    run = TrainingRun(
        args.out,
        Training(network, crops, settings, rank, number),
        _run_settings(args, names, settings) | {"number": len(data)},
        data.class_names,
        unit="check",
        unit_steps=args.check_every,
        score=score if validation else None,
        score_names=("miou", "pixel_accuracy"),
        chosen_by="miou",
    )
    run.claim("segment", "network", args.resume)
    _train(run, rank)
    if rank == 0:
        print(f"{len(data)} images, {settings.steps} steps; the network is {args.out / CHECKPOINT_FILE}")
        if run.best is not None:
            print(
                f"{args.out / BEST_FILE} has the best mean IoU of all checks, {100 * run.best:.2f}, chosen by the "
                "ground truth of the validation images"
            )
    return 0


def predict(args: argparse.Namespace, rank: int = 0, number: int = 1) -> int:
    """Write the masks of this process's share of the images and report on all of them; returns the exit code."""
    dataset = open_dataset(args)
    if args.voc_archive is not None:
        check_voc_archive(args.voc_archive, dataset.class_names)
    if not min(args.scales) > 0:
        raise InputError(f"--scales: expected positive numbers, got {' '.join(map(str, args.scales))}")
    device = choose_device(args.device)
    network = load_segmenter(args.checkpoint, dataset.class_names).to(device)
    refine = _refinement(args.refine)
    settings = {"checkpoint": _digest(args.checkpoint), "scales": args.scales, "flip": args.flip, "refine": args.refine}

    def write(place: int, image: Tensor, path: Path) -> None:
        probabilities = class_probabilities(network, image, args.scales, args.flip)
        if refine is not None:
            probabilities = refine(image[None].to(device), probabilities[None])[0]
        save_mask(path, probabilities.argmax(0))

    done = _write_each(args, settings, dataset, lambda out, id: out / f"{id}.png", write, rank, number)
    if done is None:
        return 0
    code = _report(done, f"masks of {{}}, without image-level labels; they are {args.out}/ID.png")
    if args.voc_archive is not None:
        image_set = Path(args.list).stem if args.list else args.split or "train"
        write_voc_archive(args.voc_archive, args.out, dataset.ids, image_set)
        print(f"packed for the evaluation server: {args.voc_archive}")
    return code


class Written(NamedTuple):
    """What a run over images did: progress of all processes, images done by this command, and its time."""

    progress: Progress
    images: int
    seconds: float


def _write_each(
    args: argparse.Namespace,
    settings: dict[str, Any],
    photographs: PhotographDataset,
    path_of: Callable[[Path, str], Path],
    write: Callable[[int, Tensor, Path], None],
    rank: int,
    number: int,
) -> Written | None:
    """Write a file for each image of this process's share that has none; None on all processes but the first."""
    if rank == 0:
        progress = claim_folder(args.out, settings, args.overwrite)
    gathered(None)
    start, ids = time.perf_counter(), photographs.ids
    places = [place for place, id in enumerate(ids) if args.overwrite or not path_of(args.out, id).is_file()]
    own = Progress()
    for place in tqdm(places[rank::number], unit="image", disable=None if rank == 0 else True):
        try:
            image = photographs.image(place)
        except InputError as error:
            own.skipped[ids[place]] = str(error)
            continue
        write(place, image, path_of(args.out, ids[place]))
        own.images += 1
    parts = gathered(own)
    if rank != 0:
        return None
    for part in parts:
        progress.add(part)
    write_record(args.out, settings, progress, finished=True)
    return Written(progress, sum(part.images for part in parts), time.perf_counter() - start)


def _report(done: Written, text: str) -> int:
    """Print what a run over images did; returns the exit code."""
    skipped = done.progress.skipped
    for id, reason in skipped.items():
        print(f"skipped {id}: {reason}")
    print(text.format(f"{done.images} images in {done.seconds:.0f} s, {len(skipped)} skipped"))
    return 1 if skipped else 0


def _train(run: TrainingRun, rank: int) -> None:
    """Train with a progress bar."""
    training = run.training
    with tqdm(
        total=training.settings.steps, initial=training.step, unit="step", disable=None if rank == 0 else True
    ) as bar:

        def show(step: Step) -> None:
            bar.set_postfix({name: f"{value:.3f}" for name, value in step.losses.items()}, refresh=False)
            bar.update()

        run.train(show, writes=rank == 0)


def _labelled(args: argparse.Namespace, rank: int) -> LabelledPhotographs:
    """Open the photographs with their labels, and say which ones have none."""
    data = open_labels(args, open_dataset(args))
    if data.unlabelled and rank == 0:
        shown = ", ".join(data.unlabelled[:5]) + (", ..." if len(data.unlabelled) > 5 else "")
        print(f"{len(data.unlabelled)} images without a label are left out: {shown}")
    return data


def _labelled_validation(args: argparse.Namespace, rank: int) -> LabelledPhotographs | None:
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


def _check_at_least(args: argparse.Namespace, **least: float) -> None:
    for name, number in least.items():
        value = getattr(args, name)
        if value is not None and not value >= number:
            raise InputError(f"--{name.replace('_', '-')}: expected at least {number}, got {value}")


def _training_settings(args: argparse.Namespace, steps: int, largest_gradient: float | None = None) -> TrainingSettings:
    if not args.learning_rate > 0 or args.momentum >= 1:
        raise InputError("--learning-rate and --momentum: expected a positive number, and one below 1")
    return TrainingSettings(
        steps=steps,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        momentum=args.momentum,
        weight_decay=args.weight_decay,
        largest_gradient=largest_gradient,
        seed=args.seed,
        amp=args.amp,
        workers=args.workers,
    )


def _build_classifier(args: argparse.Namespace, data: LabelledPhotographs) -> Classifier:
    backbone = load_backbone(args.backbone, args.weights)
    return METHODS[args.method](backbone, len(data.photographs.class_names) - 1, args.seed)


def _refinement(name: str | None) -> DenseCRF | None:
    if name is None:
        return None
    method, _, preset = name.partition(":")
    if method != "crf" or (preset and preset not in PRESETS):
        raise InputError(f"--refine: expected crf or crf:PRESET of {', '.join(PRESETS)}, got {name!r}")
    return DenseCRF.preset(preset or "deeplab")


def _run_settings(args: argparse.Namespace, names: Sequence[str], settings: TrainingSettings) -> dict[str, Any]:
    """What the result depends on: a run continues only with the same."""
    record = {name: getattr(args, name) for name in names} | asdict(settings)
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
