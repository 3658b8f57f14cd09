"""train.py pixels: one classifier of the pixels of all images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, ClassVar

from tqdm import tqdm

from torch_svm_seg.backbones.backbone import Backbone
from torch_svm_seg.cli.options.backbone import TwoBackboneOptions
from torch_svm_seg.cli.options.data import DataOptions, LabelOptions
from torch_svm_seg.cli.options.maps import SeedFileOptions
from torch_svm_seg.cli.options.option import changed_flags, flag, group, option, recorded
from torch_svm_seg.cli.options.run import WriteOptions, seed_option
from torch_svm_seg.cli.options.sparse import LABELLED, SparseOptions
from torch_svm_seg.cli.options.training import with_files
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import remove_unfinished
from torch_svm_seg.expansion.normalization import fused_stages
from torch_svm_seg.pipeline.run_folder import print_notes, print_skipped, skip_reason, spoils_one_image
from torch_svm_seg.pipeline.supervision import Supervised, Supervision
from torch_svm_seg.pixel_classifier.classifier import METHOD, PixelClassifier, PixelModel, PixelNetwork
from torch_svm_seg.pixel_classifier.fitting import GridSamples, draw_samples, fit_in_rounds
from torch_svm_seg.pixel_classifier.network_fitting import train_network
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
    hidden: int = option(
        0,
        metavar="N",
        at_least=0,
        help="units of two hidden layers in place of a linear classifier, trained once, to tell each image's own "
        "classes apart; for masks, as it learns the errors of maps by heart; 256 is enough",
    )
    seed: int = seed_option("of the drawn cells, and of hidden layers")

    def check(self) -> None:
        """Raise InputError where a value is out of its range."""
        if not 0 < self.share <= 1:
            raise InputError(f"--share: expected more than 0 and at most 1, got {self.share}")
        if not self.ridge > 0:
            raise InputError(f"--ridge: expected more than 0, got {self.ridge}")


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


def run(settings: Settings, rank: int = 0, processes: int = 1) -> int:
    """Fit a pixel classifier; return the exit code."""
    settings.fit.check()
    dataset, path = settings.data.open(), settings.run.out / CHECKPOINT_FILE
    record = recorded(settings) | {"method": METHOD, "limit": settings.data.limit, "number": len(dataset)}
    supervision = settings.supervision(dataset)
    record = with_files(record, [partial(supervision.sources, dataset, index) for index in range(len(dataset))])
    if path.is_file() and not settings.run.overwrite:
        if changes := record.changes(read_checkpoint(path).settings):
            raise InputError(f"{path}: fitted with other settings ({changes}); give another --out, or --overwrite")
        if rank == 0:
            print(f"{path} is there already")
        return 0
    stages = fused_stages(settings.network.features)
    model = _model(settings, stages, len(dataset.class_names)).eval().to(settings.run.choose_device())
    images = _Images(dataset, supervision, rank, processes)
    state, skipped = _fit(settings, images, model)
    if rank == 0:
        remove_unfinished(settings.run.out)
        state["model"] = model.state_dict()
        save_checkpoint(path, Checkpoint(dict(record.values), dataset.class_names, state))
        print_notes(dataset.notes.lines(), {})
        print_skipped(skipped)
        print(f"{len(dataset) - len(skipped)} images, {len(skipped)} skipped; the classifier is {path}")
    return 1 if skipped else 0


def _model(settings: Settings, stages: Sequence[str], classes: int) -> PixelClassifier | PixelNetwork:
    """Return what is to be fitted.

    Raises:
        InputError: It cannot be, or only in another way.
    """
    backbone, hidden = settings.network.open(), settings.fit.hidden
    if not hidden:
        return PixelClassifier(backbone, stages, classes)
    linear = {"--rounds", "--share", "--ridge"}
    given = [*map(flag, settings.sparse.given), *(name for name in changed_flags(settings.fit) if name in linear)]
    if given:
        raise InputError(f"--hidden: not with {given[0]}, which is of the linear classifier")
    return PixelNetwork(backbone, stages, classes, hidden)


@dataclass(frozen=True)
class _Images:
    """Images with what is known about them, shared out among processes.

    Attributes:
        dataset: The images.
        supervision: Gives what is known about them.
        rank: Number of this process.
        processes: Number of processes.
    """

    dataset: ImageDataset
    supervision: Supervision
    rank: int
    processes: int

    def for_each(self, use: Callable[[Supervised, int], object]) -> dict[str, str]:
        """Use this process's images by their index; return those that all processes skipped, and why."""
        skipped: dict[str, str] = {}
        share = range(self.rank, len(self.dataset), self.processes)
        for index in tqdm(share, unit="image", disable=None if self.rank == 0 else True):
            try:
                use(self.supervision.read(self.dataset, index), index)
            except Exception as error:
                if not spoils_one_image(error):
                    raise
                skipped[self.dataset.ids[index]] = skip_reason(error)
        return {id: reason for part in gathered(skipped) for id, reason in part.items()}


