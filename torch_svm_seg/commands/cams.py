"""train.py cams: class activation maps of a trained classifier."""

import argparse

from torch_svm_seg.arguments.data import add_data_arguments, add_label_arguments, open_labelled
from torch_svm_seg.arguments.run import add_overwrite_argument, add_run_arguments
from torch_svm_seg.arguments.scales import add_scales_argument, check_scales
from torch_svm_seg.cam import SCALES, class_activation_maps
from torch_svm_seg.cam_files import cam_path, save_cams
from torch_svm_seg.classifier_checkpoints import load_classifier
from torch_svm_seg.commands.running import for_each
from torch_svm_seg.distributed import choose_device
from torch_svm_seg.files import digest

HELP = "write a trained classifier's class activation maps"
DESCRIPTION = (
    "Write the class activation maps of images to DIR/ID.npz (torch_svm_seg/cam_files.py documents "
    "the format). The same command continues an interrupted run."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("--checkpoint", required=True, metavar="FILE", help="of train.py classify")
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
    class_names = data.photographs.class_names
    network = load_classifier(args.checkpoint, class_names).to(choose_device(args.device))
    settings = {"checkpoint": digest(args.checkpoint), "scales": args.scales, "flip": not args.no_flip}
    settings |= {"labels": digest(args.labels)}

    def write(place: int) -> None:
        image, classes = data.photographs.image(place), data.classes(place)
        maps = class_activation_maps(network, image, classes, args.scales, not args.no_flip)
        save_cams(cam_path(args.out, data.photographs.ids[place]), maps, class_names)

    paths = [cam_path(args.out, id) for id in data.photographs.ids]
    return for_each(data.photographs, write, paths, args.out, settings, args.overwrite, rank, number)
