"""Options of trainings."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, ClassVar

from torch_svm_seg.backbones.efficientnet_lite import VARIANTS
from torch_svm_seg.cli.options.data import DataOptions
from torch_svm_seg.cli.options.option import option, recorded
from torch_svm_seg.cli.options.run import TrainingRunOptions, seed_option
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.provenance import RunSettings, Source, digest_of
from torch_svm_seg.training.distributed import gathered, process_number, process_rank
from torch_svm_seg.training.trainable import Crops
from torch_svm_seg.training.trainer import OPTIMIZERS, TrainingSettings

FileSources = Callable[[], Iterable[Source]]
"""Returns the files, or texts that stand for them, that something is made from."""

CROP_SIZE, LITE_CROP_SIZE, _LARGEST_CROP = 512, 320, 4096


@dataclass(frozen=True)
class OptimizerOptions:
    """How the weights are updated."""

    title: ClassVar = "training"

    batch_size: int | None = option(16, metavar="B", at_least=1, help="images per step, over all processes together")
    learning_rate: float | None = option(
        0.1,
        metavar="R",
        help="of pretrained layers at the start; new layers have ten times as much; it decays to 0 with power 0.9",
    )
    optimizer: str = option(
        "sgd",
        choices=OPTIMIZERS,
        help="stochastic gradient descent, or AdamW, by which transformers are trained (default: %(default)s)",
    )
    momentum: float = option(
        0.0,
        metavar="M",
        at_least=0,
        help="momentum (default: %(default)s: the published code of IRN and SIPE sets none in effect, since it hands "
        "the weight decay to the momentum's place; with 0.9 take a tenth of the learning rate)",
    )
    weight_decay: float = option(1e-4, metavar="D", at_least=0, help="weight decay")
    crop_size: int | None = option(
        None,
        metavar="PIXELS",
        at_least=32,
        help="side of the square crops (default: 512, and 320 for efficientnet_lite, which trains on a CPU)",
    )
    seed: int = seed_option("of new layers, order and augmentation")


@dataclass(frozen=True)
class EpochOptions(OptimizerOptions):
    """A training by epochs."""

    epochs: int = option(5, metavar="N", at_least=1, help="passes over the images")


def crop_size_for(crop_size: int | None, backbone: str) -> int:
    """Return the side of the crops of a classifier or an IRNet: the one asked for, or what suits the backbone."""
    return crop_size or (LITE_CROP_SIZE if backbone in VARIANTS else CROP_SIZE)


def training_settings(
    training: OptimizerOptions, run: TrainingRunOptions, epochs: int | None = None, steps: int | None = None
) -> TrainingSettings:
    """Return how to train, for a number of epochs or of steps; what may be None in the options must be resolved.

    Raises:
        InputError: A value is out of its range.
    """
    names = ("optimizer", "batch_size", "learning_rate", "momentum", "weight_decay", "crop_size", "seed")
    chosen = {name: getattr(training, name) for name in names}
    if not chosen["learning_rate"] > 0 or training.momentum >= 1:
        raise InputError("--learning-rate and --momentum: expected a positive number, and one below 1")
    if chosen["crop_size"] > _LARGEST_CROP:
        raise InputError(f"--crop-size: expected at most {_LARGEST_CROP}, got {chosen['crop_size']}")
    return TrainingSettings(epochs=epochs, steps=steps, amp=run.amp, workers=run.workers, **chosen)


def training_record(
    command: Any, settings: TrainingSettings, data: DataOptions, crops: Crops, more: Sequence[FileSources] = ()
) -> RunSettings:
    """Return what a trained network depends on: a run continues only with the same.

    Args:
        command: Settings of the command.
        settings: How it trains.
        data: The command's choice of images, whose limit counts here.
        crops: What it trains on.
        more: Further files that its results depend on.
    """
    how = asdict(settings)
    del how["workers"]
    record = recorded(command) | how | {"limit": data.limit, "number": len(crops)}
    return with_files(record, [*(partial(crops.sources, index) for index in range(len(crops))), *more])


def with_files(record: RunSettings, sources: Sequence[FileSources]) -> RunSettings:
    """Return settings with a digest of the content of files, of which each process reads its share.

    A file that cannot be read is left to whoever needs it.
    """
    rank, processes = process_rank(), process_number()
    parts = gathered([_digest(each) for each in sources[rank::processes]])
    return record.with_new(
        "images_and_labels", digest_of(parts[index % processes][index // processes] for index in range(len(sources)))
    )


def _digest(sources: FileSources) -> str:
    try:
        return digest_of(sources())
    except InputError as error:
        return str(error)
