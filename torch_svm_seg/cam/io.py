"""Class activation maps on disk: this project's format, and the dictionaries that other code bases write.

``ID.npz`` is an archive of plain NumPy arrays, read without pickle:

- ``classes``: ids of the classes present, int64 (C,), ascending from 1;
- ``names``: their names, text (C,), to notice a file that was made for other classes;
- ``maps``: activation from 0 to 1, float16 (C, h, w), usually a quarter of the image's size;
- ``size``: the image's height and width, int64 (2,);
- ``background``: the background's activation, float16 (h, w), only where the method has one.

``ID.npy`` of others is a pickled dictionary, and a pickle can run any code. It is read only on request, and then by an
unpickler that knows arrays, tensors, dictionaries, numbers and strings and refuses everything else.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torch_svm_seg.cam.activation import ActivationMaps
from torch_svm_seg.data.restricted_pickle import read_pickled_array
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import PathLike, size_text, write_atomically

# float16 rounds 1 - 1e-5 to 1; interpolation and other code bases' arithmetic can exceed 1 by a rounding error.
_TOLERANCE = 1e-2


def cam_path(folder: PathLike, id: str) -> Path:
    """Where this project's file of an image lies."""
    return Path(folder) / f"{id}.npz"


def save_cams(path: PathLike, maps: ActivationMaps, class_names: Sequence[str]) -> None:
    """Writes the maps of an image as ``.npz``, which appears whole or not at all.

    Args:
        path: the file to write.
        maps: what to write; rounded to float16.
        class_names: name of each class id, background first.

    Raises:
        OSError: the file cannot be written.
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
    folder: PathLike, id: str, size: tuple[int, int], class_names: Sequence[str], trust_pickle: bool = False
) -> ActivationMaps:
    """Reads the maps of an image, ``folder/ID.npz``, else another code base's ``folder/ID.npy``.

    Args:
        folder: where the files lie.
        id: the image.
        size: its height and width.
        class_names: name of each class id, background first.
        trust_pickle: whether to read ``.npy`` dictionaries, which are pickles, see :func:`read_foreign_cams`.

    Returns:
        The maps, float32.

    Raises:
        InputError: there is no file, it is damaged, of an image of another size or of other classes, holds values that
            are not finite numbers from 0 to 1, or is a pickle and `trust_pickle` is false.
    """
    own, foreign = cam_path(folder, id), Path(folder) / f"{id}.npy"
    if own.is_file() or not foreign.is_file():
        return _read_own(own, size, class_names)
    if not trust_pickle:
        raise InputError(f"{foreign}: a pickle, which is read only with --trust-pickle; this project's CAMs are .npz")
    return read_foreign_cams(foreign, size, class_names)


def read_foreign_cams(path: PathLike, size: tuple[int, int], class_names: Sequence[str]) -> ActivationMaps:
    """Reads a ``.npy`` dictionary of another code base.

    These forms are known; in all of them maps are at the image's size or at a fraction of it:

    - ``{"keys": classes, "high_res": maps, "cam": maps}``, at least one of the two (IRN and its many heirs): classes
      count from 0 without background; ``high_res`` is preferred;
    - ``{"keys": ids, "IS_CAM": maps}`` (SIPE): id 0 is the background, classes count from 1;
    - ``{class: map, ...}`` (PSA, SEAM): classes count from 0 without background.

    Negative activation is raised to 0, a map with a maximum above 1 is divided by it.

    Args:
        path: the file.
        size: height and width of its image.
        class_names: name of each class id, background first.

    Raises:
        InputError: the file is no such dictionary, holds other objects, is of an image of another size, or has values
            that are not finite.
    """
    content = read_pickled_array(path)
    try:
        ids, maps = _interpret(content)
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(f"{path}: not a dictionary of class activation maps that is known ({error})") from error
    _check_scale(path, maps.shape[-2:], size)
    _check_finite(path, maps)
    maps = maps.clamp_min(0)
    maps = maps / maps.amax((1, 2), keepdim=True).clamp_min(1)
    order = sorted(range(len(ids)), key=lambda place: ids[place])
    ids, maps = [ids[place] for place in order], maps[order]
    _check_classes(path, ids, class_names)
    if ids[0] == 0:
        return _checked(path, tuple(ids[1:]), maps[1:], size, maps[0])
    return _checked(path, tuple(ids), maps, size, None)


def _read_own(path: Path, size: tuple[int, int], class_names: Sequence[str]) -> ActivationMaps:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        ids = tuple(int(id) for id in arrays["classes"])
        names = [str(name) for name in arrays["names"]]
        maps = torch.from_numpy(arrays["maps"].astype(np.float32))
        own_size = tuple(int(side) for side in arrays["size"])
        background = torch.from_numpy(arrays["background"].astype(np.float32)) if "background" in arrays else None
    except FileNotFoundError as error:
        raise InputError(f"{path}: no class activation maps of this image") from error
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise InputError(f"{path}: not a file of class activation maps ({' '.join(str(error).split())})") from error
    if own_size != tuple(size):
        raise InputError(f"{path}: of an image of {size_text(own_size)} pixels, but the image has {size_text(size)}")
    _check_classes(path, ids, class_names)
    if names != [class_names[id] for id in ids]:
        raise InputError(
            f"{path}: of the classes {', '.join(names)}, expected {', '.join(class_names[i] for i in ids)}"
        )
    for values in (maps, background):
        if values is not None:
            _check_finite(path, values)
            if values.numel() and not (values.min() >= 0 and values.max() <= 1 + _TOLERANCE):
                raise InputError(f"{path}: activation from {values.min():.3g} to {values.max():.3g}, expected 0 to 1")
    return _checked(path, ids, maps, size, background)


def _checked(
    path: PathLike, ids: tuple[int, ...], maps: Tensor, size: tuple[int, int], background: Tensor | None
) -> ActivationMaps:
    try:
        return ActivationMaps(ids, maps, (size[0], size[1]), background)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error


def _interpret(content: object) -> tuple[list[int], Tensor]:
    """Gives the class ids, background 0, and the maps (C, h, w) of a dictionary."""
    if not isinstance(content, dict) or not content:
        raise TypeError(f"holds a {type(content).__name__}")
    if "keys" not in content:
        return [_integer(key) + 1 for key in content], _stacked(list(content.values()))
    keys = [_integer(key) for key in _array(content["keys"]).reshape(-1)]
    if "IS_CAM" in content:
        ids, maps = keys, _stacked(list(_array(content["IS_CAM"])))
    else:
        name = "high_res" if "high_res" in content else "cam"
        ids, maps = [key + 1 for key in keys], _stacked(list(_array(content[name])))
    if len(ids) != len(maps):
        raise ValueError(f"{len(ids)} keys for {len(maps)} maps")
    return ids, maps


def _stacked(maps: list[Any]) -> Tensor:
    return torch.from_numpy(np.stack([_array(map) for map in maps]).astype(np.float32))


def _array(values: object) -> NDArray[Any]:
    if isinstance(values, Tensor):
        return values.numpy()
    if isinstance(values, list | tuple | np.ndarray):
        return np.asarray(values)
    raise TypeError(f"a {type(values).__name__} in place of an array")


def _integer(value: Any) -> int:
    if isinstance(value, bool | np.bool_ | str) or int(value) != value:
        raise TypeError(f"class {value!r}")
    return int(value)


def _check_classes(path: PathLike, ids: Sequence[int], class_names: Sequence[str]) -> None:
    strange = [id for id in ids if not 0 <= id < len(class_names)]
    if strange or len(set(ids)) != len(ids):
        raise InputError(f"{path}: class ids {list(ids)}; expected different ones up to {len(class_names) - 1}")


def _check_finite(path: PathLike, maps: Tensor) -> None:
    if not maps.isfinite().all():
        raise InputError(f"{path}: activation that is not a finite number")


def _check_scale(path: PathLike, grid: Sequence[int], size: tuple[int, int]) -> None:
    """Makes sure that maps are the image at a whole fraction of its size, rounded in either direction."""
    fits = any(
        all(abs(cells - side / stride) < 1 for cells, side in zip(grid, size, strict=True)) for stride in range(1, 33)
    )
    if not fits or 0 in grid:
        raise InputError(
            f"{path}: maps of {size_text(grid)} places, no fraction of the image's {size_text(size)} pixels"
        )


def _as_float16(values: Tensor) -> NDArray[np.float16]:
    return values.detach().cpu().numpy().astype(np.float16)
