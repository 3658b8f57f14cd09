"""Scoring a folder of predicted masks against a data set's ground truth."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from torch_svm_seg.datasets import PhotographDataset
from torch_svm_seg.files import InputError, read_mask
from torch_svm_seg.metrics import confusion_matrix, summarize


@dataclass(frozen=True)
class FolderScore:
    """The IoUs of a folder of predictions, and what could not be scored.

    Missing and bad predictions are left out of the IoUs: neither right nor wrong. A score is only comparable with
    another one if both are ``complete``.

    Attributes:
        per_class: IoU of each class from 0 to 1, float64 (classes,); NaN for a class with an empty union.
        miou: mean of the IoUs that are not NaN; NaN if nothing was scored.
        images: number of predictions scored.
        missing: photographs of the data set without a prediction.
        extra: predictions whose name is no photograph of the data set; not scored, and harmless.
        problems: photograph -> why its prediction could not be scored.
    """

    per_class: Tensor
    miou: float
    images: int
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    problems: dict[str, str]

    @property
    def complete(self) -> bool:
        """Whether every photograph of the data set was scored."""
        return not self.missing and not self.problems


def score_folder(
    dataset: PhotographDataset,
    folder: str | Path,
    on_image: Callable[[], object] | None = None,
    scored: Callable[[Tensor], Tensor] | None = None,
) -> FolderScore:
    """Score ``folder/ID.png`` for each photograph of a data set.

    Args:
        dataset: the photographs with their ground truth.
        folder: index PNGs of class ids, 255 for "unsure" (see ``torch_svm_seg.metrics``).
        on_image: called after each photograph, for a progress bar.
        scored: gives of a ground truth (H, W) the part to score, with 255 elsewhere; by default all of it.

    Raises:
        InputError: ``folder`` is not a folder, or a ground-truth mask cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: not a folder")
    num_classes = len(dataset.class_names)
    confusion = torch.zeros(num_classes, num_classes + 1, dtype=torch.long)
    missing = []
    problems = {}

    def count(index: int) -> Tensor | str | None:
        return _count(dataset, index, folder / f"{dataset.ids[index]}.png", scored)

    # Reading a PNG is most of the work, and frees the interpreter lock. The threads hand back counts, not masks, so
    # that memory does not grow with the data set.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for id, counted in zip(dataset.ids, pool.map(count, range(len(dataset))), strict=True):
            if counted is None:
                missing.append(id)
            elif isinstance(counted, str):
                problems[id] = counted
            else:
                confusion += counted
            if on_image:
                on_image()
    found = {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.png")}
    result = summarize(confusion)
    return FolderScore(
        per_class=result.per_class,
        miou=result.miou,
        images=len(dataset) - len(missing) - len(problems),
        missing=tuple(missing),
        extra=tuple(sorted(found.difference(dataset.ids))),
        problems=problems,
    )


def _count(
    dataset: PhotographDataset, index: int, path: Path, scored: Callable[[Tensor], Tensor] | None
) -> Tensor | str | None:
    """The confusion matrix of one prediction, why there is none, or None where there is no prediction."""
    if not path.is_file():
        return None
    target = dataset.mask(index)  # outside of the try: broken ground truth is no fault of the prediction
    target = target if scored is None else scored(target)
    try:
        return confusion_matrix(read_mask(path), target, len(dataset.class_names))
    except ValueError as error:  # an InputError of the file, or a size or class id that does not fit
        return str(error)
