"""Expand labels: fit one SVM per image on sampled pixels of known class and re-label every pixel with it.

How to run:

    python expand.py                                     one image, a minute, nothing to prepare
    python expand.py --root /data --out runs/voc         the study of the paper's Table 1 on VOC 2012 train
    python expand.py --images photos --masks masks       a custom folder
    python expand.py --root /data --supervision points --points clicks.json
    python expand.py --images tiles --supervision scribbles --scribbles strokes --fit-on labelled.txt
    python expand.py --root /data --supervision seed --checkpoint runs/sipe/checkpoint.pt --features F4 --refine crf
    torchrun --nproc-per-node 4 expand.py --root /data   on four GPUs

Then ``evaluate.py --predictions runs/voc`` scores the masks again, as tables in several formats.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch_svm_seg.cam.checkpoints import load_classifier
from torch_svm_seg.cam.classifier import Classifier
from torch_svm_seg.cli.command import exit_code_of
from torch_svm_seg.cli.options.backbone import DEFAULT_BACKBONE
from torch_svm_seg.cli.options.data import DataOptions, LabelOptions
from torch_svm_seg.cli.options.features import FeatureOptions
from torch_svm_seg.cli.options.option import (
    Parser,
    add_options,
    changed_flags,
    flag,
    group,
    option,
    read_options,
    recorded,
)
from torch_svm_seg.cli.options.refinement import MaskOptions
from torch_svm_seg.cli.options.run import WriteOptions
from torch_svm_seg.cli.options.seeds import BASELINES, SeedOptions
from torch_svm_seg.cli.options.sparse import SPARSE_LABELS, FitOnOptions, OtherImageOptions, SparseOptions
from torch_svm_seg.cli.options.svm import SampleOptions, SVMOptions
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.provenance import RunSettings
from torch_svm_seg.expansion.box_labeller import BoxLabeller
from torch_svm_seg.expansion.labelling import FittedLabeller, SVMLabeller
from torch_svm_seg.pipeline.expansion_run import ExpansionRun, Labeller
from torch_svm_seg.pipeline.expansion_summary import summarize
from torch_svm_seg.pipeline.image_log import Report
from torch_svm_seg.pipeline.image_run import ImageRun
from torch_svm_seg.pipeline.run_folder import Progress
from torch_svm_seg.pipeline.supervision import GroundTruth, Supervision
from torch_svm_seg.training.checkpoints import read_checkpoint, setting

FEW_LABELS_FEATURES = ("F3+F4+F5",)
STUDY_FEATURES = ("img", "F1", "F2", "F3", "F4", "F5")
SEED_FEATURES = ("F4",)
STUDY_SAMPLES, SAMPLES = 2500, {"seed": 200, "boxes": 200}
EXIT_CODES = (
    "exit code: 0 if every image has its masks; 1 if some were skipped, which the summary lists; 2 if the arguments or"
    " the data cannot be used, or writing failed; 130 if interrupted: the same command continues where it stopped"
)


@dataclass(frozen=True)
class ExpansionRunOptions(WriteOptions):
    """Options of the run."""

    workers: int = option(0, metavar="N", at_least=0, help="processes that read images ahead", affects_results=False)
    batch_size: int = option(
        1,
        metavar="B",
        at_least=1,
        help="images at once, whose SVMs are fitted together; a GPU gains by 8; masks differ by the SVM's tolerance",
        affects_results=False,  # no more than the device does
    )


@dataclass(frozen=True)
class Settings:
    """Settings of the command."""

    data: DataOptions = group()
    features: FeatureOptions = group(backbone="")
    samples: SampleOptions = group()
    seeds: SeedOptions = group()
    labels: LabelOptions = group()
    sparse: SparseOptions = group()
    others: OtherImageOptions = group()
    fit_on: FitOnOptions = group()
    svm: SVMOptions = group()
    masks: MaskOptions = group()
    run: ExpansionRunOptions = group(out=Path("out/expand"))

    @property
    def from_seeds(self) -> bool:
        """Whether labels come from seeds and not from the ground truth."""
        return self.samples.supervision == "seed"

    @property
    def from_few_labels(self) -> bool:
        """Whether labels are points, scribbles or boxes."""
        return self.samples.supervision in SPARSE_LABELS

    def checked(self) -> "Settings":
        """Return the settings with what depends on others filled in.

        Raises:
            InputError: They contradict each other, or a value is out of its range.
        """
        if self.from_seeds:
            self.seeds.check()
        elif given := [*changed_flags(self.seeds), *changed_flags(self.labels)]:
            raise InputError(f"{' and '.join(given)}: only with --supervision seed")
        self.sparse.check(self.samples.supervision)
        self.fit_on.check(self.samples.supervision, self.others.pixels)
        self.others.check(self.samples.supervision, self.features, self.samples, self.svm)
        if not 0 <= self.masks.ignore_below <= 1:
            raise InputError(f"--ignore-below: expected 0 to 1, got {self.masks.ignore_below}")
        features = self.features.features or self._default_features
        features = () if features == ("none",) else tuple(dict.fromkeys(features))
        if not features and not self.seeds.baselines:
            raise InputError("--features none: needs --baselines, or nothing is written")
        number = self.samples.samples_per_class
        number = SAMPLES.get(self.samples.supervision, STUDY_SAMPLES) if number is None else number
        return replace(
            self,
            features=replace(self.features, features=features, backbone=self._backbone),
            samples=replace(self.samples, samples_per_class=number),
            svm=self.svm.suited_to(self.samples.supervision),
        )

    @property
    def _default_features(self) -> tuple[str, ...]:
        if self.others.pixels is not None:
            return (self.others.features,)
        if self.from_few_labels:
            return FEW_LABELS_FEATURES
        return SEED_FEATURES if self.from_seeds else STUDY_FEATURES

    @property
    def _checkpoint(self) -> Path | None:
        """The classifier whose backbone is used unless another one is named."""
        return self.seeds.checkpoint or self.others.pixels

    @property
    def _backbone(self) -> str:
        """Name of the backbone; empty for the classifier's own."""
        if self.features.backbone or self._checkpoint is None:
            return self.features.backbone or DEFAULT_BACKBONE
        for name in ("weights", "patch_stride", "input_scale"):
            if getattr(self.features, name) not in (None, 1.0):
                raise InputError(f"--checkpoint and {flag(name)}: only together with --backbone")
        return ""

    def record(self) -> RunSettings:
        """Return what results depend on; of two networks of one name, the classifier's own is the one without weights.

        Raises:
            InputError: A file cannot be read.
        """
        record, checkpoint = recorded(self), self._checkpoint
        if checkpoint is None:
            return record
        if not self.features.backbone:
            return record | {"backbone": setting(checkpoint, read_checkpoint(checkpoint), "backbone")}
        return record if self.features.weights else record | {"weights": "ImageNet"}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = Parser(
        description="For every image, fit that image's own pixel classifier (a one-vs-rest SVM on a backbone's "
        "features) on sampled pixels of known class, and re-label every pixel with it. Writes DIR/NAME/ID.png, where "
        "NAME is a feature or a baseline, with +REFINEMENT if there is one.",
        epilog=EXIT_CODES,
    )
    add_options(parser, Settings)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    args = build_parser().parse_args(argv)

    def work(rank: int, processes: int) -> int:
        return run(read_options(Settings, args), rank, processes)

    return exit_code_of("expand.py", work, f"the same command continues ({args.out})", args.out)


