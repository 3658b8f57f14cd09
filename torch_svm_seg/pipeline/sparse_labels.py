"""A few labelled pixels or boxes as supervision: clicks, scribbles, and boxes around objects.

Images without any annotation, or with one that was made for another size, are skipped by name. Clicks outside of the
image, and clicks of different classes at one pixel, are left out and noted. Where the first class is the background and
an image has no label of it, the half of its border that is furthest from all labels is taken for background, as a note
in the run's summary says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from torch_svm_seg.data.boxes import Box, box_classes
from torch_svm_seg.data.constants import VOID
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import size_text
from torch_svm_seg.data.points import DrawnPoints, ImagePoints, draw_points
from torch_svm_seg.data.provenance import Source
from torch_svm_seg.data.scribbles import read_scribbles
from torch_svm_seg.pipeline.supervision import Supervised

BACKGROUND = "background"
NO_BACKGROUND = "no label of the background: the half of the border furthest from all labels was taken for it"


@dataclass
class PointLabels:
    """Labels are discs around clicks.

    Attributes:
        points: Points by image id.
        radius: Of the discs, in pixels.
    """

    points: Mapping[str, ImagePoints]
    radius: float = 2.0

    def read(self, dataset: ImageDataset, index: int) -> Supervised:
        """Read an image with its points."""
        id, image = dataset.ids[index], dataset.image(index)
        given, size = self._of(id), (image.shape[1], image.shape[2])
        if given.size not in (None, size):
            assert given.size is not None
            turned = "; it is turned by its EXIF tag, see --exif" if given.size == size[::-1] else ""
            raise InputError(
                f"{id}: points were set on {size_text(given.size)} pixels, the image has {size_text(size)}{turned}"
            )
        drawn = draw_points(given.points, size, self.radius)
        _note_left_out(dataset, id, drawn)
        return _supervised(dataset, id, image, drawn.labels, drawn.certainty)

    def sources(self, dataset: ImageDataset, index: int) -> tuple[Source, ...]:
        """Return the image and its points."""
        return (*dataset.image_sources(index), repr(self.points.get(dataset.ids[index])))

    def _of(self, id: str) -> ImagePoints:
        if id not in self.points or not self.points[id].points:
            raise InputError(f"{id}: has no points")
        return self.points[id]


@dataclass
class ScribbleLabels:
    """Labels are the pixels of scribbles.

    Attributes:
        folder: Folder of ``ID.png`` or ``ID.xml``.
        width: Of the lines of XML, in pixels.
    """

    folder: Path
    width: int = 3

    def read(self, dataset: ImageDataset, index: int) -> Supervised:
        """Read an image with its scribbles."""
        id, image = dataset.ids[index], dataset.image(index)
        size = (image.shape[1], image.shape[2])
        labels = read_scribbles(self.folder, id, size, dataset.class_names, self.width)
        return _supervised(dataset, id, image, labels.long(), None)

    def sources(self, dataset: ImageDataset, index: int) -> tuple[Source, ...]:
        """Return the image and its scribbles."""
        files = [self.folder / f"{dataset.ids[index]}{suffix}" for suffix in (".png", ".xml")]
        return (*dataset.image_sources(index), *filter(Path.is_file, files))


@dataclass
class BoxLabels:
    """Supervision by boxes: outside of all of them is background, inside is one of their classes or background.

    The activation of a class is -inf where no box of it is, and the larger the smaller the box is; that of the
    background is 0. Its largest therefore is the class of the smallest box around a pixel.

    Attributes:
        boxes: Boxes by image id.
    """

    boxes: Mapping[str, Sequence[Box]]

    def read(self, dataset: ImageDataset, index: int) -> Supervised:
        """Read an image with the activation of its boxes."""
        id, image = dataset.ids[index], dataset.image(index)
        if id not in self.boxes:
            raise InputError(f"{id}: has no boxes")
        boxes = self.boxes[id]
        classes = (0, *sorted({box.class_id for box in boxes} - {0}))
        activation = box_activation(boxes, (image.shape[1], image.shape[2]), classes)
        return Supervised(id, image, activation, classes, dataset.notes.of(id))

    def sources(self, dataset: ImageDataset, index: int) -> tuple[Source, ...]:
        """Return the image and its boxes."""
        return (*dataset.image_sources(index), repr(self.boxes.get(dataset.ids[index])))


def box_activation(boxes: Sequence[Box], size: tuple[int, int], classes: Sequence[int]) -> Tensor:
    """Return the activation of classes, the background first, by boxes, (n, H, W): -inf where none of a class is.

    Examples:
        >>> box_activation([Box(0, 0, 2, 1, 8)], (1, 3), (0, 8)).tolist()
        [[[0.0, 0.0, 0.0]], [[0.5, 0.5, -inf]]]
    """
    activation = torch.full((len(classes), *size), -torch.inf)
    activation[0] = 0
    for box in boxes:
        if box.class_id == 0:
            continue
        area = (box.right - box.left) * (box.bottom - box.top)
        inside = box_classes([box], size, box.class_id + 1)[box.class_id]
        plane = activation[list(classes).index(box.class_id)]
        plane[inside] = plane[inside].clamp_min(1 / area)
    return activation


def border_far_from(labels: Tensor) -> Tensor:
    """Return the half of an image's border that is furthest from the labelled pixels, bool (H, W).

    Args:
        labels: Class ids (H, W), 255 where there is none.

    Examples:
        >>> border_far_from(torch.tensor([[1, 255, 255, 255]])).tolist()
        [[False, False, True, True]]
    """
    border = torch.ones_like(labels, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    border &= labels == VOID
    positions = border.nonzero()
    distances = torch.cdist(positions.float(), (labels != VOID).nonzero().float()).amin(1)
    furthest = positions[distances.argsort(descending=True, stable=True)[: (len(positions) + 1) // 2]]
    chosen = torch.zeros_like(border)
    chosen[furthest[:, 0], furthest[:, 1]] = True
    return chosen


def _supervised(dataset: ImageDataset, id: str, image: Tensor, labels: Tensor, certainty: Tensor | None) -> Supervised:
    """Return an image with its labels, and with some of the background where there are none of it.

    Raises:
        InputError: No pixel is labelled.
    """
    if bool((labels == VOID).all()):
        raise InputError(f"{id}: none of its pixels is labelled")
    if dataset.class_names[0] == BACKGROUND and not bool((labels == 0).any()):
        far = border_far_from(labels)
        labels = labels.masked_fill(far, 0)
        certainty = None if certainty is None else certainty.masked_fill(far, 1.0)
        dataset.notes.about(id, NO_BACKGROUND)
    return Supervised(id, image, labels, notes=dataset.notes.of(id), certainty=certainty)


def _note_left_out(dataset: ImageDataset, id: str, drawn: DrawnPoints) -> None:
    note = partial(dataset.notes.about, id)
    if drawn.outside:
        note("points outside of the image were left out")
    if drawn.contradicted:
        note("points of different classes at one pixel were left out")
