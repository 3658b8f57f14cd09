"""Expand labels: train one SVM an image on sampled pixels of known class and re-label every pixel with it.

How to run:

    python expand.py                                     one photograph, a minute, nothing to prepare
    python expand.py --root /data --out runs/voc         the study of the paper's Table 1 on VOC 2012 train
    python expand.py --images photos --masks masks       a folder of your own
    python expand.py --root /data --supervision seed --checkpoint runs/sipe/checkpoint.pt --features F4 --refine crf
    torchrun --nproc-per-node 4 expand.py --root /data   on four GPUs

Then ``evaluate.py --predictions runs/voc`` scores the masks again, as tables in several formats.
"""

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from tqdm import tqdm

from torch_svm_seg.arguments import add_data_arguments, add_label_arguments, open_dataset, open_labels
from torch_svm_seg.backbones import Backbone, load_backbone
from torch_svm_seg.cam import SCALES
from torch_svm_seg.classifier import Classifier
from torch_svm_seg.classifier_checkpoints import load_classifier
from torch_svm_seg.datasets import PhotographDataset
from torch_svm_seg.distributed import choose_device, gathered, processes
from torch_svm_seg.expander import SVMExpander
from torch_svm_seg.expansion_run import UNREFINED, ExpansionRun, Progress, claim_folder, unfinished, write_record
from torch_svm_seg.expansion_summary import overview_rows, score_table
from torch_svm_seg.files import InputError, write_atomically
from torch_svm_seg.fusion import fused_stages
from torch_svm_seg.irn import load_irn
from torch_svm_seg.labelling import SeedLabeller, StudyLabeller
from torch_svm_seg.panels import panel
from torch_svm_seg.ppmg import PPMG
from torch_svm_seg.refine import PAMR, DenseCRF
from torch_svm_seg.refine.dense_crf import PRESETS
from torch_svm_seg.self_training import SelfTraining
from torch_svm_seg.supervision import CamFiles, ClassifierCams, GroundTruth, MaskSeeds, Supervision, background_rule

