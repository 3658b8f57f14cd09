"""What a report is made of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch_svm_seg.cam.activation import ActivationMaps
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.evaluation.metrics import summarize
from torch_svm_seg.evaluation.scoring import FolderScore


@dataclass(frozen=True)
class Rung:
    """A step of the ladder: a folder of masks and its score.

    Attributes:
        name: what the page calls it.
        folder: where its masks lie, ``ID.png``.
        score: over the report's data set.
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
    """What a page is made of.

    Attributes:
        dataset: the images with their ground truth.
        described: what the data set is called.
        rungs: the ladder, in its order; at least one.
        chosen: the rung whose confusions and best, median and worst images are shown; one of ``rungs``.
        shown: how many images of each of these three kinds.
        read_cams: gives the class activation maps of an image and its size (height, width), or raises InputError.
        notes: sentences about the scores, such as what could not be scored.
    """

    dataset: ImageDataset
    described: str
    rungs: Sequence[Rung]
    chosen: Rung
    shown: int = 3
    read_cams: Callable[[str, tuple[int, int]], ActivationMaps] | None = None
    notes: Sequence[str] = ()
