"""train.py predict: masks of a trained segmentation network."""

import argparse
from pathlib import Path

from torch_svm_seg.cli.options.data import add_data_arguments, open_dataset
from torch_svm_seg.cli.options.refinement import add_refinement_arguments, open_refinement
from torch_svm_seg.cli.options.run import add_overwrite_argument, add_run_arguments
from torch_svm_seg.cli.options.scales import add_scales_argument, check_scales
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import digest, save_mask
from torch_svm_seg.evaluation.voc_archive import check_voc_archive, write_voc_archive
from torch_svm_seg.pipeline.runner import for_each
from torch_svm_seg.refine import refine
from torch_svm_seg.segmenters import class_probabilities, load_segmenter
from torch_svm_seg.training.distributed import choose_device

HELP = "write a trained segmentation network's masks"
DESCRIPTION = (
    "Write the masks of images to DIR/ID.png, as evaluate.py scores them. Image-level labels are "
    "never used. The same command continues an interrupted run."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("--checkpoint", required=True, metavar="FILE", help="of train.py segment")
    add_data_arguments(parser)
    masks = parser.add_argument_group("masks")
    usual = "usual for the best masks: 0.5 0.75 1 1.25 1.5 1.75 with --flip, 17 times the work"
    add_scales_argument(masks, [1.0], f"whose probabilities are averaged (default: 1; {usual})")
    masks.add_argument("--flip", action="store_true", help="average with the mirror image")
    masks.add_argument(
        "--refine",
        default="none",
        metavar="HOW",
        help="refinement of the probabilities: crf, pamr, par, irn, or several in a row, crf+pamr (default: none)",
    )
    add_refinement_arguments(masks, "deeplab", "")
    masks.add_argument(
        "--voc-archive",
        type=Path,
        metavar="FILE",
        help="also pack the masks for VOC's evaluation server, *.tar.gz, as comp6_SET_cls with --split's name",
    )
    add_overwrite_argument(add_run_arguments(parser, "out/predict"))


def run(args: argparse.Namespace, rank: int = 0, number: int = 1) -> int:
    """Write the masks of images; returns the exit code."""
    dataset = open_dataset(args)
    if args.voc_archive is not None:
        check_voc_archive(args.voc_archive, dataset.class_names)
    check_scales(args)
    device = choose_device(args.device)
    network = load_segmenter(args.checkpoint, dataset.class_names).to(device)
    steps = open_refinement(args, args.refine, device)
    settings = {"checkpoint": digest(args.checkpoint), "scales": args.scales, "flip": args.flip}
    settings |= {name: getattr(args, name) for name in ("refine", "crf")}
    settings |= {"irn_weights": digest(args.irn_weights), "image_level_labels": False}
    paths = [args.out / f"{id}.png" for id in dataset.ids]

    def write(place: int) -> None:
        image = dataset.image(place)
        probabilities = class_probabilities(network, image, args.scales, args.flip)
        if not probabilities.isfinite().all():
            raise InputError(f"{args.checkpoint}: gives probabilities that are not finite")
        refined = refine(steps, image[None].to(device), probabilities[None])[0]
        save_mask(paths[place], refined.argmax(0))

    code = for_each(dataset, write, paths, args.out, settings, args.overwrite, rank, number)
    if rank == 0:
        print("The masks are predicted without image-level labels.")
        if args.voc_archive is not None:
            image_set = Path(args.list).stem if args.list else args.split or "train"
            write_voc_archive(args.voc_archive, args.out, dataset.ids, image_set)
            print(f"{args.voc_archive}: packed for VOC's evaluation server")
    return code
