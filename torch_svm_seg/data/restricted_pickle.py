"""Reading pickled dictionaries of arrays without running what a pickle can run.

A pickle names functions and calls them; whoever made the file chooses which. Here each name is looked up in a short
list of stand-ins that can only make arrays, tensors and numbers, and every other name is refused. A pickle can also
ask for any amount of memory or time; its instructions are checked before any is followed.
"""

import io
import pickle
import pickletools
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torch_svm_seg.data.errors import InputError, reason_of
from torch_svm_seg.data.reading import PathLike, read_bytes

_MOST_VALUES = 4_000_000  # entries of dictionaries and lists, those in several places counted in each
_MOST_NESTED = 8

_INSTRUCTIONS = (
    " PROTO FRAME STOP MARK POP POP_MARK DUP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT "
    "BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES "
    "SHORT_BINBYTES BINBYTES8 BYTEARRAY8 EMPTY_LIST APPEND APPENDS LIST EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 "
    "EMPTY_DICT DICT SETITEM SETITEMS MEMOIZE PUT BINPUT LONG_BINPUT GET BINGET LONG_BINGET GLOBAL STACK_GLOBAL REDUCE "
    "BUILD "
)


def read_pickled_array(path: PathLike) -> object:
    """Read what ``numpy.save`` made of a dictionary: an array of one object, pickled.

    Args:
        path: The ``.npy`` file.

    Returns:
        The object, made of dictionaries, lists, numbers, strings, NumPy arrays and CPU tensors.

    Raises:
        InputError: The file is missing, damaged, not of that form, or holds anything else, which is named.

    Examples:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        ...     np.save(file.name, {"keys": np.array([7]), "cam": np.zeros((1, 4, 6))})
        ...     read_pickled_array(file.name)["cam"].shape
        (1, 4, 6)
    """
    content = read_bytes(path)
    try:
        return _read_object(content)
    except Exception as error:  # damaged and malicious pickles make the unpickler raise nearly anything
        raise InputError(f"{path}: not read ({reason_of(error)})") from error


def _read_object(content: bytes) -> object:
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(stream)
    if not dtype.hasobject or shape != ():
        raise ValueError(f"an array of {dtype} and shape {shape}, not a dictionary")
    pickled = content[stream.tell() :]
    _check_instructions(pickled)
    # Pickles of Python 2 hold bytes as text.
    found = _RestrictedUnpickler(io.BytesIO(pickled), encoding="latin1").load()
    return _Resolver().resolved(found.item if isinstance(found, _PickledArray) else found)


def _check_instructions(pickled: bytes) -> None:
    """Raise ValueError where a pickle uses instructions that no array needs, or asks for memory out of proportion."""
    for number, (instruction, argument, position) in enumerate(pickletools.genops(pickled)):
        name = instruction.name
        if f" {name} " not in _INSTRUCTIONS:
            raise ValueError(f"holds the instruction {name}, which no array needs")
        if name in ("PUT", "BINPUT", "LONG_BINPUT") and not (argument or 0) <= number:
            raise ValueError(f"refers to object {argument} of {number}")
        if name == "FRAME" and (argument or 0) > len(pickled) - (position or 0):
            raise ValueError("truncated pickle")


class _Resolver:
    """Puts the arrays in place of their stand-ins, as long as a pickle does not hold more than its size says."""

    def __init__(self) -> None:
        self._values = 0

    def resolved(self, content: Any, depth: int = 0) -> Any:
        self._values += 1
        if self._values > _MOST_VALUES or depth > _MOST_NESTED:
            raise ValueError("holds too many values, or too deeply nested ones")
        if isinstance(content, dict):
            return {self.resolved(key, depth + 1): self.resolved(value, depth + 1) for key, value in content.items()}
        if isinstance(content, list | tuple):
            return [self.resolved(value, depth + 1) for value in content]
        if isinstance(content, _PickledArray):
            if content.values is None:
                raise ValueError("an array of objects")
            return content.values
        return content


class _PickledType:
    """Stands in for numpy.dtype while unpickling: a number type by its code such as ``f4``, text, or ``O8``."""

    def __init__(self, code: str, *_: object) -> None:
        if not re.fullmatch(r"[biuf]\d+|U\d+|O8", code):
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
        values: The array, if it is one of numbers.
        item: The one object of an array of objects, which is what a file of a dictionary is.
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

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._storages: dict[int, tuple[bytes, Any]] = {}

    def find_class(self, module: str, name: str) -> Any:
        numpy_module = module.replace("numpy._core", "numpy.core")  # NumPy 2 renamed it
        if (numpy_module, name) == ("torch.storage", "_load_from_bytes"):
            return self._storage
        allowed = _STAND_INS.get((numpy_module, name))
        if allowed is None:
            raise pickle.UnpicklingError(f"holds {module}.{name}, which could run code")
        return allowed

    def _storage(self, content: bytes) -> Any:
        """Read a tensor's storage, which is a file of ``torch.save`` inside the pickle and by itself another pickle.

        A pickle can refer to it any number of times, but it is read once.
        """
        if id(content) not in self._storages:
            storage = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            self._storages[id(content)] = (content, storage)
        return self._storages[id(content)][1]


def _from_buffer(content: Any, kind: _PickledType, shape: Any, order: Any) -> NDArray[Any]:
    if kind.code.startswith("U"):
        raise pickle.UnpicklingError(f"holds an array of type {kind.code!r}")
    content = content.encode("latin1") if isinstance(content, str) else content
    return np.frombuffer(content, kind.number_type).reshape(shape, order=order)


def _scalar(kind: _PickledType, content: bytes | str) -> Any:
    content = content.encode("latin1") if isinstance(content, str) else content
    return np.frombuffer(content, kind.number_type).item()


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    """Return a tensor; one that needs more values than its storage has would make up the others."""
    values = 1
    for side in size:
        values *= side
    last = offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True)) if values else offset
    stored = storage._untyped_storage.nbytes() // storage.dtype.itemsize
    if min((offset, *size, *stride)) < 0 or max(last + 1 if values else 0, values) > stored:
        raise pickle.UnpicklingError(f"holds a tensor of {values} values in a storage of {stored}")
    return torch.empty(0, dtype=storage.dtype).set_(storage._untyped_storage, offset, size, stride)


# What pickles of arrays and tensors refer to, and what does it here.
_STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _PickledArray,
    ("numpy", "dtype"): _PickledType,
    ("numpy.core.multiarray", "_reconstruct"): lambda *_: _PickledArray(),
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
    # It could be asked to copy a list any number of times.
    ("collections", "OrderedDict"): lambda: OrderedDict(),
}
