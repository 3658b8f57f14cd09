"""A session of labelling: what the page asks for, whatever tabs it comes from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

from torch import Tensor

from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.label.annotations import AnnotationFolder
from torch_svm_seg.label.labeller import InteractiveLabeller, Labelled
from torch_svm_seg.label.strokes import Stroke, draw_strokes, stroke_from_json

MOST_STROKES = 2000
"""Most strokes on an image."""


@dataclass(frozen=True)
class State:
    """The state of an image that the page shows.

    Attributes:
        size: Its height and width.
        strokes: The strokes on it.
        labelled: Its mask; None without strokes.
    """

    size: tuple[int, int]
    strokes: tuple[Stroke, ...]
    labelled: Labelled | None


class Session:
    """Changes annotations one request after the other, so that tabs on the same image cannot harm each other.

    A stroke is added, never replaces others; repeated, it counts once. An undo names the stroke that it takes away.

    Args:
        dataset: The images.
        annotations: The folder of what was labelled.
        labeller: Makes masks.
    """

    def __init__(self, dataset: ImageDataset, annotations: AnnotationFolder, labeller: InteractiveLabeller) -> None:
        self.dataset, self.annotations, self.labeller = dataset, annotations, labeller
        self._lock = Lock()
        self._sizes: dict[int, tuple[int, int]] = {}

    def overview(self) -> list[dict[str, Any]]:
        """Return all images, and which of them are labelled."""
        return [{"id": id, "labelled": self.annotations.is_labelled(id)} for id in self.dataset.ids]

    def image(self, index: int) -> Tensor:
        """Return an image, RGB uint8 (3, H, W).

        Raises:
            InputError: There is no such image, or it cannot be read.
        """
        return self.dataset.image(self._checked(index))

    def open(self, index: int) -> State:
        """Return the state of an image; its mask is written if that had not been done.

        Raises:
            InputError: There is no such image, or a file is damaged.
        """
        with self._lock:
            id, size, strokes = self._read(index)
            if not strokes:
                self.labeller.features.maps(index)  # while the user looks at the image
            write = not self.annotations.is_labelled(id)
            return self._labelled(index, size, strokes, write)

    def add(self, index: int, entry: Any) -> State:
        """Add a stroke to an image.

        Args:
            index: The image.
            entry: The stroke as the page sends it.

        Raises:
            InputError: There is no such image, the stroke is none, or there are too many.
        """
        stroke = stroke_from_json(entry, len(self.annotations.class_names))

        def added(strokes: list[Stroke]) -> list[Stroke]:
            known = any(other.key == stroke.key for other in strokes)
            return strokes if known else [*strokes, stroke]

        return self._change(index, added)

    def undo(self, index: int, key: Any) -> State:
        """Take a stroke away from an image, if it is there.

        Args:
            index: The image.
            key: Name of the stroke.
        """
        return self._change(index, lambda strokes: [stroke for stroke in strokes if stroke.key != key])

    def suggest(self, index: int) -> int:
        """Return the image to label next."""
        ids = self.dataset.ids
        order = [*range(index + 1, len(ids)), *range(index)]
        unlabelled = [other for other in order if not self.annotations.is_labelled(ids[other])]
        return unlabelled[0] if unlabelled else (index + 1) % len(ids)

    def _change(self, index: int, change: Callable[[list[Stroke]], list[Stroke]]) -> State:
        with self._lock:
            _, size, strokes = self._read(index)
            changed = change(strokes)
            if len(changed) > MOST_STROKES:
                raise InputError(f"stroke: more than {MOST_STROKES} on one image")
            return self._labelled(index, size, changed, write=changed != strokes)

    def _read(self, index: int) -> tuple[str, tuple[int, int], list[Stroke]]:
        id = self.dataset.ids[self._checked(index)]
        if index not in self._sizes:
            image = self.dataset.image(index)
            self._sizes[index] = (image.shape[1], image.shape[2])
        return id, self._sizes[index], self.annotations.read(id)

    def _labelled(self, index: int, size: tuple[int, int], strokes: Sequence[Stroke], write: bool) -> State:
        found = self.labeller(index, draw_strokes(strokes, size)) if strokes else None
        if write:
            mask = None if found is None else found.mask
            self.annotations.write(self.dataset.ids[index], strokes, size, mask)
        return State(size, tuple(strokes), found)

    def _checked(self, index: int) -> int:
        if not 0 <= index < len(self.dataset):
            raise InputError(f"image {index}: there are {len(self.dataset)}")
        return index
