"""Class activation maps of other code bases: what their files hold becomes maps of an image."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from torch_svm_seg.cam.activation import ActivationMaps
from torch_svm_seg.cam.form import Found, choose
from torch_svm_seg.cam.forms import CAM_FORMS, read_as
from torch_svm_seg.data.errors import InputError, reason_of
from torch_svm_seg.data.io import size_text
from torch_svm_seg.data.notes import first_few
from torch_svm_seg.data.pillow import open_image
from torch_svm_seg.data.reading import PathLike, reading

_INPUT_MULTIPLES = (14, 16, 32)  # sides of networks' inputs are multiples of one of these


def read_foreign(
    path: Path,
    content: object,
    size: tuple[int, int],
    class_names: Sequence[str],
    form: str | None,
    labels: Collection[int] | None,
) -> tuple[ActivationMaps, str, bool, tuple[str, ...]]:
    """Return the maps of another code base's file.

    Args:
        path: The file, for messages.
        content: What it holds, by name or by class.
        size: Height and width of its image.
        class_names: Name of each class id, background first.
        form: Name of the file's form; by default the one that file and labels show.
        labels: Ids of the classes that the image shows.

    Returns:
        The maps; the name of the form; whether it could be another one; and what was taken for granted.

    Raises:
        InputError: The content is of no known form, of an image of another size or of other classes, or holds values
            that are not finite numbers.

    Examples:
        >>> content = {"keys": [7], "high_res": np.full((1, 4, 6), 0.5)}
        >>> names = ["background", *"abcdefgh"]
        >>> maps, form, is_doubtful, notes = read_foreign(Path("a.npy"), content, (4, 6), names, form=None, labels=None)
        >>> maps.classes, maps.maps.shape, form
        ((8,), torch.Size([1, 4, 6]), 'irn')
    """
    try:
        choice = choose(content, CAM_FORMS, labels, len(class_names)) if form is None else read_as(content, form)
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        reason = reason_of(error)
        kind = "file" if path.suffix == ".npz" else "dictionary"
        raise InputError(f"{path}: not a {kind} of class activation maps that is known ({reason})") from error
    notes = [f"maps read as --cams-form {choice.form.name}, {choice.form.keys}"]
    notes += _check_grid(path, choice.found.maps.shape[-2:], size)
    check_finite(path, choice.found.maps)
    check_classes(path, choice.found.ids, class_names)
    found = _probabilities(choice.found, labels) if choice.found.are_logits else choice.found
    return _activation(path, found, size), choice.form.name, choice.is_doubtful, tuple(notes)


def _activation(path: Path, found: Found, size: tuple[int, int]) -> ActivationMaps:
    """Return maps from 0 to 1, ascending by class."""
    maps = found.maps.clamp_min(0)
    maps = maps / maps.amax((1, 2), keepdim=True).clamp_min(1)
    order = sorted(range(len(found.ids)), key=lambda index: found.ids[index])
    ids, maps = tuple(found.ids[index] for index in order), maps[order]
    if ids[0] == 0:
        if not maps.any():
            raise InputError(f"{path}: no map has a value above 0, that of the background included")
        return checked(path, ids[1:], maps[1:], size, maps[0])
    return checked(path, ids, maps, size, None)


def _probabilities(found: Found, labels: Collection[int] | None) -> Found:
    """Return the probabilities of scores of all classes: of those labelled, or else of those that win somewhere."""
    if labels is None:
        kept = sorted({0, *found.maps.argmax(0).unique().tolist()})
        maps = found.maps.softmax(0)[kept]
    else:
        kept = [0, *sorted(set(labels))]
        maps = found.maps[kept].softmax(0)
    return Found(tuple(kept), maps)


def read_image_per_class(paths: Sequence[Path]) -> Mapping[int, NDArray[np.float32]]:
    """Read greyscale images ``ID_CLASS.png`` of activation from 0 to the largest value of their type, by class.

    Examples:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("L", (6, 4), color=255).save(Path(folder, "a_7.png"))
        ...     maps = read_image_per_class([Path(folder, "a_7.png")])
        >>> maps[7].shape, float(maps[7].max())
        ((4, 6), 1.0)
    """
    return {int(path.stem.rpartition("_")[2]): _read_map(path) for path in paths}


def _read_map(path: Path) -> NDArray[np.float32]:
    """Read a greyscale image of activation from 0 to its largest value."""
    with open_image(path) as image:
        values = np.array(image.convert("L") if image.mode != "I;16" else image)
        return (values / np.iinfo(values.dtype).max).astype(np.float32)


def checked(
    path: PathLike, ids: tuple[int, ...], maps: Tensor, size: tuple[int, int], background: Tensor | None
) -> ActivationMaps:
    """Return the maps of an image, or raise InputError where they do not fit together.

    Examples:
        >>> import torch
        >>> checked("a.npz", (8,), torch.zeros(1, 15, 20), (60, 80), background=None).size
        (60, 80)
    """
    with reading(path):
        return ActivationMaps(ids, maps, (size[0], size[1]), background)


def check_classes(path: PathLike, ids: Sequence[int], class_names: Sequence[str]) -> None:
    """Raise InputError unless ids are different ones of classes.

    Examples:
        >>> check_classes("a.npy", [0, 2], ["background", "cat"])
        Traceback (most recent call last):
        torch_svm_seg.data.errors.InputError: a.npy: class ids 0, 2; expected different ones up to 1
    """
    strange = [id for id in ids if not 0 <= id < len(class_names)]
    if strange or len(set(ids)) != len(ids):
        raise InputError(
            f"{path}: class ids {first_few(ids, 25)}; expected different ones up to {len(class_names) - 1}"
        )


def check_finite(path: PathLike, maps: Tensor) -> None:
    """Raise InputError where a value is not a finite number.

    Examples:
        >>> import torch
        >>> check_finite("a.npy", torch.tensor([[[0.5, torch.nan]]]))
        Traceback (most recent call last):
        torch_svm_seg.data.errors.InputError: a.npy: activation that is not a finite number
    """
    if not maps.isfinite().all():
        raise InputError(f"{path}: activation that is not a finite number")


def _check_grid(path: PathLike, grid: Sequence[int], size: tuple[int, int]) -> list[str]:
    """Make sure that maps cover the whole image; return a note where that is likely but not certain.

    Maps are the image at a whole fraction of its size, rounded in either direction; or on a network's grid, whose sides
    are rounded to multiples; or of the image squeezed to a square. A square as long as a side of the image may have
    been cut or padded instead.
    """
    if 0 not in grid:
        if _fits(grid, size, 1, [1 / stride for stride in range(1, 33)]):
            return []
        if grid[0] == grid[1] and size[0] != size[1] and grid[0] not in size:
            return ["square maps, taken to cover the whole image, squeezed"]
        multiples = [multiple for multiple in _INPUT_MULTIPLES if not any(side % multiple for side in grid)]
        if any(_fits(grid, size, multiple, [grid[0] / size[0], grid[1] / size[1]]) for multiple in multiples):
            return ["maps on the grid of a network's input, taken to cover the whole image"]
    raise InputError(f"{path}: maps of {size_text(grid)} places, no fraction of the image's {size_text(size)} pixels")


def _fits(grid: Sequence[int], size: Sequence[int], rounding: int, scales: Sequence[float]) -> bool:
    """Whether a grid has the image's sides at one of some scales, each rounded to a multiple of a number."""
    return any(
        all(abs(cells - side * scale) < rounding for cells, side in zip(grid, size, strict=True)) for scale in scales
    )
