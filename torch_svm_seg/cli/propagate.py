"""train.py propagate: class activation maps refined by an IRNet."""

import argparse

from torch_svm_seg.cam.io import cam_path, save_cams
from torch_svm_seg.cli.options.data import add_data_arguments, open_dataset
from torch_svm_seg.cli.options.maps import add_map_arguments, open_maps
from torch_svm_seg.cli.options.run import add_overwrite_argument, add_run_arguments
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import digest
from torch_svm_seg.irn import load_irn
from torch_svm_seg.irn.refinement import refine_activation
from torch_svm_seg.pipeline.run_folder import folder_digest
from torch_svm_seg.pipeline.runner import for_each
from torch_svm_seg.training.distributed import choose_device

HELP = "refine class activation maps by an IRNet's random walk"
DESCRIPTION = (
    "Write refined maps to DIR/ID.npz, with a background of their own, for expand.py --cams DIR. The same "
    "command continues an interrupted run."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("--irn", required=True, metavar="FILE", help="checkpoint of train.py irn")
    add_data_arguments(parser)
    add_map_arguments(parser.add_argument_group("maps"), required=True)
    walk = parser.add_argument_group(
        "walk", "The defaults are SIPE's use of IRN; IRN's own is --exponent 1 --threshold 0.25."
    )
    walk.add_argument(
        "--exponent", type=float, default=1.5, metavar="E", help="of the maps before the walk (default: %(default)s)"
    )
    walk.add_argument(
        "--threshold",
        type=float,
        metavar="T",
        help="of the background after the walk, in parts of the largest value that a class has in the image (default: "
        "the background walks like a class)",
    )
    add_overwrite_argument(add_run_arguments(parser, "out/propagate"))


def run(args: argparse.Namespace, rank: int = 0, number: int = 1) -> int:
    """Write class activation maps refined by an IRNet; returns the exit code."""
    dataset = open_dataset(args)
    if not args.exponent > 0:
        raise InputError(f"--exponent: expected a positive number, got {args.exponent}")
    if args.threshold is not None and not 0 < args.threshold < 1:
        raise InputError(f"--threshold: expected more than 0 and less than 1, got {args.threshold}")
    refinement = load_irn(args.irn, exponent=args.exponent, threshold=args.threshold).to(choose_device(args.device))
    cams = open_maps(args)
    settings = {"irn": digest(args.irn), "cams": folder_digest(args.cams), "background": args.background}
    settings |= {"exponent": args.exponent, "threshold": args.threshold}

    def write(place: int) -> None:
        id, image, activation = cams.read(dataset, place)
        maps = refine_activation(refinement, image, activation)
        save_cams(cam_path(args.out, id), maps, dataset.class_names)

    paths = [cam_path(args.out, id) for id in dataset.ids]
    return for_each(dataset, write, paths, args.out, settings, args.overwrite, rank, number)
