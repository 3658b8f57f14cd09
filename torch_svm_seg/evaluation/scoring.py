"""Finding folders of predicted masks, and scoring them against a data set's ground truth."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch
from torch import Tensor

from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.errors import InputError, one_line
from torch_svm_seg.data.mask_files import MaskFiles
from torch_svm_seg.evaluation.metrics import confusion_matrix, summarize
from torch_svm_seg.evaluation.tables import PAPER_TABLE_1


@dataclass(frozen=True)
class FolderScore:
    """The IoUs of a folder of predictions, and the images that could not be scored.

    Missing and bad predictions are left out of the IoUs: neither right nor wrong. A score is only comparable with
    another one if both are ``complete``.

    Attributes:
        per_class: IoU of each class from 0 to 1, float64 (classes,); NaN for a class with an empty union.
        miou: Mean of the IoUs that are not NaN; NaN if nothing was scored.
        images: Number of predictions scored.
        missing: Images of the data set without a prediction.
        extra: Predictions whose name is no image of the data set; not scored, and harmless.
        problems: Image -> reason why its prediction could not be scored.
        confusion: Counts behind the IoUs, see :func:`~torch_svm_seg.evaluation.metrics.confusion_matrix`.
        per_image: Image -> mean IoU of its prediction alone, over the classes of its ground truth (Csurka et al.,
            BMVC 2013); NaN for one that is all void.
    """

    per_class: Tensor
    miou: float
    images: int
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    problems: dict[str, str]
    confusion: Tensor
    per_image: dict[str, float]

    @property
    def complete(self) -> bool:
        """Whether every image of the data set was scored."""
        return not self.missing and not self.problems


def find_folders(paths: Sequence[Path], ids: Sequence[str]) -> dict[str, Path]:
    """Find the folders that hold masks: those given, or else their subfolders, seeds and the paper's features first.

    Args:
        paths: Folders of masks, or folders of such folders.
        ids: Ids of the images.

    Returns:
        Each folder by its own name, with as many parents before it as it takes to tell all apart.

    Raises:
        InputError: A path is no folder, or neither it nor a folder in it holds a PNG.

    Examples:
        >>> import tempfile
        >>> run = Path(tempfile.mkdtemp())
        >>> for name in ("F3", "seed"):
        ...     (run / name).mkdir()
        ...     (run / name / "2007_000032.png").touch()
        >>> list(find_folders([run], ["2007_000032"]))
        ['seed', 'F3']
    """
    folders = list(dict.fromkeys(Path(os.path.abspath(found)) for path in paths for found in _expanded(path, ids)))
    depth = next(depth for depth in count(1) if len({folder.parts[-depth:] for folder in folders}) == len(folders))
    return {"/".join(folder.parts[-depth:]): folder for folder in folders}


def _expanded(folder: Path, ids: Sequence[str]) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: not a folder")
    # The ids, for a folder of runs may hold images of its own, and "birds/17" lies in a subfolder itself.
    if any((folder / f"{id}.png").is_file() for id in ids):
        return [folder]
    if holders := [path for path in folder.iterdir() if path.is_dir() and any(path.rglob("*.png"))]:
        return sorted(holders, key=_paper_order)
    if any(folder.glob("*.png")):
        return [folder]  # all of its predictions are missing, which the summary tells
    raise InputError(f"{folder}: neither it nor a folder in it holds a PNG")


def _paper_order(folder: Path) -> tuple[int, str]:
    known = ["seed", "ppmg", *PAPER_TABLE_1]
    base = folder.name.split("+")[0]  # of refined masks, such as F3+crf
    return (known.index(base) if base in known else len(known), folder.name)


def score_folders(
    dataset: ImageDataset,
    folders: Sequence[str | Path],
    on_mask: Callable[[], object] | None = None,
    scored: Callable[[Tensor], Tensor] | None = None,
    form: str | None = None,
) -> list[FolderScore]:
    """Score ``FOLDER/ID.png`` for each image of a data set and each folder, reading the ground truth once.

    Args:
        dataset: The images with their ground truth.
        folders: Folders of masks: class ids, 255 for "unsure" (see :mod:`~torch_svm_seg.evaluation.metrics`).
        on_mask: Called after each image in each folder, for a progress bar.
        scored: Function that returns the part of a ground truth (H, W) to score, with 255 elsewhere; by default all.
        form: Form of the predictions, see :mod:`~torch_svm_seg.data.mask_forms`; by default the one that they show.

    Returns:
        The score of each folder.

    Raises:
        InputError: One of ``folders`` is not a folder, or a ground-truth mask cannot be read.

    Examples:
        >>> from torch_svm_seg.data.voc import voc2012
        >>> (score,) = score_folders(voc2012("DIR", "val"), ["runs/network/val"])  # doctest: +SKIP
        >>> score.miou  # doctest: +SKIP
        0.66
    """
    paths = [Path(folder) for folder in folders]
    for path in paths:
        if not path.is_dir():
            raise InputError(f"{path}: not a folder")
    tallies = [_Tally(len(dataset.class_names)) for _ in paths]
    predictions = [dataset.mask_folder(path, form) for path in paths]

    def counts_of(index: int) -> list[Tensor | str | None]:
        return _counts(dataset, index, predictions, scored)

    # Reading a PNG is most of the work, and frees the interpreter lock. The threads hand back counts, not masks, so
    # that memory does not grow with the data set.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for id, counts in zip(dataset.ids, pool.map(counts_of, range(len(dataset))), strict=True):
            for tally, counted in zip(tallies, counts, strict=True):
                tally.add(id, counted)
                if on_mask:
                    on_mask()
    return [tally.score(dataset, path) for tally, path in zip(tallies, paths, strict=True)]


def score_readable(
    dataset: ImageDataset,
    folders: Sequence[str | Path],
    on_mask: Callable[[], object] | None = None,
    scored: Callable[[Tensor], Tensor] | None = None,
    form: str | None = None,
) -> tuple[list[FolderScore], dict[str, str]]:
    """Score several folders like :func:`score_folders`, over the images whose ground truth can be read.

    Returns:
        The scores; and why the ground truth of the other images cannot be read, by id.

    Raises:
        InputError: One of ``folders`` is not a folder, or no ground truth can be read.
    """
    try:
        return score_folders(dataset, folders, on_mask, scored, form), {}
    except InputError:
        problems = {id: why for index, id in enumerate(dataset.ids) if (why := _problem(dataset, index)) is not None}
        if not 0 < len(problems) < len(dataset):
            raise
    readable = dataset.subset(index for index, id in enumerate(dataset.ids) if id not in problems)
    return score_folders(readable, folders, None, scored, form), problems


def is_readable(dataset: ImageDataset, index: int) -> bool:
    """Whether an image has a ground truth that can be read."""
    return dataset.has_mask(index) and _problem(dataset, index) is None


def _problem(dataset: ImageDataset, index: int) -> str | None:
    """Return why the ground truth of an image cannot be read; None if it can."""
    try:
        dataset.mask(index)
    except InputError as error:
        return str(error)
    return None


class _Tally:
    """The score of one folder while it is gathered."""

    def __init__(self, num_classes: int) -> None:
        self.confusion = torch.zeros(num_classes, num_classes + 1, dtype=torch.long)
        self.per_image: dict[str, float] = {}
        self.missing: list[str] = []
        self.problems: dict[str, str] = {}

    def add(self, id: str, counted: Tensor | str | None) -> None:
        if counted is None:
            self.missing.append(id)
        elif isinstance(counted, str):
            self.problems[id] = counted
        else:
            self.confusion += counted
            self.per_image[id] = float(summarize(counted).per_class[counted.any(dim=1)].mean())

    def score(self, dataset: ImageDataset, folder: Path) -> FolderScore:
        found = {path.relative_to(folder).as_posix().removesuffix(".png") for path in folder.rglob("*.png")}
        result = summarize(self.confusion)
        return FolderScore(
            per_class=result.per_class,
            miou=result.miou,
            images=len(self.per_image),
            missing=tuple(self.missing),
            extra=tuple(sorted(found.difference(dataset.ids))),
            problems=self.problems,
            confusion=self.confusion,
            per_image=self.per_image,
        )


def _counts(
    dataset: ImageDataset, index: int, predictions: Sequence[MaskFiles], scored: Callable[[Tensor], Tensor] | None
) -> list[Tensor | str | None]:
    """Return the confusion matrix of each prediction, why there is none, or None where there is no prediction."""
    id = dataset.ids[index]
    if not any(masks.find(id) for masks in predictions):
        return [None] * len(predictions)
    target = dataset.mask(index)
    target = target if scored is None else scored(target)
    return [_count(masks, id, target, len(dataset.class_names)) for masks in predictions]


def _count(masks: MaskFiles, id: str, target: Tensor, num_classes: int) -> Tensor | str | None:
    try:
        return None if masks.find(id) is None else confusion_matrix(masks.read(id), target, num_classes)
    except ValueError as error:  # an InputError of the file, or a size or class id that does not fit
        return one_line(str(error))
