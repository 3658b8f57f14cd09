"""Expanding a whole data set into folders of masks: resumable, and never losing finished work.

``DIR/NAME/ID.png`` holds the masks, ``DIR/run.json`` the settings and the summary. ``NAME`` is that of a feature or of
a baseline, with ``+`` and a refinement if there is one: ``F3``, ``seed``, ``F3+crf``.
"""

import json
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import torch_svm_seg
from torch_svm_seg.backbones import Backbone
from torch_svm_seg.datasets import PhotographDataset
from torch_svm_seg.files import InputError, save_mask, write_text_atomically
from torch_svm_seg.fusion import fused_stages
from torch_svm_seg.labelling import Labeller, StudyLabeller, label, seeds_of
from torch_svm_seg.refine import refine
from torch_svm_seg.sampling import VOID
from torch_svm_seg.self_training import SelfTraining
from torch_svm_seg.supervision import Supervised, Supervision

SETTINGS_FILE = "run.json"
UNREFINED = "none"
# Batches of images that wait for others of their size.
_MOST_WAITING = 4


@dataclass
class Progress:
    """What a run did, on one process or on all of them.

    Attributes:
        images: Images expanded.
        seconds: Time that each name's masks took, from features and knowledge on: fit, prediction, refinement.
        restored: Number of objects that had vanished from each name's masks and were given their seed back.
        skipped: Image id -> why it could not be expanded.
    """

    images: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    restored: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def add(self, other: "Progress") -> None:
        """Take in what another process, or an earlier part of the same run, did."""
        self.images += other.images
        for name, seconds in other.seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        for name, restored in other.restored.items():
            self.restored[name] = self.restored.get(name, 0) + restored
        self.skipped |= other.skipped

    def seconds_per_image(self) -> dict[str, float]:
        """Mean time of each name's masks."""
        return {name: seconds / max(self.images, 1) for name, seconds in self.seconds.items()}


