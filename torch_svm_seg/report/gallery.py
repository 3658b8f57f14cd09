"""Content of the report's gallery: where the masks are best, typical and worst, with all steps side by side."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from torch_svm_seg.data.constants import VOID
from torch_svm_seg.data.io import read_mask
from torch_svm_seg.report.content import Report
from torch_svm_seg.report.figures import Figure, activation_figure, image_figure, mask_figure, samples_figure
from torch_svm_seg.report.settings import run_settings

MOST_COLUMNS = 7
"""Most figures side by side."""


@dataclass(frozen=True)
class GalleryImage:
    """An image with its masks.

    Attributes:
        id: Id of the image.
        miou: Score of the chosen step's mask, from 0 to 1.
        classes: Ids of the classes in its ground truth.
        figures: Its figures from left to right.
    """

    id: str
    miou: float
    classes: list[int]
    figures: list[Figure]

    @property
    def columns(self) -> int:
        """Number of figures side by side, so that all rows are of one length."""
        return math.ceil(len(self.figures) / math.ceil(len(self.figures) / MOST_COLUMNS))


def gallery(report: Report) -> dict[str, list[GalleryImage]]:
    """Return the best, median and worst images of the chosen step, by these words."""
    chosen = choose(report.chosen.score.per_image, report.shown)
    indices = {id: index for index, id in enumerate(report.dataset.ids)}
    return {kind: [_gallery_image(report, indices[id]) for id in ids] for kind, ids in chosen.items() if ids}


def choose(per_image: Mapping[str, float], count: int) -> dict[str, list[str]]:
    """Return the ids of the images that were labelled best, worst, and in the middle.

    Args:
        per_image: Id -> score; those with NaN are passed over.
        count: Number of each, at most; fewer if there are not that many different ones.

    Returns:
        "best", "median" and "worst" -> ids, the better first, equal ones by their names; only "best" if there are less
        than three images.

    Examples:
        >>> choose({"a": 0.1, "b": 0.9, "c": 0.5, "d": 0.7}, count=1)
        {'best': ['b'], 'median': ['d'], 'worst': ['a']}
    """
    ranked = sorted((id for id in per_image if not math.isnan(per_image[id])), key=lambda id: (-per_image[id], id))
    if len(ranked) < 3:
        return {"best": ranked[:count]}
    count = min(count, len(ranked) // 3)
    middle = (len(ranked) - count) // 2
    return {
        "best": ranked[:count],
        "median": ranked[middle : middle + count],
        "worst": ranked[len(ranked) - count :],
    }


def _gallery_image(report: Report, index: int) -> GalleryImage:
    id, image, truth = report.dataset.ids[index], report.dataset.image(index), report.dataset.mask(index)
    classes = [number for number in truth.unique().tolist() if number != VOID]
    return GalleryImage(id, report.chosen.score.per_image[id], classes, _figures(report, id, image, truth))


def _figures(report: Report, id: str, image: Tensor, truth: Tensor) -> list[Figure]:
    """Return all that is known about an image, from left to right."""
    names = report.dataset.class_names
    shown = [image_figure(image), mask_figure("ground truth", lambda: truth, names)]
    if report.read_cams is not None:
        size = (image.shape[1], image.shape[2])
        shown.append(activation_figure("CAM", image, partial(report.read_cams, id, size), names))
    if samples := samples_figure(image, truth, run_settings(report.chosen.folder)):
        shown.append(samples)
    for step in report.steps:
        read = partial(read_mask, step.folder / f"{id}.png")
        shown.append(mask_figure(step.name, read, names, step.score.per_image.get(id)))
    return shown
