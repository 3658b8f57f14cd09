"""Training into a folder: ``checkpoint.pt``, ``steps.csv`` and ``epochs.csv``, resumable by epochs."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch_svm_seg.distributed import gathered
from torch_svm_seg.files import InputError
from torch_svm_seg.training import Step, Training
from torch_svm_seg.training_checkpoints import Checkpoint, read_checkpoint, save_checkpoint
from torch_svm_seg.training_log import CsvLog

CHECKPOINT_FILE = "checkpoint.pt"


def claim_run(
    out: Path, training: Training, settings: dict[str, Any], class_names: Sequence[str], resume: bool
) -> None:
    """Brings a training to where the run in a folder stopped, or makes sure that there is none.

    Args:
        out: the folder.
        training: the training.
        settings: all that the result depends on, in plain types; ``method`` among them.
        class_names: name of each class id, background first.
        resume: whether to continue a run that is there.

    Raises:
        InputError: the folder holds a run and `resume` is false, or a run of other settings or classes.
    """
    path = out / CHECKPOINT_FILE
    if not path.is_file():
        return
    if not resume:
        raise InputError(f"{path}: a run is there already; continue it with --resume, or give another --out")
    checkpoint = read_checkpoint(path, class_names)
    changed = [
        f"{name} was {checkpoint.settings.get(name)!r}, now {value!r}"
        for name, value in settings.items()
        if checkpoint.settings.get(name) != value
    ]
    if changed:
        raise InputError(f"{path}: a run of other settings ({'; '.join(changed)}); give another --out")
    training.load_state_dict(checkpoint.state)


def train_into(
    out: Path,
    training: Training,
    settings: dict[str, Any],
    class_names: Sequence[str],
    measured: Sequence[str],
    after_epoch: Callable[[], Mapping[str, float]],
    on_step: Callable[[Step], object],
    writes: bool = True,
) -> None:
    """Trains the epochs that are left, with a checkpoint and a line in the log after each.

    Args:
        out: folder to write to.
        training: what to train; every process has its own.
        settings: all that the result depends on, in plain types.
        class_names: name of each class id, background first.
        measured: names of what `after_epoch` may give, for the log.
        after_epoch: called after each epoch on all processes, before the checkpoint is written.
        on_step: called after each step.
        writes: whether this process writes; exactly one of several must.
    """
    gathered(None)  # no process writes before all have read
    losses = training.network.loss_names
    if writes:
        steps = CsvLog(out / "steps.csv", ["step", *losses, "learning_rate"], training.step)
        epochs = CsvLog(out / "epochs.csv", ["epoch", "seconds", *losses, *measured], training.epoch)
    while not training.finished:
        start, sums = time.perf_counter(), dict.fromkeys(losses, 0.0)

        def report(step: Step, sums: dict[str, float] = sums) -> None:
            for name, value in step.losses.items():
                sums[name] += value / training.steps_per_epoch
            if writes:
                steps.write({"step": step.step, "learning_rate": step.learning_rate} | step.losses)
            on_step(step)

        training.run_epoch(report)
        row = {"epoch": training.epoch, "seconds": time.perf_counter() - start} | sums | dict(after_epoch())
        if writes:
            epochs.write(row)
            save_checkpoint(out / CHECKPOINT_FILE, Checkpoint(settings, tuple(class_names), training.state_dict()))
