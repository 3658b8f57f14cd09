"""Options of expansion from a few labelled pixels, or from boxes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from torch_svm_seg.cli.options.backbone import DEFAULT_BACKBONE
from torch_svm_seg.cli.options.features import FeatureOptions
from torch_svm_seg.cli.options.option import changed_flags, flag, option
from torch_svm_seg.cli.options.svm import SampleOptions, SVMOptions
from torch_svm_seg.data.boxes import read_boxes
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.lists import read_list
from torch_svm_seg.data.points import read_points
from torch_svm_seg.pipeline.fit_on import FitOnImages
from torch_svm_seg.pipeline.sparse_labels import BoxLabels, PointLabels, ScribbleLabels
from torch_svm_seg.pipeline.supervision import Supervision
from torch_svm_seg.pixel_classifier.other_images import OtherImages, load_other_images
from torch_svm_seg.training.checkpoints import read_checkpoint, setting

SPARSE_LABELS = ("points", "scribbles", "boxes")
"""Values of ``--supervision`` that these options belong to; each is also the flag of its files."""

LABELLED = SPARSE_LABELS[:2]
"""Those of them that label pixels."""

GROUND_TRUTH = "ground-truth"
"""The supervision by masks, which label pixels too."""


@dataclass(frozen=True)
class OtherImageOptions:
    """The labels of other images."""

    title: ClassVar = "other images"

    pixels: Path | None = option(
        None,
        metavar="FILE",
        content=True,
        help="checkpoint of train.py pixels --points or --scribbles: each image gets a classifier of its own labels "
        "and those of all images, in place of an SVM, with the networks and stages of the checkpoint",
    )

    def check(self, supervision: str, features: FeatureOptions, samples: SampleOptions, svm: SVMOptions) -> None:
        """Raise InputError where these labels help no such supervision, or another network or an SVM is asked for."""
        if self.pixels is None:
            return
        if supervision not in LABELLED:
            raise InputError(f"--pixels: only with --supervision {' or '.join(LABELLED)}")
        named = ["--backbone"] if features.backbone else []
        networks = replace(features, backbone=DEFAULT_BACKBONE)
        given = [*named, *changed_flags(networks), *changed_flags(svm), *changed_flags(samples)]
        if wrong := [name for name in given if name != "--supervision"]:
            raise InputError(f"{wrong[0]}: not with --pixels, whose networks, stages and classifier are used")

    @property
    def features(self) -> str:
        """The stages of the classifier.

        Raises:
            InputError: The checkpoint cannot be read.
        """
        assert self.pixels is not None
        return setting(self.pixels, read_checkpoint(self.pixels), "features")

    def open(self, class_names: Sequence[str]) -> OtherImages | None:
        """Open the checkpoint, if there is one.

        Raises:
            InputError: It cannot be read, or is of other classes.
        """
        return None if self.pixels is None else load_other_images(self.pixels, class_names)


@dataclass(frozen=True)
class FitOnOptions:
    """One SVM for all images."""

    title: ClassVar = "one SVM for all images"

    fit_on: Path | None = option(
        None,
        metavar="FILE",
        content=True,
        help="image names, one per line: one SVM is fitted to the labelled pixels of these images together and labels "
        "all images of the run, which need no labels; for images that look alike: microscopy, video, tiles",
    )

    def check(self, supervision: str, pixels: Path | None) -> None:
        """Raise InputError where labels are not of pixels, or other images' labels help in another way already."""
        if self.fit_on is None:
            return
        if supervision not in (GROUND_TRUTH, *LABELLED):
            raise InputError(f"--fit-on: only with --supervision {', '.join((GROUND_TRUTH, *LABELLED))}")
        if pixels is not None:
            raise InputError("--fit-on and --pixels: give one of them")

    def open(self, dataset: ImageDataset, supervision: Supervision) -> FitOnImages | None:
        """Open the images to fit to, if there are any.

        Raises:
            InputError: The list cannot be read, or names none of the data set's images.
        """
        if self.fit_on is None:
            return None
        flat = not any("/" in id for id in dataset.all_ids)
        ids, notes = read_list(self.fit_on, set(dataset.all_ids).__contains__, flat)
        for note in notes:
            dataset.notes.about_all(note)
        return FitOnImages(dataset.named(ids, f"--fit-on: {self.fit_on}"), supervision)


@dataclass(frozen=True)
class SparseOptions:
    """Points, scribbles or boxes."""

    title: ClassVar = "points, scribbles, boxes"
    description: ClassVar = "For --supervision points, scribbles or boxes."

    points: Path | None = option(
        None, metavar="FILE", content=True, help="clicks by image, .json or .csv: x, y, class, and certainty if known"
    )
    radius: float = option(2.0, metavar="R", help="pixels around a point that have its label too")
    scribbles: Path | None = option(
        None, metavar="DIR", content=True, help="ID.png, 255 off the scribbles, or ID.xml of ScribbleSup"
    )
    scribble_width: int = option(3, metavar="N", at_least=1, help="width of the lines of ID.xml, in pixels")
    boxes: Path | None = option(
        None, metavar="PATH", content=True, help="folder of VOC's ID.xml, or a .json of COCO's instances"
    )
    box_rounds: int = option(
        3, metavar="N", at_least=1, help="SVMs in a row, each trained on the last one's masks in the boxes"
    )

    @property
    def given(self) -> tuple[str, ...]:
        """The forms whose files are given."""
        return tuple(name for name in SPARSE_LABELS if getattr(self, name) is not None)

    def check(self, supervision: str) -> None:
        """Raise InputError unless the files of the supervision, and no others, are given."""
        for name in SPARSE_LABELS:
            given = getattr(self, name) is not None
            if given != (name == supervision):
                raise InputError(
                    f"{flag(name)}: only with --supervision {name}"
                    if given
                    else f"--supervision {name}: needs {flag(name)}"
                )
        if not 0 <= self.radius <= 1000:
            raise InputError(f"--radius: expected 0 to 1000 pixels, got {self.radius}")

    def open(self, dataset: ImageDataset) -> Supervision:
        """Open what is given.

        Raises:
            InputError: A file is missing or damaged.
        """
        if self.points is not None:
            return PointLabels(read_points(self.points, dataset.class_names), self.radius)
        if self.scribbles is not None:
            if not self.scribbles.is_dir():
                raise InputError(f"--scribbles: {self.scribbles}: not a folder")
            return ScribbleLabels(self.scribbles, self.scribble_width)
        assert self.boxes is not None
        if not self.boxes.exists():
            raise InputError(f"--boxes: {self.boxes}: no such file or folder")
        return BoxLabels(read_boxes(self.boxes, dataset.ids, dataset.class_names))
