"""train.py segment: segmentation networks on masks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from tqdm import tqdm

from torch_svm_seg.cli.options.data import DataOptions
from torch_svm_seg.cli.options.noise import CertaintyOptions, OnlineOptions
from torch_svm_seg.cli.options.option import group, option
from torch_svm_seg.cli.options.run import TrainingRunOptions
from torch_svm_seg.cli.options.training import FileSources, OptimizerOptions, training_record, training_settings
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.pipeline.run_folder import print_notes
from torch_svm_seg.segmenters import build_segmenter
from torch_svm_seg.segmenters.builder import METHOD
from torch_svm_seg.segmenters.segmenter import Segmenter
from torch_svm_seg.segmenters.training import MaskedCrops, survey_masks
from torch_svm_seg.segmenters.training import validate as validate_segmenter
from torch_svm_seg.training.run import BEST_FILE, CHECKPOINT_FILE, TrainingRun
from torch_svm_seg.training.trainer import Training, TrainingSettings

HELP = "train a segmentation network on masks"
DESCRIPTION = (
    "Train a network that names the class of every pixel, on any folder of masks: pseudo masks of "
    "expand.py, somebody else's, or the ground truth. Writes DIR/checkpoint.pt, DIR/best.pt, DIR/steps.csv and "
    "DIR/checks.csv."
)


class NetworkDefaults(NamedTuple):
    """The training of a kind of network unless the user says otherwise."""

    steps: int
    batch_size: int
    learning_rate: float
    crop_size: int


DEFAULTS = {"lite": NetworkDefaults(400, 8, 1e-3, 256), "deeplabv2": NetworkDefaults(20_000, 10, 2.5e-4, 321)}
OTHER_DEFAULTS = NetworkDefaults(20_000, 10, 1e-3, 321)

_LARGEST_SCALE = 16


def _by_network(field: str, help: str, **declaration: Any) -> Any:
    values = [getattr(defaults, field) for defaults in (*DEFAULTS.values(), OTHER_DEFAULTS)]
    return option(None, help=f"{help} (default: {', '.join(map(str, values))})", **declaration)


@dataclass(frozen=True)
class NetworkOptions:
    """The network to train."""

    title: ClassVar = "network"

    network: str = option(
        "lite:efficientnet_lite0",
        metavar="NAME",
        help="deeplabv2:resnet101, the field's; lite:BACKBONE, which trains on a CPU; deeplabv3:resnet50, "
        "lraspp:mobilenet_v3_large and others of torchvision; smp:ARCHITECTURE:ENCODER of the package "
        "segmentation-models-pytorch",
    )
    weights: str | None = option(
        None,
        metavar="FILE",
        content=True,
        help="state dict or checkpoint of the backbone, or random (default: its ImageNet weights)",
    )

    @property
    def defaults(self) -> NetworkDefaults:
        """The defaults of the training of this kind of network."""
        return DEFAULTS.get(self.network.split(":")[0], OTHER_DEFAULTS)


@dataclass(frozen=True)
class StepOptions(OptimizerOptions):
    """A training by steps."""

    description: ClassVar = "Stochastic gradient descent as in DeepLab. Defaults: of lite, of deeplabv2, of all others."

    steps: int | None = _by_network("steps", "updates", metavar="N", at_least=1)
    batch_size: int | None = _by_network(
        "batch_size", "images per step, over all processes together", metavar="B", at_least=1
    )
    learning_rate: float | None = _by_network(
        "learning_rate",
        "of pretrained layers at the start; new layers have ten times as much; it decays to 0 with power 0.9",
        metavar="R",
    )
    crop_size: int | None = _by_network("crop_size", "side of the square crops", metavar="PIXELS", at_least=32)
    scale_range: tuple[float, float] = option(
        (0.5, 1.5), metavar=("LOW", "HIGH"), help="factor on an image's size before the crop, uniform"
    )
    check_every: int | None = option(
        None,
        metavar="N",
        at_least=1,
        help="steps between checkpoints, each with a validation (default: a tenth of --steps)",
    )

    def resolved(self, defaults: NetworkDefaults) -> "StepOptions":
        """Return the options with the network's defaults where none are given.

        Raises:
            InputError: The range of scales is not one.
        """
        low, high = self.scale_range
        if not 0 < low <= high <= _LARGEST_SCALE:
            raise InputError(
                f"--scale-range: expected positive numbers, at most {_LARGEST_SCALE}, the smaller one first, "
                f"got {low} {high}"
            )
        missing = {name: value for name, value in defaults._asdict().items() if getattr(self, name) is None}
        found = replace(self, **missing)
        return replace(found, check_every=found.check_every or max(1, (found.steps or 0) // 10))


@dataclass(frozen=True)
class SegmenterValidationOptions:
    """The images to validate on."""

    title: ClassVar = "validation"
    description: ClassVar = (
        "The network with the best mean IoU is kept as best.pt. That choice uses the ground truth of these images: "
        "report best.pt on others, or report checkpoint.pt, the last one, which nothing was chosen by."
    )

    val_split: str | None = option(None, metavar="NAME", help="VOC list to validate on, with VOC's own masks")
    val_list: Path | None = option(None, metavar="FILE", help="image names, one per line, to validate on instead")
    val_masks: Path | None = option(
        None, metavar="DIR", help="their ground truth (default: VOC's; with --images, the folder of --masks)"
    )

    def open(self, data: DataOptions, trained: Sequence[str], rank: int) -> ImageDataset | None:
        """Open the images with their masks; None if there are none to validate on.

        Args:
            data: Choice of the images that are trained on.
            trained: Their ids.
            rank: Number of this process; the first one prints.

        Raises:
            InputError: They cannot be opened.
        """
        if self.val_split is None and self.val_list is None:
            if self.val_masks is not None:
                raise InputError("--val-masks: works only together with --val-split or --val-list")
            return None
        if self.val_split is not None and data.root is None:
            raise InputError("--val-split: works only together with --root; give --val-list")
        masks = self.val_masks or (data.masks if data.root is None else None)
        chosen = replace(data, split=self.val_split, list=self.val_list, masks=masks, limit=None)
        dataset = _with_masks(chosen.open(), rank)
        if rank == 0 and (shared := set(dataset.ids).intersection(trained)):
            print(f"{len(shared)} of {len(dataset)} validation images are trained on too")
        return dataset


@dataclass(frozen=True)
class Settings:
    """Settings of the command."""

    data: DataOptions = group()
    network: NetworkOptions = group()
    certainty: CertaintyOptions = group()
    online: OnlineOptions = group()
    training: StepOptions = group(momentum=0.9, weight_decay=5e-4)
    validation: SegmenterValidationOptions = group()
    run: TrainingRunOptions = group(out=Path("out/segment"))


def run(settings: Settings, rank: int = 0, processes: int = 1) -> int:
    """Train a segmentation network; return the exit code."""
    settings = replace(settings, training=settings.training.resolved(settings.network.defaults))
    data = _with_masks(settings.data.open(), rank)
    validation = settings.validation.open(settings.data, data.ids, rank)
    how = training_settings(settings.training, settings.run, steps=settings.training.steps)
    network = _network(settings, data, how, processes)
    weights = settings.certainty.open(data)
    crops = MaskedCrops(data, how.crop_size, settings.training.scale_range, network.fill.cpu(), how.seed, weights)

    def score() -> dict[str, float]:
        if validation is None:
            return {}
        result = validate_segmenter(network, validation, rank, processes)
        return {"val_miou": result.miou, "val_pixel_accuracy": result.pixel_accuracy}

    training_run = TrainingRun(
        settings.run.out,
        Training(network, crops, how, rank, processes, settings.online.labels(network, how)),
        training_record(settings, how, settings.data, crops, _files(validation)) | {"method": METHOD},
        data.class_names,
        measured=("val_miou", "val_pixel_accuracy"),
        after_unit=score,
        unit="check",
        unit_steps=settings.training.check_every,
        chosen_by="val_miou",
    )
    training_run.run(settings.run.resume, rank)
    if rank == 0:
        print_notes(data.notes.lines(), {})
        _summarize(training_run, len(data))
    return 0


def _files(validation: ImageDataset | None) -> list[FileSources]:
    """Return what the choice of the best network depends on."""
    return [] if validation is None else [partial(validation.sources, index) for index in range(len(validation))]


def _network(settings: Settings, data: ImageDataset, how: TrainingSettings, processes: int) -> Segmenter:
    """Return the network to train, on its device."""
    name = settings.network.network
    network = build_segmenter(name, len(data.class_names), settings.network.weights, how.seed)
    if network.uses_batch_statistics and min(how.batch_size, len(data)) < 2 * processes:
        raise InputError(f"--batch-size: {name} has BatchNorm and needs at least 2 images a process")
    return network.to(settings.run.choose_device())


def _summarize(run: TrainingRun, images: int) -> None:
    print(f"{images} images, {run.training.step} steps; the network is {run.out / CHECKPOINT_FILE}")
    if run.best is not None:
        print(
            f"{run.out / BEST_FILE} has the best mean IoU of all checks, {100 * run.best:.2f}, chosen by the ground "
            "truth of the validation images"
        )


def _with_masks(dataset: ImageDataset, rank: int) -> ImageDataset:
    """Return the images that have masks, having read all of these, and say which ones have none."""
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
