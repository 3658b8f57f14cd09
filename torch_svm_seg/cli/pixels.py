"""train.py pixels: one classifier of the pixels of all images."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from tqdm import tqdm

from torch_svm_seg.backbones.backbone import Backbone
from torch_svm_seg.cli.options.backbone import TwoBackboneOptions
from torch_svm_seg.cli.options.data import DataOptions, LabelOptions
from torch_svm_seg.cli.options.maps import SeedFileOptions
from torch_svm_seg.cli.options.option import flag, group, option, recorded
from torch_svm_seg.cli.options.run import WriteOptions, seed_option
from torch_svm_seg.cli.options.sparse import LABELLED, SparseOptions
from torch_svm_seg.cli.options.training import with_files
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import remove_unfinished
from torch_svm_seg.expansion.normalization import fused_stages
from torch_svm_seg.pipeline.run_folder import SPOILT, print_notes, print_skipped, skip_reason
from torch_svm_seg.pipeline.supervision import Supervised, Supervision
from torch_svm_seg.pixel_classifier.classifier import METHOD, PixelClassifier
from torch_svm_seg.pixel_classifier.fitting import GridSamples, Rounds, draw_samples
from torch_svm_seg.pixel_classifier.other_images import MOMENTS, add_labelled
from torch_svm_seg.svm.least_squares import ClassMoments
from torch_svm_seg.training.checkpoints import Checkpoint, read_checkpoint, save_checkpoint
from torch_svm_seg.training.distributed import gathered, sum_over_processes
from torch_svm_seg.training.run import CHECKPOINT_FILE

HELP = "fit one classifier to the confident pixels of all images"
DESCRIPTION = (
    "What other images know about the classes of an image: a linear one-vs-rest classifier on a backbone's features, "
    "fitted to the pixels that class activation maps or masks are confident of, in all images together, and again to "
    "those that it is confident of itself. Reads each image once. Writes DIR/checkpoint.pt, for train.py posterior. "
    "With --points or --scribbles it is fitted to their labels, once, for expand.py --pixels."
)


@dataclass(frozen=True)
class PixelFeatureOptions(TwoBackboneOptions):
    """The features of the classifier."""

    title: ClassVar = "features"

    features: str = option(
        "F4+F5", metavar="STAGES", help="stages of the networks, joined by +, on the grid of the finest"
    )

    def open(self) -> Backbone:
        """Load the networks.

        Raises:
            InputError: They cannot be loaded, or have no such stages.
        """
        backbone = self.join(self.load())
        stages = fused_stages(self.features)
        if not set(stages) <= set(backbone.stage_names) or len(set(stages)) < len(stages):
            raise InputError(f"--features: expected some of {' '.join(backbone.stage_names)}, got {self.features}")
        return backbone


@dataclass(frozen=True)
class RoundOptions:
    """The rounds of the fit."""

    title: ClassVar = "fit"

    rounds: int = option(3, metavar="N", at_least=1, help="fits, each to the confident pixels of the one before")
    share: float = option(
        0.7, metavar="S", help="share of each image's and class's pixels that train, those most confident of"
    )
    ridge: float = option(0.5, metavar="R", help="penalty of the squared weights")
    samples_per_image: int = option(
        200, metavar="N", at_least=1, help="cells of the features' grid drawn from each image, kept in memory"
    )
    seed: int = seed_option("of the drawn cells")

    def open(self) -> Rounds:
        """Return the rule.

        Raises:
            InputError: A value is out of its range.
        """
        if not 0 < self.share <= 1:
            raise InputError(f"--share: expected more than 0 and at most 1, got {self.share}")
        if not self.ridge > 0:
            raise InputError(f"--ridge: expected more than 0, got {self.ridge}")
        return Rounds(self.rounds, self.share, self.ridge)


@dataclass(frozen=True)
class Settings:
    """Settings of the command."""

    data: DataOptions = group()
    maps: SeedFileOptions = group()
    labels: LabelOptions = group()
    sparse: SparseOptions = group(description="In place of seeds: --points or --scribbles.")
    network: PixelFeatureOptions = group()
    fit: RoundOptions = group()
    run: WriteOptions = group(out=Path("out/pixels"))

    def supervision(self, dataset: ImageDataset) -> Supervision:
        """Open what the classifier is fitted to.

        Raises:
            InputError: None, or several, of maps, points and scribbles are given, boxes are, or they cannot be opened.
        """
        given = self.sparse.given
        if not given:
            return self.maps.open_files(self.data, self.labels, dataset)
        if self.maps.cams or self.maps.seeds or len(given) > 1 or given[0] not in LABELLED:
            names = ", ".join(map(flag, ("cams", "seeds", *LABELLED)))
            raise InputError(f"{names}: expected one of them, got {flag(given[-1])} too")
        self.sparse.check(given[0])
        return self.sparse.open(dataset)


def run(settings: Settings, rank: int = 0, number: int = 1) -> int:
    """Fit a pixel classifier; return the exit code."""
    dataset, path = settings.data.open(), settings.run.out / CHECKPOINT_FILE
    record = recorded(settings) | {"method": METHOD, "limit": settings.data.limit, "number": len(dataset)}
    known = settings.supervision(dataset)
    record = with_files(record, [partial(known.sources, dataset, index) for index in range(len(dataset))])
    if path.is_file() and not settings.run.overwrite:
        if changes := record.changes(read_checkpoint(path).settings):
            raise InputError(f"{path}: fitted with other settings ({changes}); give another --out, or --overwrite")
        if rank == 0:
            print(f"{path} is there already")
        return 0
    stages = fused_stages(settings.network.features)
    classifier = PixelClassifier(settings.network.open(), stages, len(dataset.class_names)).eval()
    classifier.to(settings.run.choose_device())
    fit = _fit_to_labels if settings.sparse.given else _fit_to_maps
    state, skipped = fit(settings, dataset, classifier, rank, number)
    if rank == 0:
        remove_unfinished(settings.run.out)
        state["model"] = classifier.state_dict()
        save_checkpoint(path, Checkpoint(dict(record.values), dataset.class_names, state))
        print_notes(dataset.notes.lines(), {})
        print_skipped(skipped)
        print(f"{len(dataset) - len(skipped)} images, {len(skipped)} skipped; the classifier is {path}")
    return 1 if skipped else 0


def _fit_to_maps(
    settings: Settings, dataset: ImageDataset, classifier: PixelClassifier, rank: int, number: int
) -> tuple[dict[str, Any], dict[str, str]]:
    """Fit in rounds to what maps are confident of; return what else to save, nothing, and the images skipped."""
    samples: list[GridSamples] = []
    fit, rounds = settings.fit, settings.fit.open()

    def draw(seed: Supervised, index: int) -> None:
        samples.append(
            draw_samples(
                classifier, seed.image, seed.known, seed.classes or (), fit.samples_per_image, fit.seed + index
            )
        )

    skipped = _for_each(settings, dataset, draw, rank, number)
    if not sum(gathered(len(samples))):
        raise InputError("--cams or --seeds: no image has any that can be used")
    rounds.fit(classifier, samples, lambda round, changed: _print_round(round, changed, rank))
    return {}, skipped


def _fit_to_labels(
    settings: Settings, dataset: ImageDataset, classifier: PixelClassifier, rank: int, number: int
) -> tuple[dict[str, Any], dict[str, str]]:
    """Fit to labelled pixels; return what else to save, their moments, and the images skipped."""
    fit, own = settings.fit, ClassMoments.zeros(len(dataset.class_names), classifier.channels)

    def add(labelled: Supervised, index: int) -> None:
        features = classifier.features(labelled.image).permute(2, 0, 1)
        labels, certainty = labelled.known.to(features.device), labelled.certainty
        certainty = None if certainty is None else certainty.to(features.device)
        add_labelled(own, features, labels, fit.samples_per_image, fit.seed, certainty)

    skipped = _for_each(settings, dataset, add, rank, number)
    moments = ClassMoments(*(sum_over_processes(part) for part in own))
    if not bool(moments.counts.any()):
        raise InputError(f"{flag(settings.sparse.given[0])}: no image has labels that can be used")
    classifier.set(moments.solve(fit.ridge))
    return {MOMENTS: {name: part.float() for name, part in moments._asdict().items()}}, skipped


def _for_each(
    settings: Settings,
    dataset: ImageDataset,
    use: Callable[[Supervised, int], object],
    rank: int,
    number: int,
) -> dict[str, str]:
    """Use this process's images, with what is known about them; return those that all processes skipped, and why."""
    supervision = settings.supervision(dataset)
    skipped: dict[str, str] = {}
    for index in tqdm(range(rank, len(dataset), number), unit="image", disable=None if rank == 0 else True):
        try:
            use(supervision.read(dataset, index), index)
        except SPOILT as error:
            skipped[dataset.ids[index]] = skip_reason(error)
    return {id: reason for part in gathered(skipped) for id, reason in part.items()}


def _print_round(round: int, changed: float, rank: int) -> None:
    if rank == 0:
        print(f"round {round}: {changed:.1%} of the cells have another class than before")
