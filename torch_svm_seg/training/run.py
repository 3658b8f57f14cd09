"""Training into a folder: checkpoints and logs, resumable from the last checkpoint.

``checkpoint.pt`` is the last state, with all that continuing needs; ``best.pt`` is the network with the best validation
score, where one is to be chosen; ``steps.csv`` and ``epochs.csv`` or ``checks.csv`` are the logs.
"""

import csv
import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import write_text_atomically
from torch_svm_seg.data.run_settings import RunSettings
from torch_svm_seg.training.checkpoints import Checkpoint, check_classes, read_checkpoint, save_checkpoint
from torch_svm_seg.training.distributed import gathered
from torch_svm_seg.training.trainer import Step, Training

CHECKPOINT_FILE, BEST_FILE = "checkpoint.pt", "best.pt"


def refuse_to_restart(out: Path, resume: bool) -> None:
    """Raises InputError if a folder holds a run that is not to be continued."""
    path = out / CHECKPOINT_FILE
    if path.is_file() and not resume:
        raise InputError(f"{path}: a run is there already; continue it with --resume, or give another --out")


@dataclass
class TrainingRun:
    """A training and the folder it goes into.

    Attributes:
        out: the folder.
        training: what to train; every process has its own.
        settings: all that the result depends on; ``method`` among them.
        class_names: name of each class id, background first.
        measured: names of what `after_unit` may give, for the log.
        after_unit: called after each unit on all processes, before its checkpoint is written.
        unit: what the run is divided into, "epoch" or "check"; a checkpoint and a line in the log follow each.
        unit_steps: number of steps of a unit; None for the steps of an epoch.
        chosen_by: name of what is measured whose best network is kept; None: only the last one is.
        best: the best so far.
    """

    out: Path
    training: Training
    settings: RunSettings
    class_names: Sequence[str] = ()
    measured: Sequence[str] = ()
    after_unit: Callable[[], Mapping[str, float]] = dict
    unit: str = "epoch"
    unit_steps: int | None = None
    chosen_by: str | None = None
    best: float | None = None

    def claim(self, resume: bool) -> None:
        """Brings the training to where the run in the folder stopped, or makes sure that there is none.

        Args:
            resume: whether to continue a run that is there.

        Raises:
            InputError: the folder holds a run and `resume` is false, or a run of other settings or classes.
        """
        path = self.out / CHECKPOINT_FILE
        if not path.is_file():
            return
        refuse_to_restart(self.out, resume)
        checkpoint = read_checkpoint(path)
        check_classes(path, checkpoint, self.class_names)
        changes = self.settings.changes(checkpoint.settings)
        if changes:
            raise InputError(f"{path}: a run of other settings ({changes}); give another --out")
        if "optimizer" not in checkpoint.state:
            raise InputError(f"{path}: holds a network but not the state of its training, as {BEST_FILE} does")
        try:
            self.training.load_state_dict(checkpoint.state)
        except (RuntimeError, ValueError) as error:
            raise InputError(f"{path}: a run of another version cannot be continued; give another --out") from error
        self.best = checkpoint.best

    def train(self, on_step: Callable[[Step], object], writes: bool = True) -> None:
        """Trains what is left.

        Args:
            on_step: called after each step.
            writes: whether this process writes; exactly one of several must.
        """
        gathered(None)  # no process writes before all have read
        training = self.training
        losses = training.network.loss_names
        length = self.unit_steps or training.steps_per_epoch
        if writes:
            steps = CsvLog(self.out / "steps.csv", ["step", *losses, "learning_rate"], training.step)
            columns = [self.unit, "step", "seconds", *losses, *self.measured]
            done = -(-training.step // length)  # the last one may have been shorter
            units = CsvLog(self.out / f"{self.unit}s.csv", columns, done)
        while not training.finished:
            start, before, sums = time.perf_counter(), training.step, dict.fromkeys(losses, 0.0)

            def report(step: Step, sums: dict[str, float] = sums) -> None:
                for name, value in step.losses.items():
                    sums[name] += value
                if writes:
                    steps.write({"step": step.step, "learning_rate": step.learning_rate} | step.losses)
                on_step(step)

            training.run(length, report)
            row = {"seconds": time.perf_counter() - start}
            row |= {name: value / (training.step - before) for name, value in sums.items()}
            measured = dict(self.after_unit())
            if writes:
                units.write({self.unit: before // length + 1, "step": training.step} | row | measured)
            self._save(measured, writes)

    def _save(self, measured: Mapping[str, float], writes: bool) -> None:
        """Writes the checkpoints, the best first: killed in between, the unit is done again and both are the same."""
        state, names = self.training.state_dict(), tuple(self.class_names)
        value = measured.get(self.chosen_by or "")
        better = value is not None and (self.best is None or value > self.best)
        self.best = value if better else self.best
        if writes and better:
            network = {"model": state["model"]}
            save_checkpoint(self.out / BEST_FILE, Checkpoint(dict(self.settings.values), names, network, self.best))
        if writes:
            save_checkpoint(self.out / CHECKPOINT_FILE, Checkpoint(dict(self.settings.values), names, state, self.best))


class CsvLog:
    """A CSV file that rows are appended to; each is on the disk when :meth:`write` returns.

    Args:
        path: the file; missing parent folders are created.
        columns: names of the columns; the first one counts up.
        keep: of rows that are there already, those whose first column is at most this; the others, which an
            interrupted epoch wrote, are removed.

    Raises:
        InputError: what is there is no log of these columns.
    """

    def __init__(self, path: Path, columns: Sequence[str], keep: int = 0) -> None:
        self._path, self._columns = path, list(columns)
        kept = [row for row in self._rows() if int(row[0]) <= keep] if keep and path.is_file() else []
        write_text_atomically(path, "".join(map(_line, [self._columns, *kept])))

    def write(self, row: Mapping[str, float | int]) -> None:
        """Appends a row, given by column names; columns without a value stay empty."""
        cells = [row.get(name, "") for name in self._columns]
        text = _line([f"{cell:.6g}" if isinstance(cell, float) else str(cell) for cell in cells])
        with open(self._path, "a", encoding="utf-8", newline="") as stream:
            stream.write(text)

    def _rows(self) -> list[list[str]]:
        with open(self._path, encoding="utf-8", newline="") as stream:
            header, *rows = list(csv.reader(stream)) or [[]]
        if header != self._columns or any(not row or not row[0].isdigit() for row in rows):
            raise InputError(f"{self._path}: not a log of the columns {', '.join(self._columns)}")
        return rows


def _line(cells: Sequence[str]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerow(cells)
    return stream.getvalue()
