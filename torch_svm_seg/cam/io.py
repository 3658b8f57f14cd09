"""Class activation maps on disk: this project's format, and the files that other code bases write.

``ID.npz`` is an archive of plain NumPy arrays, read without pickle:

- ``classes``: ids of the classes present, int64 (C,), ascending from 1;
- ``names``: their names, text (C,), to notice a file that was made for other classes;
- ``maps``: activation from 0 to 1, float16 (C, h, w), usually a quarter of the image's size;
- ``size``: the image's height and width, int64 (2,);
- ``background``: the background's activation, float16 (h, w), only where the method has one.

Files of others are ``ID.npy``, a pickled dictionary, ``ID.npz``, or one image ``ID_CLASS.png`` per class, from 0
without background; :mod:`~torch_svm_seg.cam.forms` lists their forms. A pickle can run any code; it is read by an
unpickler that knows arrays, tensors, dictionaries, numbers and strings and refuses everything else.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torch_svm_seg.cam.activation import ActivationMaps
from torch_svm_seg.cam.foreign import check_classes, check_finite, checked, read_foreign, read_image_per_class
from torch_svm_seg.cam.forms import numbers_of
from torch_svm_seg.data.errors import InputError, reason_of
from torch_svm_seg.data.io import size_text, write_atomically
from torch_svm_seg.data.notes import first_few
from torch_svm_seg.data.reading import PathLike, read_arrays
from torch_svm_seg.data.restricted_pickle import read_pickled_array

OWN_FORM = "npz"
"""Name of this project's format."""

# float16 rounds 1 - 1e-5 to 1; interpolation and other code bases' arithmetic can exceed 1 by a rounding error.
_TOLERANCE = 1e-2
_OWN_ARRAYS = {"classes", "names", "maps", "size"}
_MOST_LOOKED_AT = 200  # files
_LEAST_LIMIT = 2**28  # bytes of an archive's arrays, for maps on a larger grid than the image's


class ReadCams(NamedTuple):
    """Maps of an image, and how its file was read.

    Attributes:
        maps: The maps, float32.
        form: Name of the form, see :mod:`~torch_svm_seg.cam.forms`.
        is_doubtful: Whether the file could be of another form, in which its maps are of other classes.
        notes: What was taken for granted.

    Examples:
        >>> ReadCams(ActivationMaps((8,), torch.zeros(1, 15, 20), (60, 80)), form="irn").maps.classes
        (8,)
    """

    maps: ActivationMaps
    form: str
    is_doubtful: bool = False
    notes: tuple[str, ...] = ()


def cam_path(folder: PathLike, id: str) -> Path:
    """Return where this project's file of an image lies.

    Examples:
        >>> cam_path("cams", "2007_000032").as_posix()
        'cams/2007_000032.npz'
    """
    return Path(folder) / f"{id}.npz"


def cam_files(folder: PathLike, id: str, number: int) -> tuple[Path, ...]:
    """Return the files of an image's maps: ``ID.npz``, else ``ID.npy``, else ``ID_CLASS.png`` of ``number`` classes.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("a_7.png", "a_14.png", "b.npy"):
        ...         Path(folder, name).touch()
        ...     [path.name for id in ("a", "b", "c") for path in cam_files(folder, id, 20)]
        ['a_7.png', 'a_14.png', 'b.npy', 'c.npz']
    """
    own, pickled = cam_path(folder, id), Path(folder) / f"{id}.npy"
    if own.exists() or not (pickled.exists() or Path(folder).is_dir()):
        return (own,)
    if pickled.exists():
        return (pickled,)
    images = (Path(folder) / f"{id}_{index}.png" for index in range(number))
    return tuple(path for path in images if path.exists()) or (own,)


def save_cams(path: PathLike, maps: ActivationMaps, class_names: Sequence[str]) -> None:
    """Write the maps of an image as ``.npz``, which appears whole or not at all.

    Args:
        path: The file to write.
        maps: Maps to write; rounded to float16.
        class_names: Name of each class id, background first.

    Raises:
        OSError: The file cannot be written.

    Examples:
        >>> import tempfile
        >>> maps = ActivationMaps((1,), torch.ones(1, 15, 20), (60, 80))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_cams(cam_path(folder, "a"), maps, ["background", "cat"])
        ...     read_cams(folder, "a", (60, 80), ["background", "cat"]).classes
        (1,)
    """
    arrays = {
        "classes": np.array(maps.classes, dtype=np.int64),
        "names": np.array([class_names[id] for id in maps.classes]),
        "maps": _as_float16(maps.maps),
        "size": np.array(maps.size, dtype=np.int64),
    }
    if maps.background is not None:
        arrays["background"] = _as_float16(maps.background)
    write_atomically(path, lambda stream: np.savez_compressed(stream, **arrays))  # type: ignore[arg-type]


def read_cams(
    folder: PathLike,
    id: str,
    size: tuple[int, int],
    class_names: Sequence[str],
    form: str | None = None,
    labels: Collection[int] | None = None,
) -> ActivationMaps:
    """Read the maps of an image, see :func:`read_cam_files`.

    Examples:
        >>> import tempfile
        >>> maps = ActivationMaps((1,), torch.ones(1, 15, 20), (60, 80))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_cams(cam_path(folder, "a"), maps, ["background", "cat"])
        ...     read_cams(folder, "a", (60, 80), ["background", "cat"]).maps.shape
        torch.Size([1, 15, 20])
    """
    return read_cam_files(folder, id, size, class_names, form, labels).maps


