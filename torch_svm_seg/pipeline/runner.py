"""How commands run: a training with its progress, and files written for each image of a data set."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.run_settings import RunSettings
from torch_svm_seg.pipeline.run_folder import SPOILT, Progress, open_run, print_skipped, skip_reason, write_record
from torch_svm_seg.training.distributed import gathered
from torch_svm_seg.training.run import TrainingRun
from torch_svm_seg.training.trainer import Step


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
    """

    total: Progress
    now: Progress


def run_shares(
    out: Path,
    settings: RunSettings,
    files: Sequence[Sequence[Path]],
    work: Callable[[Sequence[int], Progress, Callable[[], object]], object],
    overwrite: bool,
    rank: int,
    number: int,
) -> Outcome:
    """Let each process do its share of the images that miss a file, and keep the record of the run.

    Args:
        out: Folder of the files and of the record.
        settings: What the files depend on: all of a folder have the same.
        files: The files of each image.
        work: Does the images of some indices; fills the progress, and reports whenever there is some.
        overwrite: Whether to write files that are there.
        rank: Number of this process.
        number: Number of processes.

    Raises:
        InputError: The folder holds files of other settings.
    """
    total, own = Progress(), Progress()
    if rank == 0:
        total = open_run(out, settings, overwrite, (file for each in files for file in each))
    # The first process looks for all, and before any writes: a network's file system may show them different files.
    missing = (
        [index for index, each in enumerate(files) if not all(file.is_file() for file in each)] if rank == 0 else []
    )
    share = gathered(missing)[0][rank::number]
    with tqdm(total=len(share), unit="image", disable=None if rank == 0 else True) as bar:
        try:
            work(share, own, lambda: bar.update(own.images + len(own.skipped) - bar.n))
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
        write_record(out, settings, total, finished=True)
    return Outcome(total, now)


def for_each(
    dataset: ImageDataset,
    write: Callable[[int], None],
    paths: Sequence[Path],
    out: Path,
    settings: RunSettings,
    overwrite: bool,
    rank: int,
    number: int,
) -> int:
    """Write one file per image, each process its share, report on all, and return the exit code.

    Args:
        dataset: The images.
        write: Writes the file of the image of an index; what it raises of SPOILT skips the image.
        paths: The files.
        out: Folder of the files and of the record.
        settings: What the files depend on: all of a folder have the same.
        overwrite: Whether to write files that are there.
        rank: Number of this process.
        number: Number of processes.
    """

    def work(share: Sequence[int], progress: Progress, report: Callable[[], object]) -> None:
        for index in share:
            try:
                write(index)
                progress.images += 1
            except SPOILT as error:
                progress.skipped[dataset.ids[index]] = skip_reason(error)
            report()

    start = time.perf_counter()
    now = run_shares(out, settings, [[path] for path in paths], work, overwrite, rank, number).now
    if rank == 0:
        seconds, done, skipped = time.perf_counter() - start, now.images, len(now.skipped)
        print_skipped(now.skipped)
        there = len(paths) - done - skipped
        print(
            f"{done} images in {seconds:.0f} s, {there} were there, {skipped} skipped; they are "
            f"{out}/ID{paths[0].suffix}"
        )
    return 1 if now.skipped else 0
