"""train.py irn: boundaries learned from sure labels."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

from torch_svm_seg.cli.options.backbone import BackboneOptions
from torch_svm_seg.cli.options.data import DataOptions, LabelOptions
from torch_svm_seg.cli.options.maps import MapOptions
from torch_svm_seg.cli.options.option import group, option, recorded
from torch_svm_seg.cli.options.run import TrainingRunOptions
from torch_svm_seg.cli.options.training import EpochOptions, crop_size_for, training_record, training_settings
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import save_mask
from torch_svm_seg.irn import IRNet
from torch_svm_seg.irn.training import METHOD, SureCrops, label_by_activation, label_path
from torch_svm_seg.pipeline.image_run import ImageRun
from torch_svm_seg.pipeline.run_folder import print_notes
from torch_svm_seg.training.run import CHECKPOINT_FILE, TrainingRun, refuse_to_restart
from torch_svm_seg.training.trainer import Training

HELP = "train an IRNet: where class boundaries are"
DESCRIPTION = (
    "Label the pixels that class activation maps are sure of, DIR/labels/ID.png, and learn class "
    "boundaries from them (Ahn et al., CVPR 2019). Writes DIR/checkpoint.pt after each epoch, DIR/steps.csv "
    "and DIR/epochs.csv."
)

CROP_MULTIPLE = 32


@dataclass(frozen=True)
class SureLabelOptions(MapOptions):
    """The labels that boundaries are learned from."""

    title: ClassVar = "sure labels"

    background_factor: float = option(
        0.5,
        metavar="F",
        help="a pixel is sure if it keeps its label when the background is F times as strong (default: 0.5, SIPE's; "
        "IRN's is constant:0.3 with 0.167)",
    )
    sure_labels: Path | None = option(
        None,
        metavar="DIR",
        content=True,
        help="train on DIR/ID.png instead, such as pseudo masks: class ids, 255 where not sure",
    )

    def check(self) -> None:
        """Raise InputError unless there is one source of labels."""
        if (self.cams is None) == (self.sure_labels is None):
            raise InputError("--cams and --sure-labels: give one of them, maps to label by or labels")
        if not 0 <= self.background_factor <= 1:
            raise InputError(f"--background-factor: expected 0 to 1, got {self.background_factor}")


@dataclass(frozen=True)
class Settings:
    """Settings of the command."""

    data: DataOptions = group()
    labels: SureLabelOptions = group()
    image_labels: LabelOptions = group()
    network: BackboneOptions = group()
    training: EpochOptions = group(
        description="The defaults are IRN's for train_aug, 990 steps; few images want smaller batches or more epochs. "
        "An image's longest side becomes 0.5 to 1.5 times as long as a crop's.",
        epochs=3,
        batch_size=32,
    )
    run: TrainingRunOptions = group(out=Path("out/irn"))


def run(settings: Settings, rank: int = 0, processes: int = 1) -> int:
    """Label what is sure, and train an IRNet on it; return the exit code."""
    settings.labels.check()
    out, resume = settings.run.out, settings.run.resume
    refuse_to_restart(out, resume)
    dataset = settings.data.open()
    crop_size = crop_size_for(settings.training.crop_size, settings.network.backbone)
    how = training_settings(replace(settings.training, crop_size=crop_size), settings.run, settings.training.epochs)
    if crop_size % CROP_MULTIPLE:
        raise InputError(f"--crop-size: expected a multiple of {CROP_MULTIPLE}, got {crop_size}")
    backbone = settings.network.load()
    network = IRNet(backbone, how.seed).to(settings.run.choose_device())
    folder, code = settings.labels.sure_labels, 0
    if folder is None:
        folder = out / "labels"
        code = _write_sure_labels(settings, dataset, folder, rank, processes)
    dataset = dataset.subset([index for index, id in enumerate(dataset.ids) if label_path(folder, id).is_file()])
    if not len(dataset):
        raise InputError(f"{folder}: no image has sure labels, ID.png")
    crops = SureCrops(dataset, folder, crop_size, backbone.mean.cpu(), how.seed)
    training = Training(network, crops, how, rank, processes)
    record = training_record(settings, how, settings.data, crops) | {"method": METHOD}
    TrainingRun(out, training, record).run(resume, rank)
    if rank == 0:
        print_notes(dataset.notes.lines(), {})
        print(f"{len(dataset)} images, {training.step} steps; the network is {out / CHECKPOINT_FILE}")
    return code


def _write_sure_labels(settings: Settings, dataset: ImageDataset, folder: Path, rank: int, processes: int) -> int:
    cams, device = settings.labels.open(settings.data, settings.image_labels, dataset), settings.run.choose_device()
    paths = [label_path(folder, id) for id in dataset.ids]

    def write(index: int) -> None:
        seed = cams.read(dataset, index)
        image, activation = seed.image.to(device), seed.known.to(device)
        labels = label_by_activation(image, activation, settings.labels.background_factor)
        save_mask(paths[index], seed.class_ids(labels).cpu())

    record, overwrite = recorded(settings.labels), not settings.run.resume
    image_run = ImageRun(dataset, folder, record, overwrite, rank, processes)
    return image_run.write_each(paths, write, partial(cams.sources, dataset))