def claim_folder(out: Path, settings: dict[str, Any], overwrite: bool, files: Iterable[Path]) -> Progress:
    """Write the settings into ``out``, and give what an earlier, interrupted run of the same settings did there.

    Args:
        out: The folder.
        settings: What the files in it depend on.
        overwrite: Whether to delete ``files`` first: at no time does the folder hold files of other settings than it
            says.
        files: What the run is to write.

    Raises:
        InputError: ``out`` holds a run of other settings, whose masks would get mixed with this one's.
    """
    path = out / SETTINGS_FILE
    earlier = Progress()
    for file in files if overwrite else ():
        file.unlink(missing_ok=True)
    if path.is_file() and not overwrite:
        try:
            record = json.loads(path.read_text())
            before = record["settings"]
            earlier = Progress(record["images"], record["seconds"], record["restored"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: not the record of a run ({error}); give another --out, or overwrite it"
            ) from error
        now = json.loads(json.dumps(settings))
        changed = [
            f"{name} was {before.get(name)!r}, now {now.get(name)!r}" for name in now if before.get(name) != now[name]
        ]
        if changed:
            raise InputError(
                f"{out}: holds results of other settings ({'; '.join(changed)}); give another --out, or overwrite it"
            )
    write_record(out, settings, earlier, finished=False)
    return earlier


def write_record(out: Path, settings: dict[str, Any], progress: Progress, finished: bool) -> None:
    """Write ``run.json``."""
    record = {
        "settings": settings,
        "versions": {
            "torch_svm_seg": torch_svm_seg.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "machine": {"platform": platform.platform(), "threads": torch.get_num_threads()},
        "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "finished": finished,
        "images": progress.images,
        "seconds": progress.seconds,
        "restored": progress.restored,
        "skipped": progress.skipped,
    }
    write_text_atomically(out / SETTINGS_FILE, json.dumps(record, indent=2) + "\n")


def mask_path(out: Path, name: str, id: str) -> Path:
    """Where the mask of an image lies."""
    return out / name / f"{id}.png"


def unfinished(out: Path, names: Sequence[str], ids: Sequence[str]) -> list[int]:
    """Places in ``ids`` of the images that miss the mask of any name."""
    return [place for place, id in enumerate(ids) if not all(mask_path(out, name, id).is_file() for name in names)]


@dataclass
class ExpansionRun:
    """Expands images into folders of masks.

    An image that cannot be used is skipped, with its reason in the progress; an error of writing ends the run.

    Attributes:
        backbone: Gives the features; on ``device``.
        expander: Labels pixels by features and what is known about them.
        supervision: Gives that knowledge.
        features: Names of the backbone's stages, or of several fused, as F3+F4.
        baselines: What labels pixels without features, by name.
        refinements: Modules to apply one after the other to probabilities, by name; ``"none"`` has none.
        out: Folder to write to.
        device: Where to compute.
        ignore_below: A pixel whose most likely class is less likely than this, from 0 to 1, gets 255 in its mask.
        progress: What was done so far.
    """

    backbone: Backbone
    expander: StudyLabeller | SelfTraining
    supervision: Supervision
    features: Sequence[str]
    baselines: Mapping[str, Labeller]
    refinements: Mapping[str, Sequence[nn.Module]]
    out: Path
    device: torch.device
    ignore_below: float = 0.0
    progress: Progress = field(default_factory=Progress)

    @property
    def names(self) -> list[str]:
        """Names of the masks that the run writes."""
        return [
            _mask_name(base, refinement)
            for base in (*self.baselines, *self.features)
            for refinement in self.refinements
        ]

    def run(
        self,
        dataset: PhotographDataset,
        places: Sequence[int],
        batch_size: int = 1,
        workers: int = 0,
        report: Callable[[Progress], object] | None = None,
    ) -> Progress:
        """Expand the images at ``places`` of a data set.

        Args:
            dataset: The photographs.
            places: Which of them.
            batch_size: Images of one size to expand at once.
            workers: Processes that read images ahead.
            report: Called with the progress so far whenever images are done.
        """
        self.progress.seconds |= dict.fromkeys(self.names, 0.0)
        self.progress.restored |= dict.fromkeys(self.names, 0)
        # Photographs are of any size: they come one by one, not stacked.
        readings = DataLoader(
            _Readings(dataset, places, self.supervision), batch_size=None, num_workers=workers, collate_fn=_as_it_is
        )
        for group in self._batches(readings, batch_size):
            self._expand_or_skip(group)
            if report:
                report(self.progress)
        return self.progress

    def _batches(self, readings: Iterable[Supervised | tuple[str, str]], batch_size: int) -> Iterator[list[Supervised]]:
        """Groups of images of one size; whatever could not be read is skipped."""
        waiting: dict[tuple[int, ...], list[Supervised]] = {}
        for reading in readings:
            if not isinstance(reading, Supervised):
                self.progress.skipped[reading[0]] = reading[1]
                continue
            group = waiting.setdefault(tuple(reading.image.shape), [])
            group.append(reading)
            if len(group) == batch_size:
                yield waiting.pop(tuple(reading.image.shape))
            elif sum(map(len, waiting.values())) == _MOST_WAITING * batch_size:
                # Photographs of many sizes would fill the memory: the largest group goes as it is.
                yield waiting.pop(max(waiting, key=lambda size: len(waiting[size])))
        yield from waiting.values()

    def _expand_or_skip(self, group: list[Supervised]) -> None:
        """Expand a batch; where it cannot be, one by one, and skip what spoils it."""
        try:
            self._expand(group)
        except ValueError as error:
            if len(group) > 1:
                for one in group:
                    self._expand_or_skip([one])
            else:
                self.progress.skipped[group[0].id] = str(error)
        else:
            self.progress.images += len(group)

    @torch.inference_mode()
    def _expand(self, group: list[Supervised]) -> None:
        images = torch.stack([one.image for one in group]).to(self.device)
        knowledge = torch.stack([one.knowledge for one in group]).to(self.device)
        stages = self.backbone.stages(images, {name for feature in self.features for name in fused_stages(feature)})
        for name, labeller in self.baselines.items():
            self._label(name, labeller, group, images, [], knowledge)
        for name in self.features:
            maps = [stages[stage] for stage in fused_stages(name)]
            self._label(name, self.expander, group, images, maps, knowledge)

    def _label(
        self,
        base: str,
        labeller: Labeller,
        group: list[Supervised],
        images: Tensor,
        features: Sequence[Tensor],
        known: Tensor,
    ) -> None:
        """Label a batch, and write its masks with each refinement."""
        start = time.perf_counter()
        labelling = labeller(images, features, known)
        seeds = None
        if known.dim() == 4:
            seeds = labelling.masks if base in self.baselines else seeds_of(known)
        labelled = time.perf_counter() - start
        for refinement, steps in self.refinements.items():
            start = time.perf_counter()
            found = label(refine(steps, images, labelling.probabilities), seeds) if steps else labelling
            unsure = found.probabilities.amax(1) < self.ignore_below
            masks = found.masks.masked_fill(unsure, VOID).cpu()
            name = _mask_name(base, refinement)
            self.progress.seconds[name] += labelled + time.perf_counter() - start
            self.progress.restored[name] += found.restored
            for one, mask in zip(group, masks, strict=True):
                save_mask(mask_path(self.out, name, one.id), mask)


def _mask_name(base: str, refinement: str) -> str:
    return base if refinement == UNREFINED else f"{base}+{refinement}"


class _Readings(Dataset[Supervised | tuple[str, str]]):
    """Images read in worker processes: one that cannot be read is its id and the reason instead."""

    def __init__(self, dataset: PhotographDataset, places: Sequence[int], supervision: Supervision) -> None:
        self.dataset, self.places, self.supervision = dataset, places, supervision

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Supervised | tuple[str, str]:
        place = self.places[index]
        try:
            return self.supervision.read(self.dataset, place)
        except InputError as error:
            return self.dataset.ids[place], str(error)


def _as_it_is(reading: Any) -> Any:
    return reading
