"""train.py cams: activation maps of a trained classifier, or of a segmentation network."""

import argparse
from collections.abc import Sequence

from torch import Tensor

from torch_svm_seg.cam.activation import SCALES, ActivationMaps, class_activation_maps
from torch_svm_seg.cam.checkpoints import load_classifier
from torch_svm_seg.cam.classifier import Classifier
from torch_svm_seg.cam.io import cam_path, save_cams
from torch_svm_seg.cli.options.data import add_data_arguments, add_label_arguments, open_labelled
from torch_svm_seg.cli.options.run import add_overwrite_argument, add_run_arguments
from torch_svm_seg.cli.options.scales import add_scales_argument, check_scales
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import digest
from torch_svm_seg.pipeline.runner import for_each
from torch_svm_seg.segmenters import Segmenter, load_segmenter, probability_maps
from torch_svm_seg.segmenters.builder import METHOD
from torch_svm_seg.training.checkpoints import read_checkpoint
from torch_svm_seg.training.distributed import choose_device

HELP = "write the activation maps of a classifier or a segmentation network"
DESCRIPTION = (
    "Write the class activation maps of images to DIR/ID.npz (torch_svm_seg/cam/io.py documents the format), of the "
    "classes that they are labelled with. Of a segmentation network, the maps are its probabilities among these "
    "classes and the background. The same command continues an interrupted run."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("--checkpoint", required=True, metavar="FILE", help="of train.py classify or segment")
    add_data_arguments(parser)
    add_label_arguments(parser)
    maps = parser.add_argument_group("maps")
    add_scales_argument(maps, SCALES, "whose maps are summed (default: 1 0.5 1.5 2; 1 alone is 7 times as fast)")
    maps.add_argument("--no-flip", action="store_true", help="do not average with the mirror image: twice as fast")
    add_overwrite_argument(add_run_arguments(parser, "out/cams"))


def run(args: argparse.Namespace, rank: int = 0, number: int = 1) -> int:
    """Write the class activation maps of images; returns the exit code."""
    check_scales(args)
    data = open_labelled(args, rank)
    class_names = data.dataset.class_names
    network = _load(args.checkpoint, class_names).to(choose_device(args.device))
    settings = {"checkpoint": digest(args.checkpoint), "scales": args.scales, "flip": not args.no_flip}
    settings |= {"labels": digest(args.labels)}

    def write(place: int) -> None:
        image, classes = data.dataset.image(place), data.classes(place)
        maps = _maps(network, image, classes, args.scales, not args.no_flip)
        if not all(found.isfinite().all() for found in (maps.maps, maps.background) if found is not None):
            raise InputError(f"{args.checkpoint}: gives activation that is not finite")
        save_cams(cam_path(args.out, data.dataset.ids[place]), maps, class_names)

    paths = [cam_path(args.out, id) for id in data.dataset.ids]
    return for_each(data.dataset, write, paths, args.out, settings, args.overwrite, rank, number)


def _load(path: str, class_names: Sequence[str]) -> Classifier | Segmenter:
    is_segmenter = read_checkpoint(path).settings.get("method") == METHOD
    return load_segmenter(path, class_names) if is_segmenter else load_classifier(path, class_names)


def _maps(
    network: Classifier | Segmenter, image: Tensor, classes: Sequence[int], scales: Sequence[float], flip: bool
) -> ActivationMaps:
    if isinstance(network, Segmenter):
        return probability_maps(network, image, classes, scales, flip)
    return class_activation_maps(network, image, classes, scales, flip)
