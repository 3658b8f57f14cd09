"""What the folder of a run holds, and what the record in it vouches for.

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
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import PathLike, write_text_atomically
from torch_svm_seg.data.run_settings import RunSettings

SETTINGS_FILE = "run.json"
SPOILT = (ValueError, torch.OutOfMemoryError, torch.linalg.LinAlgError)  # type: ignore[attr-defined]
"""What an image that cannot be used raises: bad files and values, too many pixels, problems without a solution."""


@dataclass
class Progress:
    """What a run did, on one process or on all of them.

    Attributes:
        images: Images done.
        seconds: Time that each name's masks took, from features and knowledge on: fit, prediction, refinement.
        restored: Number of objects that had vanished from each name's masks and were given their seed back.
        skipped: Image id -> why it could not be done.
        unseeded: Number of classes that images are labelled with and that no pixel of their seed has.
    """

    images: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    restored: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    unseeded: int = 0

    def add(self, other: "Progress") -> None:
        """Take in what another process, or another part of the same run, did."""
        self.images += other.images
        for name, seconds in other.seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        for name, restored in other.restored.items():
            self.restored[name] = self.restored.get(name, 0) + restored
        self.skipped |= other.skipped
        self.unseeded += other.unseeded

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
    earlier = Progress()
    if record and not changes and not overwrite:
        earlier = Progress(record["images"], record["seconds"], record["restored"], unseeded=record["unseeded"])
    write_record(out, settings, earlier, finished=False)
    return earlier


def write_record(out: Path, settings: RunSettings, progress: Progress, finished: bool) -> None:
    """Write ``run.json``."""
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
    }
    write_text_atomically(out / SETTINGS_FILE, json.dumps(record, indent=2) + "\n")


def folder_digest(folder: PathLike | None) -> str | None:
    """Tells a run's folder from another one of the same name: its name and a hash of the settings in its record.

    A folder without a record, or with one that cannot be read, is given back as it is.
    """
    try:
        settings = json.loads((Path(folder or "") / SETTINGS_FILE).read_text())["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        return None if folder is None else str(folder)
    text = json.dumps(settings, sort_keys=True)
    return f"{Path(folder or '').name} {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def print_skipped(skipped: dict[str, str], most: int = 20) -> None:
    """Print the first of the images that could not be done, and why."""
    for id, reason in list(skipped.items())[:most]:
        print(f"skipped {id}: {reason}")
    if len(skipped) > most:
        print(f"skipped {len(skipped) - most} more, which {SETTINGS_FILE} lists")


def skip_reason(error: Exception) -> str:
    """Why an image was skipped, in one line."""
    return str(error) if isinstance(error, ValueError) else str(error).splitlines()[0]


def _read_record(path: Path, overwrite: bool) -> dict[str, Any]:
    """The record of a run; empty if there is none, or none that can be read and it is to be overwritten."""
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text())
        needed = {name: record[name] for name in ("settings", "images", "seconds", "restored")}
        return needed | {"unseeded": record.get("unseeded", 0)}
    except (ValueError, KeyError, TypeError) as error:
        if overwrite:
            return {}
        raise InputError(f"{path}: not the record of a run ({error}); give another --out, or overwrite it") from error


def _changes(record: dict[str, Any], settings: RunSettings) -> str:
    """Return in which settings a run differs from the recorded one; empty if in none."""
    if not record:
        return f"unknown ones, without a {SETTINGS_FILE}"
    # Earlier versions kept the choice of images apart.
    return settings.changes(record["settings"] | record["settings"].get("data", {}))


def _others(out: Path, own: set[Path]) -> set[Path]:
    """Files in a folder that are like a run's own, of their depth and type, but are not."""
    kinds = {(len(file.relative_to(out).parts), file.suffix) for file in own}
    return {file for depth, suffix in kinds for file in out.glob("*/" * (depth - 1) + f"*{suffix}")} - own