def _fit(
    settings: Settings, images: _Images, model: PixelClassifier | PixelNetwork
) -> tuple[dict[str, Any], dict[str, str]]:
    """Fit to what is given; return what else to save, and the images skipped."""
    if settings.sparse.given:
        assert isinstance(model, PixelClassifier)
        return _fit_to_labels(settings, images, model)
    samples, skipped = _samples(settings, images, model)
    if isinstance(model, PixelClassifier):
        fit, on_round = settings.fit, partial(_print_round, images.rank)
        fit_in_rounds(model, samples, fit.rounds, fit.share, fit.ridge, on_round)
    elif (everyone := _in_order(gathered(samples))) and images.rank == 0:
        train_network(model, everyone, seed=settings.fit.seed, progress=True)
    return {}, skipped


def _samples(settings: Settings, images: _Images, model: PixelModel) -> tuple[list[GridSamples], dict[str, str]]:
    """Return cells of this process's images, and the images that all processes skipped."""
    samples: list[GridSamples] = []
    number_of_cells, seed = settings.fit.samples_per_image, settings.fit.seed

    def draw(one: Supervised, index: int) -> None:
        samples.append(draw_samples(model, one.image, one.known, one.classes or (), number_of_cells, seed + index))

    skipped = images.for_each(draw)
    if not sum(gathered(len(samples))):
        raise InputError("--cams or --seeds: no image has any that can be used")
    return samples, skipped


def _in_order(shares: Sequence[Sequence[GridSamples]]) -> list[GridSamples]:
    """Return the samples of all processes, in turn, as they are where one process reads all images."""
    return [one for row in zip_longest(*shares) for one in row if one is not None]


def _fit_to_labels(
    settings: Settings, images: _Images, classifier: PixelClassifier
) -> tuple[dict[str, Any], dict[str, str]]:
    """Fit to labelled pixels; return what else to save, their moments, and the images skipped."""
    fit, own = settings.fit, ClassMoments.zeros(classifier.num_classes, classifier.channels)

    def add(labelled: Supervised, index: int) -> None:
        features = classifier.features(labelled.image).permute(2, 0, 1)
        labels, certainty = labelled.known.to(features.device), labelled.certainty
        certainty = None if certainty is None else certainty.to(features.device)
        add_labelled(own, features, labels, fit.samples_per_image, fit.seed, certainty)

    skipped = images.for_each(add)
    moments = ClassMoments(*(sum_over_processes(part) for part in own))
    if not bool(moments.counts.any()):
        raise InputError(f"{flag(settings.sparse.given[0])}: no image has labels that can be used")
    classifier.set(moments.solve(fit.ridge))
    return {MOMENTS: {name: part.float() for name, part in moments._asdict().items()}}, skipped


def _print_round(rank: int, round: int, changed: float) -> None:
    if rank == 0:
        print(f"round {round}: {changed:.1%} of the cells have another class than before")
