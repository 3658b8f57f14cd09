"""The folder of a run: outputs and their ``run.json``.

``DIR/run.json`` says with which settings the files in the folder were made: a run continues only with the same ones,
and at no time does the folder hold files of other settings than it says.
"""

import hashlib
import json
import platform
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import torch_svm_seg
from torch_svm_seg.data.errors import InputError, one_line, reason_of
from torch_svm_seg.data.io import remove_unfinished, write_text_atomically
from torch_svm_seg.data.notes import counted, first_few
from torch_svm_seg.data.provenance import RunSettings, with_checksum, without_checksum
from torch_svm_seg.data.reading import PathLike, read_bytes, reading
from torch_svm_seg.pipeline.image_log import ImageEntry, numbers

SETTINGS_FILE = "run.json"
_KEYS = {
    "settings",
    "versions",
    "machine",
    "written",
    "finished",
    "images",
    "seconds",
    "restored",
    "unseeded",
    "skipped",
    "notes",
}
_LARGEST_RECORD = 2**28  # bytes
# Bad files and values, too many pixels, problems without a solution.
_SPOILT = (ValueError, MemoryError, torch.OutOfMemoryError, torch.linalg.LinAlgError)  # type: ignore[attr-defined]
_NO_MEMORY = ("DefaultCPUAllocator", "alloc_cpu", "not enough memory")  # in PyTorch's plain RuntimeErrors


@dataclass
class Progress:
    """The progress of a run, on one process or on all of them.

    Attributes:
        images: Images done.
        seconds: Time that each name's masks took, from features and supervision on: fit, prediction, refinement.
        restored: Number of classes of images that were restored from their seed, having vanished from each name's mask.
        skipped: Image id -> why it could not be done.
        unseeded: Number of classes that images are labelled with and that no pixel of their seed has.
        notes: Number of images that each note on how files were read is about.

    Examples:
        >>> progress = Progress.of([ImageEntry("a", "0f3a", {"F4": 0.5}), ImageEntry("b", "9c21", {"F4": 1.5})])
        >>> progress.images, progress.seconds_per_image()
        (2, {'F4': 1.0})
    """

    images: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    restored: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    unseeded: int = 0
    notes: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, entries: Iterable[ImageEntry]) -> "Progress":
        """Add up what was done with images."""
        total = cls()
        for entry in entries:
            notes = dict.fromkeys(entry.notes, 1)
            total.add(cls(1, dict(entry.seconds), dict(entry.restored), {}, entry.unseeded, notes))
        return total

    def add(self, other: "Progress") -> None:
        """Take in what another process, or another part of the same run, did."""
        self.images += other.images
        for name, seconds in other.seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        for name, restored in other.restored.items():
            self.restored[name] = self.restored.get(name, 0) + restored
        self.skipped |= other.skipped
        self.unseeded += other.unseeded
        for note, number in other.notes.items():
            self.notes[note] = self.notes.get(note, 0) + number

    def seconds_per_image(self) -> dict[str, float]:
        """Mean time of each name's masks."""
        return {name: seconds / max(self.images, 1) for name, seconds in self.seconds.items()}


def open_run(out: Path, settings: RunSettings, overwrite: bool, files: Iterable[Path]) -> Progress:
    """Write the settings into a folder, and give what an earlier run of the same settings did there.

    Args:
        out: The folder.
        settings: What the files in it depend on.
        overwrite: Whether to delete ``files`` first.
        files: What the run is to write.

    Raises:
        InputError: The folder holds files of other settings, or of unknown ones, that this run would take for its own
            or leave beside its own.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     progress = open_run(Path(folder), RunSettings({"C": 1.0}), False, [Path(folder, "a.png")])
        ...     progress.images, Path(folder, SETTINGS_FILE).is_file()
        (0, True)
    """
    own = set(files)
    record = _read_record(out / SETTINGS_FILE, overwrite)
    changes = _changes(record, settings)
    if changes and not overwrite and any(file.is_file() for file in own):
        raise InputError(f"{out}: holds results of other settings ({changes}); give another --out, or overwrite it")
    if changes and (others := _others(out, own)):
        raise InputError(
            f"{out}: holds {len(others)} more results of other settings ({changes}), which would stay, such as "
            f"{min(others)}; delete them, or give another --out"
        )
    for file in own if overwrite else ():
        file.unlink(missing_ok=True)
    for folder in {out, *(file.parent for file in own)}:
        remove_unfinished(folder)
    earlier = Progress()
    if record and not changes and not overwrite:
        earlier = Progress(record["images"], record["seconds"], record["restored"], unseeded=record["unseeded"])
    write_record(out, settings, earlier, finished=False)
    return earlier


