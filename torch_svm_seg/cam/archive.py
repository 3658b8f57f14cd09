"""Reading ``.npz`` archives of others: plain arrays only, of no more bytes than they may have."""

import io
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torch_svm_seg.data.reading import PathLike, read_bytes, reading

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_MOST_ARRAYS = 64


def read_arrays(path: PathLike, most: int) -> dict[str, NDArray[Any]]:
    """Read the arrays of an archive by name; checksums are verified.

    Args:
        path: The file.
        most: Most bytes that the arrays may have together: a few bytes of a file can stand for terabytes.

    Raises:
        InputError: The file is missing, damaged or no such archive, holds objects, or more than ``most`` bytes.
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


def _array(content: bytes) -> NDArray[Any]:
    """Return the array in a file of NumPy; its values are those of the file, whatever its header claims."""
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = read_header(stream)
    if dtype.hasobject or dtype.kind not in "biufU":
        raise ValueError(f"holds an array of {dtype}")
    return np.frombuffer(content, dtype, offset=stream.tell()).reshape(shape, order="F" if is_fortran else "C")
