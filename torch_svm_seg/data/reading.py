"""Reading files that others wrote: regular files only, of limited size, and every failure names the file."""

import contextlib
import io
import os
import stat
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torch_svm_seg.data.errors import InputError, reason_of

PathLike = str | os.PathLike[str]

LARGEST_FILE = 2**32
"""Most bytes of one image, mask or file of maps."""

LARGEST_TEXT = 2**30
"""Most bytes of a list, of labels, or of COCO's annotations."""

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_MOST_ARRAYS = 64


@contextlib.contextmanager
def reading(path: PathLike) -> Iterator[None]:
    """Turn whatever goes wrong in the block into an InputError that names the file.

    Readers raise nearly anything on damaged files, which their documentation does not list; a file that takes too much
    memory or nests too deeply is one that cannot be used, too.

    Examples:
        >>> with reading("a.txt"):
        ...     int("no number")
        Traceback (most recent call last):
            ...
        torch_svm_seg.data.errors.InputError: a.txt: invalid literal for int() with base 10: 'no number'
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path}: {reason_of(error)}") from error


def read_bytes(path: PathLike, most: int = LARGEST_FILE) -> bytes:
    """Read a regular file; a pipe or a device, at which reading could wait for ever, is refused.

    Args:
        path: The file.
        most: Most bytes that it may have.

    Raises:
        InputError: The file is missing, larger or no regular file, or cannot be read.

    Examples:
        >>> import tempfile, pathlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "a")
        ...     _ = path.write_bytes(b"cat")
        ...     read_bytes(path)
        b'cat'
    """
    with reading(path):
        # Opening a pipe that nobody writes to would wait.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(path, flags), "rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InputError(f"{path}: not a regular file")
            if status.st_size > most:
                raise InputError(f"{path}: {status.st_size} bytes, more than the {most} that are read")
            return stream.read()


def read_text(path: PathLike) -> str:
    r"""Read a UTF-8 text file; a byte order mark, which Windows editors put in front, is left out.

    Raises:
        InputError: The file cannot be read, or is no UTF-8 text.

    Examples:
        >>> import tempfile, pathlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "names.txt")
        ...     _ = path.write_bytes(b"\xef\xbb\xbfcat")
        ...     read_text(path)
        'cat'
    """
    content = read_bytes(path, LARGEST_TEXT)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a UTF-8 text file") from error


def read_arrays(path: PathLike, most: int) -> dict[str, NDArray[Any]]:
    """Read the arrays of an archive by name; checksums are verified.

    Args:
        path: The file.
        most: Most bytes that the arrays may have together: a few bytes of a file can stand for terabytes.

    Raises:
        InputError: The file is missing, damaged or no such archive, holds objects, or more than ``most`` bytes.

    Examples:
        >>> import tempfile, pathlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "a.npz")
        ...     np.savez(path, maps=np.zeros((2, 3)))
        ...     read_arrays(path, most=1000)["maps"].shape
        (2, 3)
    """
    content = read_bytes(path)
    with reading(path), zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
        if len(members) > _MOST_ARRAYS or sum(member.file_size for member in members) > most:
            raise ValueError(
                f"holds {len(members)} arrays of {sum(m.file_size for m in members)} bytes, at most {most}"
            )
        if any(member.compress_type not in _METHODS or member.flag_bits & 1 for member in members):
            raise ValueError("is encrypted, or compressed as NumPy does not")
        return {member.filename.removesuffix(".npy"): _array(archive.read(member)) for member in members}


def read_array(path: PathLike) -> NDArray[Any]:
    """Read one array of NumPy, ``.npy``.

    Raises:
        InputError: The file is missing, damaged or no such array, or holds objects.

    Examples:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        ...     np.save(file.name, np.zeros((2, 3)))
        ...     read_array(file.name).shape
        (2, 3)
    """
    content = read_bytes(path)
    with reading(path):
        return _array(content)


def _array(content: bytes) -> NDArray[Any]:
    """Return the array in a file of NumPy; its values are those of the file, whatever its header claims."""
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = read_header(stream)
    if dtype.hasobject or dtype.kind not in "biufU":
        raise ValueError(f"holds an array of {dtype}")
    return np.frombuffer(content, dtype, offset=stream.tell()).reshape(shape, order="F" if is_fortran else "C")
