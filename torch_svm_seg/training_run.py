"""Training into a folder: checkpoints and logs, resumable from the last checkpoint.

``checkpoint.pt`` is the last state, with all that continuing needs; ``best.pt`` is the network with the best validation
score, where there is a validation to choose by; ``steps.csv`` and ``epochs.csv`` or ``checks.csv`` are the logs.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch_svm_seg.distributed import gathered
from torch_svm_seg.files import InputError
from torch_svm_seg.training import Step, Training
from torch_svm_seg.training_checkpoints import Checkpoint, read_checkpoint, save_checkpoint
from torch_svm_seg.training_log import CsvLog

CHECKPOINT_FILE, BEST_FILE = "checkpoint.pt", "best.pt"

Score = Callable[[], dict[str, float]]
"""Validates the network being trained; called on all processes, all get the same figures."""


@dataclass
class TrainingRun:
    """A training and the folder it goes into.

    Attributes:
        out: the folder.
        training: what to train; every process has its own.
        settings: all that the result depends on, in plain types.
        class_names: name of each class id, background first.
        unit: what the run is divided into, "epoch" or "check"; a checkpoint and a line in the log follow each.
        unit_steps: number of steps of a unit.
        score: validates the network after each unit; None if there is nothing to validate on.
        score_names: names of what `score` gives.
        chosen_by: name of the score whose best network is kept; None: only the last one is.
        best: the best score so far.
    """

    out: Path
    training: Training
    settings: dict[str, Any]
    class_names: Sequence[str]
    unit: str
    unit_steps: int
    score: Score | None
    score_names: Sequence[str]
    chosen_by: str | None = None
    best: float | None = None

    def claim(self, command: str, kind: str, resume: bool) -> None:
        """Brings the training to where the run in the folder stopped, or makes sure that there is none.

        Args:
            command: the command of ``train.py`` that trains.
            kind: a setting that only its checkpoints have.
            resume: whether to continue.

        Raises:
            InputError: the folder holds a run and `resume` is false, or a run of other settings or classes.
        """
        path = self.out / CHECKPOINT_FILE
        if not path.is_file():
            return
        if not resume:
            raise InputError(f"{path}: a run is there already; continue it with --resume, or give another --out")
        checkpoint = read_checkpoint(path, command, kind, self.class_names)
        changed = [
            f"{name} was {checkpoint.settings.get(name)!r}, now {value!r}"
            for name, value in self.settings.items()
            if checkpoint.settings.get(name) != value
        ]
        if changed:
            raise InputError(f"{path}: a run of other settings ({'; '.join(changed)}); give another --out")
        self.training.load_state_dict(checkpoint.state)
        self.best = checkpoint.best

    def train(self, on_step: Callable[[Step], object], writes: bool = True) -> None:
        """Trains what is left.

        Args:
            on_step: called after each step.
            writes: whether this process writes; exactly one of several must.
        """
        gathered(None)  # no process writes before all have read
        losses = self.training.network.loss_names
        if writes:
            steps, units = self._logs(losses)
        while not self.training.finished:
            start, sums, before = time.perf_counter(), dict.fromkeys(losses, 0.0), self.training.step

            def report(step: Step, sums: dict[str, float] = sums) -> None:
                for name, value in step.losses.items():
                    sums[name] += value
                if writes:
                    steps.write({"step": step.step, "learning_rate": step.learning_rate} | step.losses)
                on_step(step)

            self.training.run(self.unit_steps - before % self.unit_steps, report)
            means = {name: value / (self.training.step - before) for name, value in sums.items()}
            row = {"seconds": time.perf_counter() - start} | means
            scores = self.score() if self.score else {}
            if writes:
                row |= {f"val_{name}": value for name, value in scores.items()}
                units.write({self.unit: self._units_done, "step": self.training.step} | row)
            self._save(scores, writes)

    @property
    def _units_done(self) -> int:
        return -(-self.training.step // self.unit_steps)

    def _logs(self, losses: Sequence[str]) -> tuple[CsvLog, CsvLog]:
        columns = [self.unit, "step", "seconds", *losses, *(f"val_{name}" for name in self.score_names)]
        return (
            CsvLog(self.out / "steps.csv", ["step", *losses, "learning_rate"], self.training.step),
            CsvLog(self.out / f"{self.unit}s.csv", columns, self._units_done),
        )

    def _save(self, scores: dict[str, float], writes: bool) -> None:
        """Writes the checkpoints, the best first: killed in between, the unit is done again and both are the same."""
        state, names = self.training.state_dict(), tuple(self.class_names)
        value = scores.get(self.chosen_by or "")
        better = value is not None and (self.best is None or value > self.best)
        self.best = value if better else self.best
        if writes and better:
            network = {"model": state["model"]}
            save_checkpoint(self.out / BEST_FILE, Checkpoint(self.settings, names, network, self.best))
        if writes:
            save_checkpoint(self.out / CHECKPOINT_FILE, Checkpoint(self.settings, names, state, self.best))