STUDY_FEATURES = ("img", "F1", "F2", "F3", "F4", "F5")
SEED_FEATURES = ("F4",)
STUDY_SAMPLES, SEED_SAMPLES = 2500, 500
BASELINES: dict[str, type[SeedLabeller] | type[PPMG]] = {"seed": SeedLabeller, "ppmg": PPMG}
TABLE_NOTE = (
    "\n\nIoU in percent over the whole data set, void left out; mean: over the classes present; s/image: fit, "
    "prediction and refinement, without the backbone and the activation maps.\n"
)
EXIT_CODES = (
    "exit code: 0 if every image has its masks; 1 if some were skipped, which the summary lists; 2 if the arguments or"
    " the data cannot be used, or writing failed; 130 if interrupted: the same command continues where it stopped"
)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="For every image, train that image's own pixel classifier (a one-vs-rest SVM on a backbone's "
        "features) on sampled pixels of known class, and re-label every pixel with it. Writes DIR/NAME/ID.png, where "
        "NAME is a feature or a baseline, with +REFINEMENT if there is one.",
        epilog=EXIT_CODES,
    )
    add_data_arguments(parser)
    model = parser.add_argument_group("features")
    model.add_argument(
        "--features",
        nargs="+",
        metavar="STAGE",
        help="stages to compare, one SVM an image each: img is the RGB picture, F1 to F5 the backbone's stages from "
        "fine and shallow to coarse and deep; F1+F3+F4 is one SVM on these three, each weighing alike (default: all "
        "six; F4 with seeds)",
    )
    model.add_argument(
        "--backbone",
        default="efficientnet_lite0",
        metavar="NAME",
        help="efficientnet_lite0|1|2 (weights come as a package), resnet18|34|50|101 (torchvision), timm:NAME "
        "(default: %(default)s; the paper's is resnet50)",
    )
    model.add_argument(
        "--weights", metavar="FILE", help="state dict or checkpoint of the backbone (default: its ImageNet weights)"
    )
    samples = parser.add_argument_group("samples")
    samples.add_argument(
        "--supervision",
        choices=("ground-truth", "seed"),
        default="ground-truth",
        help="where the labels of sampled pixels come from: the ground truth is the paper's study of the upper bound; "
        "seed takes confident pixels of a seed that needs no ground truth (default: %(default)s)",
    )
    samples.add_argument(
        "--samples-per-class",
        type=int,
        metavar="N",
        help="pixels drawn from each class of an image; smaller classes give all theirs (default: 2500, as the paper; "
        "500 with seeds; time grows faster than proportionally)",
    )
    samples.add_argument("--seed", type=int, default=0, help="of the sampled pixels (default: %(default)s)")
    _add_seed_arguments(parser)
    svm = parser.add_argument_group("SVM")
    svm.add_argument(
        "--kernel",
        choices=("rbf", "linear"),
        default="rbf",
        help="rbf is better on shallow features, linear faster and as good on deep ones (default: %(default)s)",
    )
    svm.add_argument("--C", type=float, default=1.0, help="weight of the loss; larger trusts samples more (default: 1)")
    svm.add_argument(
        "--gamma",
        type=_gamma,
        default="scale",
        help="width of the RBF kernel, or scale for 1 / (channels * variance) (default: %(default)s)",
    )
    svm.add_argument(
        "--approximation",
        choices=("auto", "exact", "nystroem", "fourier"),
        default="auto",
        help="of the RBF kernel: auto is exact, but uses the kernel's low rank on RGB (default: %(default)s)",
    )
    svm.add_argument(
        "--components",
        type=int,
        default=1024,
        help="explicit features of --approximation nystroem and fourier (default: %(default)s)",
    )
    refinement = parser.add_argument_group("refinement")
    refinement.add_argument(
        "--refine",
        nargs="+",
        default=["none"],
        metavar="HOW",
        help="refinements of the SVM's calibrated probabilities, each written beside the others: none, crf, pamr, par, "
        "irn, or several in a row such as crf+pamr (default: none)",
    )
    refinement.add_argument(
        "--crf",
        choices=tuple(PRESETS),
        default="psa",
        help="published parameters of the dense CRF, here and in --agreement (default: %(default)s)",
    )
    refinement.add_argument("--irn-weights", metavar="FILE", help="checkpoint of `train.py irn`, for --refine irn")
    run = parser.add_argument_group("run")
    run.add_argument("--out", type=Path, default=Path("out/expand"), metavar="DIR", help="(default: %(default)s)")
    run.add_argument("--overwrite", action="store_true", help="redo masks that are there already")
    run.add_argument("--device", default="auto", help="cpu, cuda, cuda:N (default: a GPU where there is one)")
    run.add_argument(
        "--batch-size", type=int, default=1, metavar="B", help="images of one size at once; a GPU gains by 8"
    )
    run.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes that read images ahead (default: 0)"
    )
    return parser


