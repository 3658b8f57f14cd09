"""Reading pickled dictionaries of arrays without running what a pickle can run.

A pickle names functions and calls them; whoever made the file chooses which. Here each name is looked up in a short
list of stand-ins that can only make arrays, tensors and numbers, and every other name is refused.
"""

import io
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import PathLike


def read_pickled_array(path: PathLike) -> object:
    """Reads what ``numpy.save`` made of a dictionary: an array of one object, pickled.

    Args:
        path: the ``.npy`` file.

    Returns:
        The object, made of dictionaries, lists, numbers, strings, NumPy arrays and CPU tensors.

    Raises:
        InputError: the file is missing, damaged, not of that form, or holds anything else, which is named.
    """
    try:
        with open(path, "rb") as stream:
            return _read_object(stream)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except (MemoryError, InputError):
        raise
    except Exception as error:  # damaged and malicious pickles make the unpickler raise nearly anything
        raise InputError(f"{path}: not read ({' '.join(str(error).split()) or type(error).__name__})") from error


def _read_object(stream: BinaryIO) -> object:
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(stream)
    if not dtype.hasobject or shape != ():
        raise ValueError(f"an array of {dtype} and shape {shape}, not a dictionary")
    content = _RestrictedUnpickler(stream).load()
    return _resolved(content.item if isinstance(content, _PickledArray) else content)


def _resolved(content: Any) -> Any:
    """Puts the arrays in place of their stand-ins."""
    if isinstance(content, dict):
        return {key: _resolved(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_resolved(value) for value in content]
    if isinstance(content, _PickledArray):
        if content.values is None:
            raise ValueError("an array of objects")
        return content.values
    return content


class _PickledType:
    """Stands in for numpy.dtype while unpickling: a number type by its code such as ``f4``, or ``O8`` for objects."""

    def __init__(self, code: str, *_: object) -> None:
        if not re.fullmatch(r"[biuf]\d+|O8", code):
            raise pickle.UnpicklingError(f"holds an array of type {code!r}")
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1] if state[1] in ("<", ">") else "="

    @property
    def number_type(self) -> np.dtype[Any]:
        return np.dtype(self.order + self.code)


class _PickledArray:
    """Stands in for numpy.ndarray while unpickling, so that no state from the file reaches NumPy's own code.

    Attributes:
        values: the array, if it is one of numbers.
        item: the one object of an array of objects, which is what a file of a dictionary is.
    """

    def __init__(self) -> None:
        self.values: NDArray[Any] | None = None
        self.item: object = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, content = state
        if kind.code == "O8":
            (self.item,) = content
        else:
            self.values = _from_buffer(content, kind, shape, "F" if fortran else "C")


class _RestrictedUnpickler(pickle.Unpickler):
    """Reads arrays, tensors, dictionaries, numbers and strings; everything else is refused by its name."""

    def find_class(self, module: str, name: str) -> Any:
        numpy_module = module.replace("numpy._core", "numpy.core")  # NumPy 2 renamed it
        allowed = _STAND_INS.get((numpy_module, name))
        if allowed is None:
            raise pickle.UnpicklingError(f"holds {module}.{name}, which could run code")
        return allowed


def _from_buffer(content: Any, kind: _PickledType, shape: Any, order: Any) -> NDArray[Any]:
    return np.frombuffer(content, kind.number_type).reshape(shape, order=order)


def _scalar(kind: _PickledType, content: bytes) -> Any:
    return np.frombuffer(content, kind.number_type).item()


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    return torch.empty(0, dtype=storage.dtype).set_(storage._untyped_storage, offset, size, stride)


def _storage(content: bytes) -> Any:
    """Reads a tensor's storage, which is a file of ``torch.save`` inside the pickle and by itself another pickle."""
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


# What pickles of arrays and tensors refer to, and what does it here.
_STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _PickledArray,
    ("numpy", "dtype"): _PickledType,
    ("numpy.core.multiarray", "_reconstruct"): lambda *_: _PickledArray(),
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("collections", "OrderedDict"): OrderedDict,
}
