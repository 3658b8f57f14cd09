"""How long the steps of a pipeline took, and how long those that are left will take."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from torch_svm_seg.data.io import write_text_atomically
from torch_svm_seg.data.reading import read_text
from torch_svm_seg.pipeline.image_log import numbers


@dataclass(frozen=True)
class StepTime:
    """The time and work of a step.

    Attributes:
        seconds: Time, of all its runs until it was done.
        work: How much it did: images, times the passes over them, or steps of a training.
        done: Whether it was done to its end; 1 or 0.

    Examples:
        >>> StepTime(seconds=60.0, work=120, done=1)
        StepTime(seconds=60.0, work=120, done=1)
    """

    seconds: float
    work: float
    done: float


@dataclass
class StepTimes:
    """The times of a pipeline's steps, kept in a file so that a run that continues knows them.

    The recipe tells how many seconds each unit of work takes on some machine. How much slower this machine is, all
    steps that were done here tell together.

    Attributes:
        path: The file.
        pace: Seconds that a unit of work takes, by the name of the step; of some machine.
        steps: What steps took here, by name.

    Examples:
        >>> import tempfile
        >>> times = StepTimes.open(Path(tempfile.mkdtemp(), "times.json"), {"maps": 0.5, "masks": 1.0})
        >>> times.left([("masks", 100)]) is None
        True
        >>> times.add("maps", seconds=100.0, work=100, done=True)
        >>> times.left([("masks", 100)])  # this machine takes twice as long
        200.0
    """

    path: Path
    pace: Mapping[str, float]
    steps: dict[str, StepTime] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, pace: Mapping[str, float]) -> "StepTimes":
        """Return the times in a file, which may be missing; one that cannot be read holds none."""
        try:
            content = json.loads(read_text(path)) if path.is_file() else {}
            steps = {name: StepTime(**numbers(values)) for name, values in content.items()}
        except (ValueError, TypeError, AttributeError):
            steps = {}
        return cls(path, pace, steps)

    def is_done(self, name: str, work: float) -> bool:
        """Whether a step was done to its end, and as much of it as is asked for now."""
        found = self.steps.get(name)
        return found is not None and bool(found.done) and found.work >= work

    def add(self, name: str, seconds: float, work: float, done: bool) -> None:
        """Note how long a step ran now; one that was done before is only looked at, which says nothing."""
        if self.is_done(name, work):
            return
        before = self.steps.get(name)
        self.steps[name] = StepTime(seconds + (before.seconds if before else 0.0), work, float(done))
        content = {name: asdict(step) for name, step in self.steps.items()}
        write_text_atomically(self.path, json.dumps(content, indent=2) + "\n")

    def left(self, steps: Sequence[tuple[str, float]]) -> float | None:
        """Return the seconds that steps, given by name and work, will take; None where that is not known."""
        done = {name: step for name, step in self.steps.items() if step.done and name in self.pace}
        expected = sum(self.pace[name] * step.work for name, step in done.items())
        left = [(name, work) for name, work in steps if not self.is_done(name, work)]
        if not expected or any(name not in self.pace for name, _ in left):
            return None
        slower = sum(step.seconds for step in done.values()) / expected
        return slower * sum(self.pace[name] * work for name, work in left)