def run(settings: Settings, rank: int = 0, processes: int = 1) -> int:
    """Expand this process's share of the images and report on all of them; return the exit code."""
    settings = settings.checked()
    dataset, options = settings.data.open(), settings.run
    record = settings.record() | {"classes": list(dataset.class_names)}
    expansion = _build_expansion(settings, dataset)

    def work(share: Sequence[int], progress: Progress, report: Report) -> None:
        expansion.run(dataset, share, progress, options.batch_size, options.workers, report)

    outcome = ImageRun(dataset, options.out, record, options.overwrite, rank, processes).do(
        expansion.jobs(dataset), work
    )
    if rank == 0:
        summarize(dataset, expansion, outcome)
    unused = expansion.fit_on.skipped if expansion.fit_on else {}
    return 1 if outcome.now.skipped or unused else 0


def _build_expansion(settings: Settings, dataset: ImageDataset) -> ExpansionRun:
    """Build what expands an image."""
    device, checkpoint = settings.run.choose_device(), settings.seeds.checkpoint
    classifier = load_classifier(checkpoint, dataset.class_names).to(device) if checkpoint else None
    others = settings.others.open(dataset.class_names)
    owner = others.classifier.to(device) if others else classifier
    own = owner.backbone if owner and not settings.features.backbone else settings.features.load()
    backbone = settings.features.open(own).to(device)
    supervision = _supervision(settings, dataset, classifier)
    fit_on = settings.fit_on.open(dataset, supervision)
    return ExpansionRun(
        backbone=backbone,
        labellers={name: _labeller(settings).to(device) for name in settings.features.features or ()},
        supervision=settings.masks.with_regions(fit_on.supervise() if fit_on else supervision),
        baselines={name: BASELINES[name]().to(device) for name in settings.seeds.baselines},
        refinements=settings.masks.open_refinements(device, backbone),
        out=settings.run.out,
        device=device,
        ignore_below=settings.masks.ignore_below,
        others=others,
        fit_on=fit_on,
    )


def _supervision(settings: Settings, dataset: ImageDataset, classifier: Classifier | None) -> Supervision:
    if settings.from_seeds:
        computed = settings.seeds.cams is None and settings.seeds.seeds is None
        if computed and settings.run.workers:
            raise InputError(
                "--workers: cannot read ahead while --checkpoint computes the maps; write them with `train.py cams`"
            )
        return settings.seeds.open_seeds(settings.data, settings.labels, dataset, classifier)
    if settings.from_few_labels:
        return settings.sparse.open(dataset)
    if not dataset.has_masks:
        raise InputError("--supervision ground-truth: needs masks; give --masks DIR with --images")
    return GroundTruth()


def _labeller(settings: Settings) -> Labeller:
    expander = settings.svm.expander(settings.samples)
    if settings.fit_on.fit_on is not None:
        return FittedLabeller(expander)
    if settings.samples.supervision == "boxes":
        return BoxLabeller(expander, settings.sparse.box_rounds)
    if settings.from_seeds:
        return settings.seeds.self_training(expander, settings.masks.crf)
    return SVMLabeller(expander)
