"""Expand labels: train one SVM an image on sampled pixels of known class and re-label every pixel with it.

How to run:

    python expand.py                                     one image, a minute, nothing to prepare
    python expand.py --root /data --out runs/voc         the study of the paper's Table 1 on VOC 2012 train
    python expand.py --images photos --masks masks       a folder of your own
    python expand.py --root /data --supervision seed --checkpoint runs/sipe/checkpoint.pt --features F4 --refine crf
    torchrun --nproc-per-node 4 expand.py --root /data   on four GPUs

Then ``evaluate.py --predictions runs/voc`` scores the masks again, as tables in several formats.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from torch_svm_seg.backbones.backbone import Backbone
from torch_svm_seg.backbones.builder import load_backbone
from torch_svm_seg.cam.checkpoints import load_classifier
from torch_svm_seg.cam.classifier import Classifier
from torch_svm_seg.cli.expansion_summary import overview_rows, score_table
from torch_svm_seg.cli.options.backbone import DEFAULT_BACKBONE, add_backbone_arguments
from torch_svm_seg.cli.options.data import add_data_arguments, open_dataset
from torch_svm_seg.cli.options.refinement import add_refinement_arguments, open_refinement
from torch_svm_seg.cli.options.run import add_overwrite_argument, add_run_arguments, add_workers_argument
from torch_svm_seg.cli.options.seeds import (
    BASELINES,
    add_seed_arguments,
    check_no_seeds,
    check_seeds,
    open_seeds,
    open_self_training,
)
from torch_svm_seg.cli.options.svm import add_sample_arguments, add_svm_arguments, open_expander
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import digest, write_atomically
from torch_svm_seg.evaluation.panels import panel
from torch_svm_seg.expansion.fusion import fused_stages
from torch_svm_seg.expansion.labelling import StudyLabeller
from torch_svm_seg.expansion.seed_expander import SelfTraining
from torch_svm_seg.pipeline.expansion_run import ExpansionRun, mask_path, unfinished
from torch_svm_seg.pipeline.run_folder import Progress, folder_digest, open_run, print_skipped, write_record
from torch_svm_seg.pipeline.supervision import GroundTruth, Supervision
from torch_svm_seg.training.checkpoints import read_checkpoint
from torch_svm_seg.training.distributed import choose_device, gathered, processes

STUDY_FEATURES = ("img", "F1", "F2", "F3", "F4", "F5")
SEED_FEATURES = ("F4",)
STUDY_SAMPLES, SEED_SAMPLES = 2500, 500
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
        help="stages to compare, one SVM an image each: img is the RGB image, F1 to F5 the backbone's stages from "
        "fine and shallow to coarse and deep; F1+F3+F4 is one SVM on these three, each weighing alike; none is only "
        "--baselines (default: all six; F4 with seeds)",
    )
    add_backbone_arguments(model, default=None)
    samples = parser.add_argument_group("samples")
    samples.add_argument(
        "--supervision",
        choices=("ground-truth", "seed"),
        default="ground-truth",
        help="where the labels of sampled pixels come from: the ground truth is the paper's study of the upper bound; "
        "seed takes confident pixels of a seed that needs no ground truth (default: %(default)s)",
    )
    add_sample_arguments(samples, "2500, as the paper; 500 with seeds")
    add_seed_arguments(parser)
    add_svm_arguments(parser)
    refinement = parser.add_argument_group("refinement")
    refinement.add_argument(
        "--refine",
        nargs="+",
        default=["none"],
        metavar="HOW",
        help="refinements of the SVM's calibrated probabilities, each written beside the others: none, crf, pamr, par, "
        "irn, or several in a row such as crf+pamr (default: none)",
    )
    add_refinement_arguments(refinement, "psa", ", here and in --agreement")
    refinement.add_argument(
        "--ignore-below",
        type=float,
        default=0.0,
        metavar="P",
        help="write 255 where the most likely class is less likely than P, for networks that are trained on the masks; "
        "scored, such pixels count as misses (default: 0, nowhere)",
    )
    run = add_run_arguments(parser, "out/expand")
    add_overwrite_argument(run)
    add_workers_argument(run)
    run.add_argument(
        "--batch-size", type=int, default=1, metavar="B", help="images of one size at once; a GPU gains by 8"
    )
    return parser


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
    _choose_defaults(args)
    device = choose_device(args.device)
    classifier = load_classifier(args.checkpoint, dataset.class_names).to(device) if args.checkpoint else None
    supervision = _supervision(args, dataset, classifier)
    backbone = classifier.backbone if classifier else load_backbone(args.backbone or DEFAULT_BACKBONE, args.weights)
    _check_features(args, backbone.to(device))
    refinements = {name: open_refinement(args, name, device) for name in args.refine}
    labeller = _labeller(args, len(dataset.class_names)).to(device)
    baselines = {name: BASELINES[name]().to(device) for name in args.baselines}
    run = ExpansionRun(
        backbone, labeller, supervision, args.features, baselines, refinements, args.out, device, args.ignore_below
    )
    settings = _settings(args, dataset)
    if rank == 0:
        files = (mask_path(args.out, name, id) for name in run.names for id in dataset.ids)
        progress = open_run(args.out, settings, args.overwrite, files)
    gathered(None)  # no process looks before old masks are gone
    share = unfinished(args.out, run.names, dataset.ids)[rank::number]
    gathered(None)  # and none writes before all have looked
    with tqdm(total=len(share), unit="image", disable=None if rank == 0 else True) as bar:

        def report(done: Progress) -> None:
            bar.update(done.images + len(done.skipped) - bar.n)

        try:
            own = run.run(dataset, share, args.batch_size, args.workers, report)
        except BaseException:
            if rank == 0:
                progress.add(run.progress)
                write_record(args.out, settings, progress, finished=False)
            raise
    parts = gathered(own)
    if rank != 0:
        return 0
    for part in parts:
        progress.add(part)
    write_record(args.out, settings, progress, finished=True)
    _summarize(args, dataset, run, progress, sum(part.images for part in parts))
    return 1 if progress.skipped else 0


def _choose_defaults(args: argparse.Namespace) -> None:
    """Fill in what depends on the supervision."""
    study = args.supervision == "ground-truth"
    if args.features is None:
        args.features = list(STUDY_FEATURES if study else SEED_FEATURES)
    args.features = [] if args.features == ["none"] else list(dict.fromkeys(args.features))
    if args.samples_per_class is None:
        args.samples_per_class = STUDY_SAMPLES if study else SEED_SAMPLES


def _check_flags(args: argparse.Namespace) -> None:
    if args.supervision == "ground-truth":
        check_no_seeds(args)
    else:
        check_seeds(args)
    if not 0 <= args.ignore_below <= 1:
        raise InputError(f"--ignore-below: expected 0 to 1, got {args.ignore_below}")
    if args.batch_size < 1 or args.workers < 0:
        raise InputError("--batch-size and --workers: expected at least 1 and 0")


def _supervision(args: argparse.Namespace, dataset: ImageDataset, classifier: Classifier | None) -> Supervision:
    if args.supervision == "seed":
        return open_seeds(args, dataset, classifier)
    if not dataset.has_masks:
        raise InputError("--supervision ground-truth: needs masks; give --masks DIR with --images")
    return GroundTruth()


def _labeller(args: argparse.Namespace, num_classes: int) -> StudyLabeller | SelfTraining:
    expander = open_expander(args, num_classes)
    return open_self_training(args, expander) if args.supervision == "seed" else StudyLabeller(expander)


def _check_features(args: argparse.Namespace, backbone: Backbone) -> None:
    if not args.features and not args.baselines:
        raise InputError("--features none: needs --baselines, or nothing is written")
    for name in args.features:
        stages = fused_stages(name)
        if not set(stages) <= set(backbone.stage_names):
            raise InputError(f"--features: there are {' '.join(backbone.stage_names)}, got {name}")
        if len(set(stages)) < len(stages):
            raise InputError(f"--features: expected each stage once in a fusion, got {name}")


def _settings(args: argparse.Namespace, dataset: ImageDataset) -> dict[str, Any]:
    """What the masks depend on: a run continues only with the same."""
    backbone = args.backbone or DEFAULT_BACKBONE
    if args.checkpoint is not None:
        backbone = read_checkpoint(args.checkpoint).settings["backbone"]
    settings = {"backbone": backbone}
    settings |= {name: getattr(args, name) for name in ("supervision", "samples_per_class", "seed")}
    settings |= {name: getattr(args, name) for name in ("kernel", "C", "gamma", "approximation", "components")}
    settings |= {name: digest(getattr(args, name)) for name in ("weights", "checkpoint", "irn_weights", "labels")}
    settings |= {name: folder_digest(getattr(args, name)) for name in ("cams", "seeds")}
    settings |= {"features": list(args.features), "classes": list(dataset.class_names)}
    settings |= {name: getattr(args, name) for name in ("baselines", "refine", "crf", "ignore_below")}
    if args.supervision == "seed":
        choices = ["scales", "background", "agreement", "share", "rounds"]
        settings |= {name: getattr(args, name) for name in choices}
    # Not how many images there are: a run of a few can go on to all of them.
    return settings | {"data": {name: getattr(args, name) for name in ("root", "split", "list", "images", "masks")}}


def _summarize(
    args: argparse.Namespace, dataset: ImageDataset, run: ExpansionRun, progress: Progress, images: int
) -> None:
    """Print the table, what was skipped and where everything lies; draw the overview."""
    done = dataset.subset(place for place, id in enumerate(dataset.ids) if id not in progress.skipped)
    if len(done):
        scored = done.subset(place for place in range(len(done)) if done.has_mask(place))
        if len(scored):
            width = shutil.get_terminal_size(fallback=(200, 24)).columns
            print(score_table(scored, args.out, run.names, progress, width) + TABLE_NOTE)
        rows = overview_rows(
            done, args.out, run.names, run.supervision, run.labeller if run.features else None, run.device
        )
        picture = panel(rows, run.names, dataset.class_names)
        write_atomically(args.out / "overview.png", lambda stream: picture.save(stream, "png"))
    print_skipped(progress.skipped)
    if progress.unseeded:
        print(f"objects that images are labelled with, but no pixel of their seed shows: {progress.unseeded}")
    restored = [f"{name} {number}" for name, number in progress.restored.items() if number]
    if restored:
        print(f"objects that had vanished and were given their seed back: {', '.join(restored)}")
    written = f"; masks in {args.out}/NAME/ID.png, images in {args.out}/overview.png" if len(done) else ""
    print(f"{images} images expanded, {len(done) - images} were there, {len(progress.skipped)} skipped{written}")


if __name__ == "__main__":
    sys.exit(main())