def _add_seed_arguments(parser: argparse.ArgumentParser) -> None:
    seeds = parser.add_argument_group(
        "seeds",
        "For --supervision seed. Give --cams or --seeds, or a --checkpoint alone, whose maps are then computed.",
    )
    seeds.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="classifier of `train.py classify`: its backbone gives the features, instead of --backbone and --weights, "
        "and its class activation maps the seeds",
    )
    seeds.add_argument(
        "--scales",
        type=float,
        nargs="+",
        default=list(SCALES),
        metavar="S",
        help="factors on the image's size whose maps --checkpoint sums (default: 1 0.5 1.5 2)",
    )
    seeds.add_argument("--cams", metavar="DIR", help="class activation maps, as `train.py cams` writes them")
    seeds.add_argument(
        "--trust-pickle",
        action="store_true",
        help="read the ID.npy that other code bases write into --cams: a pickle, of which only arrays, dictionaries, "
        "numbers and strings are admitted",
    )
    seeds.add_argument("--seeds", metavar="DIR", help="masks ID.png, such as another method's; 255 is no label")
    seeds.add_argument(
        "--background",
        default="power:4",
        metavar="RULE",
        help="activation of the background in maps: power:A is (1 - the largest activation)^A, constant:T a "
        "threshold, own what the method activates itself, as SIPE does (default: %(default)s)",
    )
    seeds.add_argument(
        "--agreement",
        choices=("crf", "none"),
        default="crf",
        help="crf trains on pixels by the label that a dense CRF of the seed gives them, none by the seed's own "
        "(default: %(default)s)",
    )
    seeds.add_argument(
        "--share",
        type=float,
        default=0.7,
        help="of each class's region to train on: its most confident pixels (default: %(default)s)",
    )
    seeds.add_argument(
        "--rounds",
        type=int,
        default=1,
        metavar="N",
        help="train again on the confident pixels of the SVM's own labels: N SVMs at most, until masks stop changing "
        "(default: %(default)s)",
    )
    seeds.add_argument(
        "--baselines",
        nargs="+",
        choices=tuple(BASELINES),
        default=[],
        help="masks without an SVM, for comparison: the seed itself, and PPMG (Li et al., ICCV 2021)",
    )
    add_label_arguments(parser)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = build_parser().parse_args(argv)
    try:
        with processes() as (rank, number):
            return expand(args, rank, number)
    except (InputError, OSError) as error:
        print(f"expand.py: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"expand.py: interrupted; the same command continues ({args.out})", file=sys.stderr)
        return 130


def expand(args: argparse.Namespace, rank: int = 0, number: int = 1) -> int:
    """Expand this process's share of the images and report on all of them; returns the exit code."""
    dataset = open_dataset(args)
    _check_flags(args)
    if args.features is None:
        args.features = list(STUDY_FEATURES if args.supervision == "ground-truth" else SEED_FEATURES)
    if args.samples_per_class is None:
        args.samples_per_class = STUDY_SAMPLES if args.supervision == "ground-truth" else SEED_SAMPLES
    device = choose_device(args.device)
    classifier = load_classifier(args.checkpoint, dataset.class_names).to(device) if args.checkpoint else None
    supervision = _supervision(args, dataset, classifier)
    backbone = (classifier.backbone if classifier else load_backbone(args.backbone, args.weights)).to(device)
    _check_features(args, backbone)
    refinements = {name: _refinement(args, name) for name in args.refine}
    expander = _build_expander(args, len(dataset.class_names)).to(device)
    baselines = {name: BASELINES[name]().to(device) for name in args.baselines}
    run = ExpansionRun(backbone, expander, supervision, args.features, baselines, refinements, args.out, device)
    settings = _settings(args, dataset)
    if rank == 0:
        progress = claim_folder(args.out, settings, args.overwrite)
    gathered(None)
    places = range(len(dataset)) if args.overwrite else unfinished(args.out, run.names, dataset.ids)
    share = list(places)[rank::number]
    with tqdm(total=len(share), unit="image", disable=None if rank == 0 else True) as bar:

        def report(done: Progress) -> None:
            bar.update(done.images + len(done.skipped) - bar.n)

        own = run.run(dataset, share, args.batch_size, args.workers, report)
    parts = gathered(own)
    if rank != 0:
        return 0
    for part in parts:
        progress.add(part)
    write_record(args.out, settings, progress, finished=True)
    _summarize(args, dataset, run, progress, sum(part.images for part in parts))
    return 1 if progress.skipped else 0


def _gamma(text: str) -> float | str:
    return text if text == "scale" else float(text)


def _check_flags(args: argparse.Namespace) -> None:
    sources = [f"--{name}" for name in ("cams", "seeds", "checkpoint") if getattr(args, name) is not None]
    if args.supervision == "ground-truth":
        given = [*sources, *(["--baselines"] if args.baselines else [])]
        if given:
            raise InputError(f"{' and '.join(given)}: only with --supervision seed")
    elif not sources:
        raise InputError("--supervision seed: needs --cams DIR, --seeds DIR or --checkpoint FILE")
    if args.cams is not None and args.seeds is not None:
        raise InputError("--cams and --seeds: give one of them")
    if min(args.scales) <= 0:
        raise InputError(f"--scales: expected positive numbers, got {min(args.scales)}")
    if args.batch_size < 1 or args.workers < 0:
        raise InputError("--batch-size and --workers: expected at least 1 and 0")


def _supervision(args: argparse.Namespace, dataset: PhotographDataset, classifier: Classifier | None) -> Supervision:
    if args.supervision == "ground-truth":
        if not dataset.has_masks:
            raise InputError("--supervision ground-truth: needs masks; give --masks DIR with --images")
        return GroundTruth()
    if args.seeds is not None:
        return MaskSeeds(args.seeds)
    try:
        background = background_rule(args.background)
    except ValueError as error:
        raise InputError(f"--background: {error}") from error
    if args.cams is not None:
        return CamFiles(args.cams, background, args.trust_pickle)
    assert classifier is not None
    if args.workers:
        raise InputError(
            "--workers: cannot read ahead while --checkpoint computes the maps; write them with `train.py cams`"
        )
    data = open_labels(args, dataset)
    labels = {id: data.classes(place) for place, id in enumerate(data.photographs.ids)}
    return ClassifierCams(classifier, labels, background, args.scales)


def _build_expander(args: argparse.Namespace, num_classes: int) -> StudyLabeller | SelfTraining:
    try:
        expander = SVMExpander(
            kernel=args.kernel,
            C=args.C,
            gamma=args.gamma,
            approximation=None if args.approximation == "exact" else args.approximation,
            components=args.components,
            samples_per_class=args.samples_per_class,
            num_classes=num_classes,
            seed=args.seed,
        )
        if args.supervision == "ground-truth":
            return StudyLabeller(expander)
        agreement = DenseCRF.preset(args.crf) if args.agreement == "crf" else None
        return SelfTraining(expander, agreement, args.share, args.rounds)
    except ValueError as error:
        raise InputError(f"--{error}".replace("_", "-")) from error


def _refinement(args: argparse.Namespace, name: str) -> list[nn.Module]:
    """The modules to apply one after the other."""
    if name == UNREFINED:
        return []
    steps: dict[str, Callable[[], nn.Module]] = {
        "crf": lambda: DenseCRF.preset(args.crf),
        "pamr": PAMR,
        "par": lambda: PAMR("par"),
        "irn": lambda: load_irn(args.irn_weights),
    }
    unknown = [step for step in name.split("+") if step not in steps]
    if unknown:
        raise InputError(f"--refine: expected none or {', '.join(steps)} joined by +, got {name!r}")
    if "irn" in name.split("+") and args.irn_weights is None:
        raise InputError("--refine irn: needs --irn-weights FILE, which `train.py irn` writes")
    return [steps[step]().to(choose_device(args.device)) for step in name.split("+")]


def _check_features(args: argparse.Namespace, backbone: Backbone) -> None:
    for name in args.features:
        stages = fused_stages(name)
        if not set(stages) <= set(backbone.stage_names):
            raise InputError(f"--features: there are {' '.join(backbone.stage_names)}, got {name}")
        if len(set(stages)) < len(stages):
            raise InputError(f"--features: expected each stage once in a fusion, got {name}")


def _settings(args: argparse.Namespace, dataset: PhotographDataset) -> dict[str, Any]:
    """What the masks depend on: a run continues only with the same."""
    names = ("backbone", "weights", "supervision", "samples_per_class", "seed", "kernel", "C", "gamma")
    settings = {name: getattr(args, name) for name in names}
    settings |= {"approximation": args.approximation, "components": args.components}
    settings |= {"features": list(args.features), "classes": list(dataset.class_names)}
    settings |= {name: getattr(args, name) for name in ("baselines", "refine", "crf", "irn_weights")}
    if args.supervision == "seed":
        choices = ["checkpoint", "scales", "cams", "seeds", "labels", "background", "agreement", "share", "rounds"]
        settings |= {name: getattr(args, name) for name in choices}
    data = ("root", "split", "list", "images", "masks", "limit")
    return settings | {"data": {name: getattr(args, name) for name in data}, "number": len(dataset)}


def _summarize(
    args: argparse.Namespace, dataset: PhotographDataset, run: ExpansionRun, progress: Progress, images: int
) -> None:
    """Print the table, what was skipped and where everything lies; draw the overview."""
    done = dataset.subset(place for place, id in enumerate(dataset.ids) if id not in progress.skipped)
    if len(done):
        if dataset.has_masks:
            width = shutil.get_terminal_size(fallback=(200, 24)).columns
            print(score_table(done, args.out, run.names, progress, width) + TABLE_NOTE)
        rows = overview_rows(done, args.out, run.names, run.supervision, run.expander, run.device)
        picture = panel(rows, run.names, dataset.class_names)
        write_atomically(args.out / "overview.png", lambda stream: picture.save(stream, "png"))
    for id, reason in progress.skipped.items():
        print(f"skipped {id}: {reason}")
    restored = [f"{name} {number}" for name, number in progress.restored.items() if number]
    if restored:
        print(f"objects that had vanished and were given their seed back: {', '.join(restored)}")
    print(
        f"{images} images expanded, {len(done) - images} were there, {len(progress.skipped)} skipped; masks in "
        f"{args.out}/NAME/ID.png, pictures in {args.out}/overview.png"
    )


if __name__ == "__main__":
    sys.exit(main())
