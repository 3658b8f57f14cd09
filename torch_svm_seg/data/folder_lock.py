"""One run at a time in a folder."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from torch_svm_seg.data.errors import InputError

LOCK_FILE = ".run.lock"

_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder for the time of the block.

    The system holds the lock for this process: it ends with the process, however that ends.

    Args:
        folder: The folder; it is made if it is missing.

    Raises:
        InputError: Another run holds it.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, locked(Path(folder)):
        ...     pass  # no other run writes here
    """
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK_FILE
    descriptor = _held(path)
    try:
        yield
    finally:
        # Before the lock ends: a file that was deleted after it would be another run's.
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(descriptor)
        with contextlib.suppress(OSError):  # once one is not empty
            for parent in made:
                parent.rmdir()


def _held(path: Path) -> int:
    """Return the lock file, opened and locked."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor)
            # A run that just ended may have deleted the file in between; then others lock a new one.
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                print(f"{path.parent}: this file system has no locks; let no other run write into it", file=sys.stderr)
                return descriptor
            os.close(descriptor)
            raise InputError(
                f"{path.parent}: another run is writing into it; wait for its end, or give another --out"
            ) from error
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    """Lock a file, or raise OSError where another process has."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
