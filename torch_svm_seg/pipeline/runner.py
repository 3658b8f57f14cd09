"""How commands run: a training with its progress, and files written for each image of a data set."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.pipeline.run_folder import SPOILT, Progress, open_run, print_skipped, skip_reason, write_record
from torch_svm_seg.training.distributed import gathered
from torch_svm_seg.training.run import TrainingRun
from torch_svm_seg.training.trainer import Step


def train(run: TrainingRun, resume: bool, rank: int) -> None:
    """Train, with a bar that shows the losses."""
    run.claim(resume)
    training = run.training
    with tqdm(total=training.steps, initial=training.step, unit="step", disable=None if rank == 0 else True) as bar:

        def show(step: Step) -> None:
            bar.set_postfix({name: f"{value:.3f}" for name, value in step.losses.items()}, refresh=False)
            bar.update()

        run.train(show, writes=rank == 0)


def for_each(
    dataset: ImageDataset,
    write: Callable[[int], None],
    paths: Sequence[Path],
    out: Path,
    settings: dict[str, Any],
    overwrite: bool,
    rank: int,
    number: int,
) -> int:
    """Write a file for each image, this process its share, and report on all; returns the exit code.

    Args:
        dataset: the images.
        write: writes the file of the image at a place; what it raises of SPOILT skips it.
        paths: of the files.
        out: folder of the files and of the record.
        settings: what the files depend on: all of a folder have the same.
        overwrite: whether to write files that are there.
        rank: number of this process.
        number: number of processes.
    """
    if rank == 0:
        progress = open_run(out, settings, overwrite, paths)
    gathered(None)  # no process looks before old files are gone
    places = [place for place, path in enumerate(paths) if not path.is_file()]
    gathered(None)  # and none writes before all have looked
    start = time.perf_counter()
    own = Progress()
    for place in tqdm(places[rank::number], unit="image", disable=None if rank == 0 else True):
        try:
            write(place)
            own.images += 1
        except SPOILT as error:
            own.skipped[dataset.ids[place]] = skip_reason(error)
    parts = gathered(own)
    merged = Progress()
    for part in parts:
        merged.add(part)
    if rank == 0:
        seconds, done = time.perf_counter() - start, merged.images
        progress.add(merged)
        write_record(out, settings, progress, finished=True)
        print_skipped(progress.skipped)
        skipped = len(progress.skipped)
        there = len(paths) - done - skipped
        print(
            f"{done} images in {seconds:.0f} s, {there} were there, {skipped} skipped; they are "
            f"{out}/ID{paths[0].suffix}"
        )
    return 1 if merged.skipped else 0