def read_cam_files(
    folder: PathLike,
    id: str,
    size: tuple[int, int],
    class_names: Sequence[str],
    form: str | None = None,
    labels: Collection[int] | None = None,
) -> ReadCams:
    """Read the maps of an image from whatever files :func:`cam_files` finds.

    Negative activation of other code bases is raised to 0, a map with a maximum above 1 is divided by it.

    Args:
        folder: Folder of the files.
        id: The image.
        size: Its height and width.
        class_names: Name of each class id, background first.
        form: Name of the form of other code bases' files; by default the one that file and labels show.
        labels: Ids of the classes that the image shows; maps of others are left out.

    Raises:
        InputError: There is no file, it is damaged, of no known form, of an image of another size or of other classes,
            or holds values that are not finite numbers.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/a.npy", {"keys": np.array([0]), "high_res": np.full((1, 4, 6), 0.5)})
        ...     read = read_cam_files(folder, "a", (4, 6), ["background", "cat"], labels=[1])
        >>> read.maps.classes, read.form
        ((1,), 'irn')
    """
    paths = cam_files(folder, id, len(class_names) - 1)
    path = paths[0]
    if not path.exists():
        raise InputError(f"{path}: no class activation maps of this image")
    content = _content(paths, size, len(class_names))
    if isinstance(content, Mapping) and content.keys() >= _OWN_ARRAYS:
        read = ReadCams(_own(path, content, size, class_names), OWN_FORM)
    else:
        read = ReadCams(*read_foreign(path, content, size, class_names, form, labels))
    return read if labels is None else _of_labels(path, read, labels)


def numbers_in_files(folder: PathLike, ids: Iterable[str], number: int) -> list[frozenset[int]]:
    """Return the numbers by which files of other code bases call their classes, file by file.

    All together tell what they count: a 0 in every file is the background, which every image shows; a 0 in some is a
    class, as the largest class is where numbers count the background.

    Args:
        folder: Folder of the files.
        ids: Images to look at, some hundreds at most; those whose files cannot be read are left out.
        number: Number of classes, background included.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for id, numbers in {"a": [0, 7], "b": [0, 14]}.items():
        ...         np.save(f"{folder}/{id}.npy", {"keys": np.array(numbers), "cam": np.zeros((2, 4, 6))})
        ...     [sorted(numbers) for numbers in numbers_in_files(folder, ["a", "b"], 21)]
        [[0, 7], [0, 14]]
    """
    found: list[frozenset[int]] = []
    for id in ids:
        try:
            content = _content(cam_files(folder, id, number - 1), (0, 0), number)
            numbers = frozenset(numbers_of(content) if isinstance(content, Mapping) else [])
        except (InputError, TypeError, ValueError):
            continue
        found += [numbers] if numbers else []
        if len(found) == _MOST_LOOKED_AT:
            break
    return found


def _content(paths: Sequence[Path], size: tuple[int, int], number: int) -> object:
    """Return what files hold, by name or by class."""
    path = paths[0]
    if path.suffix == ".npy":
        return read_pickled_array(path)
    if path.suffix == ".png":
        return read_image_per_class(paths)
    try:
        return read_arrays(path, max(_LEAST_LIMIT, 16 * number * size[0] * size[1]))
    except InputError as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise InputError(f"{path}: not a file of class activation maps ({reason})") from error


def _own(path: Path, arrays: Mapping[Any, Any], size: tuple[int, int], class_names: Sequence[str]) -> ActivationMaps:
    """Return the maps of this project's format."""
    try:
        ids = tuple(int(id) for id in arrays["classes"])
        names = [str(name) for name in arrays["names"]]
        maps = torch.from_numpy(arrays["maps"].astype(np.float32))
        own_size = tuple(int(side) for side in arrays["size"])
        background = torch.from_numpy(arrays["background"].astype(np.float32)) if "background" in arrays else None
    except (TypeError, ValueError, OverflowError, AttributeError) as error:
        raise InputError(f"{path}: not a file of class activation maps ({reason_of(error)})") from error
    if own_size != tuple(size):
        raise InputError(f"{path}: of an image of {size_text(own_size)} pixels, but the image has {size_text(size)}")
    check_classes(path, ids, class_names)
    if names != [class_names[id] for id in ids]:
        expected = first_few(class_names[id] for id in ids)
        raise InputError(f"{path}: of the classes {first_few(names)}, expected {expected}")
    for values in (maps, background):
        if values is not None:
            check_finite(path, values)
            if values.numel() and not (values.min() >= 0 and values.max() <= 1 + _TOLERANCE):
                raise InputError(f"{path}: activation from {values.min():.3g} to {values.max():.3g}, expected 0 to 1")
    return checked(path, ids, maps, size, background)


def _of_labels(path: Path, read: ReadCams, labels: Collection[int]) -> ReadCams:
    """Return the maps of labelled classes, with a note where others were in the file, or some were not."""
    kept = [index for index, id in enumerate(read.maps.classes) if id in labels]
    if not kept:
        raise InputError(
            f"{path}: of the class ids {first_few(read.maps.classes, 10)}, but the image is labelled "
            f"{first_few(sorted(labels), 10)}"
        )
    notes = list(read.notes)
    if len(kept) < len(read.maps.classes):
        notes.append("maps of classes that --labels does not name were left out")
    if len(kept) < len(set(labels)):
        notes.append("no map of a class that --labels names")
    maps = read.maps
    classes = tuple(maps.classes[index] for index in kept)
    return read._replace(maps=ActivationMaps(classes, maps.maps[kept], maps.size, maps.background), notes=tuple(notes))


def _as_float16(values: Tensor) -> NDArray[np.float16]:
    return values.detach().cpu().numpy().astype(np.float16)
