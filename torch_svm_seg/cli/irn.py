"""train.py irn: boundaries learned from sure labels."""

import argparse
from pathlib import Path

from torch_svm_seg.backbones.builder import load_backbone
from torch_svm_seg.cli.options.backbone import add_backbone_arguments
from torch_svm_seg.cli.options.data import add_data_arguments, open_dataset
from torch_svm_seg.cli.options.maps import add_map_arguments, open_maps
from torch_svm_seg.cli.options.run import add_run_arguments
from torch_svm_seg.cli.options.training import (
    add_training_arguments,
    add_training_run_arguments,
    crop_size_of,
    run_settings,
    training_settings,
)
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import save_mask
from torch_svm_seg.irn import IRNet
from torch_svm_seg.irn.training import METHOD as IRN_METHOD
from torch_svm_seg.irn.training import SureCrops, centre_displacements, label_by_activation, label_path
from torch_svm_seg.pipeline.run_folder import folder_digest
from torch_svm_seg.pipeline.runner import for_each, train
from torch_svm_seg.training.distributed import choose_device
from torch_svm_seg.training.run import CHECKPOINT_FILE, TrainingRun, refuse_to_restart
from torch_svm_seg.training.trainer import Training

HELP = "train an IRNet: where class boundaries are"
DESCRIPTION = (
    "Label the pixels that class activation maps are sure of, DIR/labels/ID.png, and learn class "
    "boundaries from them (Ahn et al., CVPR 2019). Writes DIR/checkpoint.pt after each epoch, DIR/steps.csv "
    "and DIR/epochs.csv."
)

IRN_CROP_MULTIPLE = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    add_data_arguments(parser)
    labels = parser.add_argument_group("sure labels")
    add_map_arguments(labels)
    labels.add_argument(
        "--background-factor",
        type=float,
        default=0.5,
        metavar="F",
        help="a pixel is sure if it keeps its label when the background is F times as strong (default: %(default)s, "
        "SIPE's; IRN's is constant:0.3 with 0.167)",
    )
    labels.add_argument(
        "--sure-labels",
        type=Path,
        metavar="DIR",
        help="train on DIR/ID.png instead, such as pseudo masks: class ids, 255 where not sure",
    )
    add_backbone_arguments(parser.add_argument_group("network"))
    add_training_arguments(
        parser,
        "The defaults are IRN's for train_aug, 990 steps; few images want smaller batches or more epochs.",
        epochs=3,
        batch_size=32,
        rate="of the boundary branch at the start; the displacement branch has ten times as much",
        crop="an image's longest side becomes 0.5 to 1.5 times as long",
    )
    add_training_run_arguments(add_run_arguments(parser, "out/irn"))


def run(args: argparse.Namespace, rank: int = 0, number: int = 1) -> int:
    """Label what is sure, and train an IRNet on it; returns the exit code."""
    if (args.cams is None) == (args.sure_labels is None):
        raise InputError("--cams and --sure-labels: give one of them, maps to label by or labels")
    refuse_to_restart(args.out, args.resume)
    dataset = open_dataset(args)
    settings = training_settings(args, crop_size_of(args), args.epochs)
    if settings.crop_size % IRN_CROP_MULTIPLE:
        raise InputError(f"--crop-size: expected a multiple of {IRN_CROP_MULTIPLE}, got {settings.crop_size}")
    backbone = load_backbone(args.backbone, args.weights)
    network = IRNet(backbone, args.seed).to(choose_device(args.device))
    folder, code = args.sure_labels, 0
    if folder is None:
        folder = args.out / "labels"
        code = _write_sure_labels(args, dataset, folder, rank, number)
    dataset = dataset.subset([place for place, id in enumerate(dataset.ids) if label_path(folder, id).is_file()])
    if not len(dataset):
        raise InputError(f"{folder}: no image has sure labels, ID.png")
    crops = SureCrops(dataset, folder, settings.crop_size, backbone.mean.cpu(), settings.seed)
    training = Training(network, crops, settings, rank, number)
    labels = {"sure_labels": None if args.sure_labels is None else str(args.sure_labels), "method": IRN_METHOD}
    label_flags = ("cams", "background", "background_factor", "backbone", "weights")
    record = labels | run_settings(args, label_flags, settings, len(dataset))

    def centre() -> dict[str, float]:
        if training.finished:
            centre_displacements(network, crops, rank, number)
        return {}

    train(TrainingRun(args.out, training, record, (), (), centre), args.resume, rank)
    if rank == 0:
        print(f"{len(dataset)} images, {training.step} steps; the network is {args.out / CHECKPOINT_FILE}")
    return code


def _write_sure_labels(args: argparse.Namespace, dataset: ImageDataset, folder: Path, rank: int, number: int) -> int:
    cams, device = open_maps(args), choose_device(args.device)
    if not 0 <= args.background_factor <= 1:
        raise InputError(f"--background-factor: expected 0 to 1, got {args.background_factor}")
    settings = {"cams": folder_digest(args.cams)}
    settings |= {name: getattr(args, name) for name in ("background", "background_factor")}

    def write(place: int) -> None:
        id, image, activation = cams.read(dataset, place)
        labels = label_by_activation(image.to(device), activation.to(device), args.background_factor)
        save_mask(label_path(folder, id), labels.cpu())

    paths = [label_path(folder, id) for id in dataset.ids]
    return for_each(dataset, write, paths, folder, settings, not args.resume, rank, number)
