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

from tqdm import tqdm

from torch_svm_seg.data.errors import InputError, reason_of
from torch_svm_seg.data.io import remove_unfinished, write_text_atomically
from torch_svm_seg.data.provenance import RunSettings
from torch_svm_seg.data.reading import read_text, reading
from torch_svm_seg.training.checkpoints import Checkpoint, check_classes, read_checkpoint, save_checkpoint
from torch_svm_seg.training.distributed import gathered
from torch_svm_seg.training.trainer import Training, TrainingStep

CHECKPOINT_FILE, BEST_FILE = "checkpoint.pt", "best.pt"


def refuse_to_restart(out: Path, resume: bool) -> None:
    """Raise InputError if a folder holds a run that is not to be continued.

    Examples:
        >>> refuse_to_restart(Path("nowhere"), resume=False)
    """
    path = out / CHECKPOINT_FILE
    if path.is_file() and not resume:
        raise InputError(f"{path}: a run is there already; continue it with --resume, or give another --out")


@dataclass
class TrainingRun:
    """A training and the folder it goes into.

    Attributes:
        out: The folder.
        training: The training; every process has its own.
        settings: All that the result depends on; ``method`` among them.
        class_names: Name of each class id, background first; empty where there are none.
        measured: Names of the results of `after_unit`, for the log.
        after_unit: Called after each unit on all processes, before its checkpoint is written; returns results by name.
        unit: Part of the run that a checkpoint and a line in the log follow, "epoch" or "check".
        unit_steps: Number of steps of a unit; None for the steps of an epoch.
        chosen_by: Name of the result whose best network is kept; None: only the last one is.
        best: Best result so far.

    Examples:
        >>> run = TrainingRun(Path("runs/irn"), training, RunSettings({"method": "irn"}))  # doctest: +SKIP
        >>> run.open(resume=True)  # doctest: +SKIP
        >>> run.train(on_step=print)  # doctest: +SKIP
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

    def open(self, resume: bool) -> None:
        """Bring the training to where the run in the folder stopped, or make sure that there is none.

        Args:
            resume: Whether to continue a run that is there.

        Raises:
            InputError: The folder holds a run and `resume` is false, or a run of other settings, classes or version.
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
        except Exception as error:  # damaged states make optimizers raise nearly anything
            raise InputError(
                f"{path}: a run of another version cannot be continued, nor a damaged one ({reason_of(error)}); give "
                "another --out"
            ) from error
        self.best = checkpoint.best

    def train(self, on_step: Callable[[TrainingStep], object], writes: bool = True) -> None:
        """Do the steps that are left.

        Args:
            on_step: Called after each step.
            writes: Whether this process writes; exactly one of several must.
        """
        gathered(None)  # no process writes before all have read
        if writes:
            remove_unfinished(self.out)
        logs = self._open_logs() if writes else None
        while not self.training.finished:
            row = self._train_unit(on_step, logs)
            measured = dict(self.after_unit())
            if logs:
                logs.units.write(row | measured)
            self._save(measured, writes)

    def run(self, resume: bool, rank: int = 0) -> None:
        """Open the run and train, with a bar that shows the losses; the process of rank 0 writes.

        Raises:
            InputError: The folder holds a run that cannot be continued, or is not to be.
        """
        self.open(resume)
        training, quiet = self.training, None if rank == 0 else True
        with tqdm(total=training.steps, initial=training.step, unit="step", disable=quiet) as bar:

            def show(step: TrainingStep) -> None:
                bar.set_postfix({name: f"{value:.3f}" for name, value in step.losses.items()}, refresh=False)
                bar.update()

            self.train(show, writes=rank == 0)

    @property
    def _length(self) -> int:
        return self.unit_steps or self.training.steps_per_epoch

    def _open_logs(self) -> "_Logs":
        losses, step = self.training.network.loss_names, self.training.step
        done = -(-step // self._length)  # the last one may have been shorter
        columns = [self.unit, "step", "seconds", *losses, *self.measured]
        return _Logs(
            CsvLog(self.out / "steps.csv", ["step", *losses, "learning_rate"], step),
            CsvLog(self.out / f"{self.unit}s.csv", columns, done),
        )

    def _train_unit(self, on_step: Callable[[TrainingStep], object], logs: "_Logs | None") -> dict[str, float]:
        """Do the steps of a unit, and return its row in the log."""
        start, before = time.perf_counter(), self.training.step
        sums = dict.fromkeys(self.training.network.loss_names, 0.0)

        def report(step: TrainingStep) -> None:
            for name, value in step.losses.items():
                sums[name] += value
            if logs:
                logs.steps.write({"step": step.step, "learning_rate": step.learning_rate} | step.losses)
            on_step(step)

        self.training.run(self._length, report)
        done = self.training.step - before
        row = {self.unit: before // self._length + 1, "step": self.training.step}
        means = {name: value / done for name, value in sums.items()}
        return row | {"seconds": time.perf_counter() - start} | means

    def _save(self, measured: Mapping[str, float], writes: bool) -> None:
        """Write the checkpoints, the best first: killed in between, the unit is done again and both are the same."""
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
        path: The file; missing parent folders are created.
        columns: Names of the columns; the first one counts up.
        keep: Rows that are there already stay if their first column is at most this; the others, which an interrupted
            epoch wrote, are removed.

    Raises:
        InputError: The file is no log of these columns.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "steps.csv"
        >>> CsvLog(path, ["step", "loss"]).write({"step": 1, "loss": 0.5})
        >>> path.read_text().splitlines()
        ['step,loss', '1,0.5']
    """

    def __init__(self, path: Path, columns: Sequence[str], keep: int = 0) -> None:
        self._path, self._columns = path, list(columns)
        kept = [row for row in self._rows() if int(row[0]) <= keep] if keep and path.is_file() else []
        write_text_atomically(path, "".join(map(_line, [self._columns, *kept])))

    def write(self, row: Mapping[str, float | int]) -> None:
        """Append a row, given by column names; columns without a value stay empty."""
        cells = [row.get(name, "") for name in self._columns]
        text = _line([f"{cell:.6g}" if isinstance(cell, float) else str(cell) for cell in cells])
        with open(self._path, "a", encoding="utf-8", newline="") as stream:
            stream.write(text)

    def _rows(self) -> list[list[str]]:
        with reading(self._path):
            header, *rows = list(csv.reader(read_text(self._path).splitlines())) or [[]]
        if header != self._columns or any(not row or not row[0].isdecimal() for row in rows):
            raise InputError(f"{self._path}: not a log of the columns {', '.join(self._columns)}")
        return rows


@dataclass(frozen=True)
class _Logs:
    """The logs of a run.

    Attributes:
        steps: One row per step.
        units: One row per unit.
    """

    steps: CsvLog
    units: CsvLog


def _line(cells: Sequence[str]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerow(cells)
    return stream.getvalue()