def write_record(out: Path, settings: RunSettings, progress: Progress, finished: bool) -> None:
    """Write ``run.json``.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_record(Path(folder), RunSettings({"C": 1.0}), Progress(images=2), finished=True)
        ...     record = json.loads(Path(folder, SETTINGS_FILE).read_text())
        >>> record["settings"], record["images"], record["finished"]
        ({'C': 1.0}, 2, True)
    """
    record = {
        "settings": dict(settings.values),
        "versions": {
            "torch_svm_seg": torch_svm_seg.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "machine": {"platform": platform.platform(), "threads": torch.get_num_threads()},
        "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "finished": finished,
        "images": progress.images,
        "seconds": progress.seconds,
        "restored": progress.restored,
        "skipped": progress.skipped,
        "unseeded": progress.unseeded,
        "notes": progress.notes,
    }
    write_text_atomically(out / SETTINGS_FILE, json.dumps(with_checksum(record), indent=2) + "\n")


def folder_digest(folder: PathLike | None) -> str | None:
    """Return what tells a run's folder from another one of the same name: its name and a hash of its settings.

    A folder without a record, or with one that cannot be read, is returned as it is. What lies in the folder may
    change: the files that an image is made from have a digest of their own, see
    :class:`~torch_svm_seg.pipeline.image_log.ImageEntry`.

    Examples:
        >>> folder_digest("folder without a record"), folder_digest(None)
        ('folder without a record', None)
    """
    if folder is None:
        return None
    try:
        settings = without_checksum(_json(Path(folder) / SETTINGS_FILE))["settings"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return str(folder)
    text = json.dumps(settings, sort_keys=True)
    return f"{Path(folder).name} {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def print_notes(general: Iterable[str], notes: dict[str, int]) -> None:
    """Print how files were read where their form left it open.

    Examples:
        >>> print_notes(["2 files are no images"], {"mask read by its colours": 3})
        note: 2 files are no images
        note: mask read by its colours: 3 images
    """
    for line in [*general, *counted(notes)]:
        print(f"note: {one_line(line)}")


def print_skipped(skipped: dict[str, str], most: int = 20) -> None:
    """Print the first of the images that could not be done, and why.

    Examples:
        >>> print_skipped({"a": "truncated PNG", "b": "no mask", "c": "no mask"}, most=1)
        skipped a: truncated PNG
        skipped 2 more, which run.json lists
    """
    for id, reason in list(skipped.items())[:most]:
        print(f"skipped {id}: {reason}")
    if len(skipped) > most:
        print(f"skipped {len(skipped) - most} more, which {SETTINGS_FILE} lists")


def skip_reason(error: Exception) -> str:
    """Return in one line why an image was skipped.

    Examples:
        >>> skip_reason(MemoryError())
        'not enough memory'
    """
    return one_line(str(error)) if isinstance(error, ValueError) else reason_of(error)


def spoils_one_image(error: Exception) -> bool:
    """Whether an error is an image's: only that image is skipped, and all others can be done.

    Any other error, such as a full disk or a device that fails, ends the run.
    """
    return isinstance(error, _SPOILT) or is_out_of_memory(error)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that there is no memory left; on the CPU, PyTorch raises a plain RuntimeError."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY)
    )


def _json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        InputError: It cannot be read.
    """
    content = read_bytes(path, _LARGEST_RECORD)
    with reading(path):
        return json.loads(content)


def _read_record(path: Path, overwrite: bool) -> dict[str, Any]:
    """Return the record of a run; empty if there is none, or none that can be read and it is to be overwritten."""
    if not path.is_file():
        return {}
    try:
        record = without_checksum(_json(path))
        if strange := record.keys() - _KEYS:
            raise ValueError(f"unknown entries {first_few(sorted(strange))}")
        if not isinstance(record["settings"], dict):
            raise TypeError("settings are no object")
        return {
            "settings": record["settings"],
            "images": int(numbers({"images": record["images"]})["images"]),
            "seconds": numbers(record["seconds"]),
            "restored": {name: int(value) for name, value in numbers(record["restored"]).items()},
            "unseeded": int(numbers({"": record.get("unseeded", 0)})[""]),
        }
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        if overwrite:
            return {}
        reason = reason_of(error)
        raise InputError(f"{path}: not the record of a run ({reason}); give another --out, or overwrite it") from error


def _changes(record: dict[str, Any], settings: RunSettings) -> str:
    """Return in which settings a run differs from the recorded one; empty if in none."""
    if not record:
        return f"unknown ones, without a {SETTINGS_FILE}"
    # Earlier versions kept the choice of images apart.
    apart = record["settings"].get("data")
    return settings.changes(record["settings"] | (apart if isinstance(apart, dict) else {}))


def _others(out: Path, own: set[Path]) -> set[Path]:
    """Files in a folder that are like a run's own, of their depth and type, but are not."""
    kinds = {(len(file.relative_to(out).parts), file.suffix) for file in own}
    return {file for depth, suffix in kinds for file in out.glob("*/" * (depth - 1) + f"*{suffix}")} - own
