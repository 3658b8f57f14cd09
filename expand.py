"""Expand labels: train one SVM an image on sampled pixels of known class and re-label every pixel with it.

How to run:

    python expand.py                                     one photograph, a minute, nothing to prepare
    python expand.py --root /data --out runs/voc         the study of the paper's Table 1 on VOC 2012 train
    python expand.py --images photos --masks masks       a folder of your own
    python expand.py --root /data --supervision seed --cams runs/cams --features F3     from image-level labels
    torchrun --nproc-per-node 4 expand.py --root /data   on four GPUs

Then ``evaluate.py --predictions runs/voc`` scores the masks again, as tables in several formats.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from torch_svm_seg.arguments import add_data_arguments, open_dataset
from torch_svm_seg.backbones import Backbone, load_backbone
from torch_svm_seg.datasets import PhotographDataset
from torch_svm_seg.distributed import choose_device, gathered, processes
from torch_svm_seg.expander import SVMExpander
from torch_svm_seg.expansion_run import ExpansionRun, Progress, claim_folder, mask_path, unfinished, write_record
from torch_svm_seg.files import InputError, read_mask, write_atomically
from torch_svm_seg.fusion import fused_stages
from torch_svm_seg.panels import PanelRow, panel
from torch_svm_seg.sampling import VOID, confident_labels, sample_pixels
from torch_svm_seg.scoring import score_folder
from torch_svm_seg.self_training import SelfTraining
from torch_svm_seg.supervision import GroundTruth, Seeds, Supervision, background_rule
from torch_svm_seg.tables import Row, text_table

FEATURES = ("img", "F1", "F2", "F3", "F4", "F5")
OVERVIEW_ROWS = 4
EXIT_CODES = (
    "exit code: 0 if every image has its masks; 1 if some were skipped, which the summary lists; 2 if the arguments or"
    " the data cannot be used, or writing failed; 130 if interrupted: the same command continues where it stopped"
)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="For every image, train that image's own pixel classifier (a one-vs-rest SVM on a backbone's "
        "features) on sampled pixels of known class, and re-label every pixel with it. Writes DIR/FEATURE/ID.png.",
        epilog=EXIT_CODES,
    )
    add_data_arguments(parser)
    model = parser.add_argument_group("features")
    model.add_argument(
        "--features",
        nargs="+",
        default=list(FEATURES),
        metavar="STAGE",
        help="stages to compare, one SVM an image each (default: all six): img is the RGB picture, F1 to F5 the "
        "backbone's stages from fine and shallow to coarse and deep; F1+F3+F4 is one SVM on these three, each weighing "
        "alike",
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
        "seed takes the confident pixels of class activation maps (default: %(default)s)",
    )
    samples.add_argument(
        "--cams", metavar="DIR", help="class activation maps for --supervision seed, as `train.py cams` writes them"
    )
    samples.add_argument(
        "--trust-pickle",
        action="store_true",
        help="read the ID.npy that other code bases write into --cams: a pickle, of which only arrays, dictionaries, "
        "numbers and strings are admitted",
    )
    samples.add_argument(
        "--background",
        default="power:4",
        metavar="RULE",
        help="activation of the background in seeds: power:A is (1 - the largest activation)^A, constant:T a "
        "threshold, own what the method activates itself, as SIPE does (default: %(default)s)",
    )
    samples.add_argument(
        "--share",
        type=float,
        default=0.5,
        help="of each class's region in a seed to train on: its most confident pixels (default: %(default)s)",
    )
    samples.add_argument(
        "--rounds",
        type=int,
        default=1,
        metavar="N",
        help="with seeds, train again on the confident pixels of the SVM's own scores: N SVMs at most, until masks "
        "stop changing (default: %(default)s)",
    )
    samples.add_argument(
        "--samples-per-class",
        type=int,
        default=2500,
        metavar="N",
        help="pixels drawn from each class of an image; smaller classes give all theirs (default: %(default)s, as "
        "the paper; time grows faster than proportionally)",
    )
    samples.add_argument("--seed", type=int, default=0, help="of the sampled pixels (default: %(default)s)")
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
    supervision = _supervision(args, dataset)
    if args.batch_size < 1 or args.workers < 0:
        raise InputError("--batch-size and --workers: expected at least 1 and 0")
    device = choose_device(args.device)
    expander = _build_expander(args, len(dataset.class_names))
    backbone = _build_backbone(args).to(device)
    settings = _settings(args, dataset)
    if rank == 0:
        progress = claim_folder(args.out, settings, args.overwrite)
    gathered(None)
    places = range(len(dataset)) if args.overwrite else unfinished(args.out, args.features, dataset.ids)
    share = list(places)[rank::number]
    start = time.perf_counter()
    with tqdm(total=len(share), unit="image", disable=None if rank == 0 else True) as bar:

        def report(done: Progress) -> None:
            bar.update(done.images + len(done.skipped) - bar.n)

        run = ExpansionRun(backbone, expander, supervision, args.features, args.out, device)
        own = run.run(dataset, share, args.batch_size, args.workers, report)
    parts = gathered(own)
    if rank != 0:
        return 0
    for part in parts:
        progress.add(part)
    write_record(args.out, settings, progress, finished=True)
    _summarize(args, dataset, supervision, progress, sum(part.images for part in parts), time.perf_counter() - start)
    return 1 if progress.skipped else 0


def _gamma(text: str) -> float | str:
    return text if text == "scale" else float(text)


def _supervision(args: argparse.Namespace, dataset: PhotographDataset) -> Supervision:
    if args.supervision == "ground-truth":
        if args.cams is not None:
            raise InputError("--cams: works only together with --supervision seed")
        if not dataset.has_masks:
            raise InputError("--supervision ground-truth: needs masks; give --masks DIR with --images")
        return GroundTruth()
    if args.cams is None:
        raise InputError("--supervision seed: needs --cams DIR, which `train.py cams` writes")
    try:
        return Seeds(args.cams, background_rule(args.background), args.trust_pickle)
    except ValueError as error:
        raise InputError(f"--background: {error}") from error


def _build_expander(args: argparse.Namespace, num_classes: int) -> SVMExpander | SelfTraining:
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
        return expander if args.supervision == "ground-truth" else SelfTraining(expander, args.share, args.rounds)
    except ValueError as error:
        raise InputError(f"--{error}".replace("_", "-")) from error


def _build_backbone(args: argparse.Namespace) -> Backbone:
    backbone = load_backbone(args.backbone, args.weights)
    unknown = [name for name in args.features if not set(fused_stages(name)) <= set(backbone.stage_names)]
    if unknown:
        raise InputError(f"--features: {args.backbone} has {' '.join(backbone.stage_names)}, got {' '.join(unknown)}")
    repeated = [name for name in args.features if len(set(fused_stages(name))) < len(fused_stages(name))]
    if repeated:
        raise InputError(f"--features: expected each stage once in a fusion, got {' '.join(repeated)}")
    return backbone


def _settings(args: argparse.Namespace, dataset: PhotographDataset) -> dict[str, Any]:
    """What the masks depend on: a run continues only with the same."""
    names = ("backbone", "weights", "supervision", "samples_per_class", "seed", "kernel", "C", "gamma")
    settings = {name: getattr(args, name) for name in names}
    settings |= {"approximation": args.approximation, "components": args.components}
    settings |= {"features": list(args.features), "classes": list(dataset.class_names)}
    if args.supervision == "seed":
        settings |= {name: getattr(args, name) for name in ("cams", "background", "share", "rounds")}
    data = ("root", "split", "list", "images", "masks", "limit")
    return settings | {"data": {name: getattr(args, name) for name in data}, "number": len(dataset)}


def _summarize(
    args: argparse.Namespace,
    dataset: PhotographDataset,
    supervision: Supervision,
    progress: Progress,
    images: int,
    seconds: float,
) -> None:
    """Print the table, what was skipped and where everything lies; draw the overview."""
    done = dataset.subset(place for place, id in enumerate(dataset.ids) if id not in progress.skipped)
    if len(done):
        if dataset.has_masks:
            _print_table(args, done, progress.seconds_per_image())
        picture = panel(_overview_rows(args, done, supervision), args.features, dataset.class_names)
        write_atomically(args.out / "overview.png", lambda stream: picture.save(stream, "png"))
    for id, reason in progress.skipped.items():
        print(f"skipped {id}: {reason}")
    print(
        f"{images} images expanded in {seconds:.0f} s, {len(done) - images} were there, {len(progress.skipped)} "
        f"skipped; masks in {args.out}/FEATURE/ID.png, pictures in {args.out}/overview.png"
    )


def _print_table(args: argparse.Namespace, dataset: PhotographDataset, seconds: dict[str, float]) -> None:
    """A table like the paper's Table 1: a row a feature, a column a class."""
    rows = []
    for feature in args.features:
        score = score_folder(dataset, args.out / feature)
        extra = {"s/image": f"{seconds[feature]:.2f}", "images": str(score.images)}
        rows.append(Row(feature, score.per_class.tolist(), score.miou, extra))
    print(text_table(rows, dataset.class_names, shutil.get_terminal_size(fallback=(200, 24)).columns))
    print(
        "\nIoU in percent over the whole data set, void left out; mean: over the classes present; s/image: fit and "
        "prediction of one SVM, without the backbone.\n"
    )


def _overview_rows(args: argparse.Namespace, dataset: PhotographDataset, supervision: Supervision) -> list[PanelRow]:
    """The first photographs with their samples and masks, as in the paper's Figures 6 and 7."""
    rows = []
    for place, id in enumerate(dataset.ids[:OVERVIEW_ROWS]):
        _, image, knowledge = supervision.read(dataset, place)
        labels = knowledge if knowledge.dim() == 2 else confident_labels(knowledge[None], args.share)[0]
        sample = sample_pixels(labels[None], args.samples_per_class, args.seed)
        drawn = sample.positions[sample.classes >= 0]
        samples = torch.full_like(labels, VOID).flatten().scatter(0, drawn, labels.flatten()[drawn]).view_as(labels)
        masks = [read_mask(mask_path(args.out, feature, id)) for feature in args.features]
        rows.append(PanelRow(image, masks, dataset.mask(place) if dataset.has_masks else None, samples))
    return rows


if __name__ == "__main__":
    sys.exit(main())
