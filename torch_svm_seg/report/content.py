"""Content of a report, and its figures in words."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch_svm_seg.cam.activation import ActivationMaps
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.evaluation.metrics import summarize
from torch_svm_seg.evaluation.scoring import FolderScore

NO_VALUE = "-"
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Step:
    """A step of the pipeline: a folder of masks and its score.

    Attributes:
        name: Name of the step on the page.
        folder: Folder of its masks, ``ID.png``.
        score: Score over the report's data set.
    """

    name: str
    folder: Path
    score: FolderScore

    @property
    def pixel_accuracy(self) -> float:
        """Share of the labelled pixels that are right, from 0 to 1."""
        return summarize(self.score.confusion).pixel_accuracy

    @property
    def unsure(self) -> float:
        """Share of the labelled pixels that are predicted as 255, from 0 to 1."""
        counts = self.score.confusion
        return float(counts[:, -1].sum().double() / counts.sum().double())


@dataclass(frozen=True)
class Report:
    """Content of a page.

    Attributes:
        dataset: The images with their ground truth.
        described: Name of the data set on the page.
        steps: The steps in their order; at least one.
        chosen: Step whose confusions and best, median and worst images are shown; one of ``steps``.
        shown: Number of images of each of these three kinds.
        read_cams: Function that returns the class activation maps of an image, given its id and size (height, width),
            or raises InputError.
        notes: Sentences about the scores, such as which images could not be scored.
    """

    dataset: ImageDataset
    described: str
    steps: Sequence[Step]
    chosen: Step
    shown: int = 3
    read_cams: Callable[[str, tuple[int, int]], ActivationMaps] | None = None
    notes: Sequence[str] = ()

    @property
    def comparable(self) -> bool:
        """Whether all steps were scored on the same images."""
        return len({tuple(sorted(step.score.per_image)) for step in self.steps}) == 1


def percent(value: float) -> str:
    """Return a share from 0 to 1 in percent; NaN is a dash.

    Examples:
        >>> percent(0.12345), percent(float("nan"))
        ('12.35', '-')
    """
    return NO_VALUE if math.isnan(value) else f"{100 * value:.2f}"


def gain(value: float, before: float) -> str:
    """Return the difference of two shares in points of percent, with its sign.

    Examples:
        >>> gain(0.5, 0.25)
        '+25.00'
    """
    points = 100 * (value - before)
    return NO_VALUE if math.isnan(points) else f"{points:+.2f}".replace("-", MINUS)
