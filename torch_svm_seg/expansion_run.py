"""Expanding a whole data set into folders of masks: resumable, and never losing finished work.

``DIR/FEATURE/ID.png`` holds the masks, ``DIR/run.json`` the settings and the summary.
"""

import json
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

import torch_svm_seg
from torch_svm_seg.backbones import Backbone
from torch_svm_seg.datasets import Photograph, PhotographDataset
from torch_svm_seg.expander import SVMExpander
from torch_svm_seg.files import InputError, save_mask, write_text_atomically

SETTINGS_FILE = "run.json"


@dataclass
class Progress:
    """What a run did, on one process or on all of them.

    Attributes:
        images: Images expanded.
        seconds: Time spent on each feature's SVMs, fit and prediction, without the backbone.
        skipped: Image id -> why it could not be expanded.
    """

    images: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def add(self, other: "Progress") -> None:
        """Take in what another process, or an earlier part of the same run, did."""
        self.images += other.images
        for feature, seconds in other.seconds.items():
            self.seconds[feature] = self.seconds.get(feature, 0.0) + seconds
        self.skipped |= other.skipped

    def seconds_per_image(self) -> dict[str, float]:
        """Mean time of each feature's SVM."""
        return {feature: seconds / max(self.images, 1) for feature, seconds in self.seconds.items()}


def claim_folder(out: Path, settings: dict[str, Any], overwrite: bool) -> Progress:
    """Write the settings into ``out``, and give what an earlier, interrupted run of the same settings did there.

    Raises:
        InputError: ``out`` holds a run of other settings, whose masks would get mixed with this one's.
    """
    path = out / SETTINGS_FILE
    earlier = Progress()
    if path.is_file() and not overwrite:
        try:
            record = json.loads(path.read_text())
            before = record["settings"]
            earlier = Progress(record["images"], record["seconds"], {})
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: not the record of a run ({error}); give another --out, or --overwrite"
            ) from error
        now = json.loads(json.dumps(settings))
        changed = [
            f"{name} was {before.get(name)!r}, now {now.get(name)!r}" for name in now if before.get(name) != now[name]
        ]
        if changed:
            raise InputError(
                f"{out}: holds results of other settings ({'; '.join(changed)}); give another --out, or --overwrite"
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
        "skipped": progress.skipped,
    }
    write_text_atomically(out / SETTINGS_FILE, json.dumps(record, indent=2) + "\n")


def mask_path(out: Path, feature: str, id: str) -> Path:
    """Where the mask of an image lies."""
    return out / feature / f"{id}.png"


def unfinished(out: Path, features: Sequence[str], ids: Sequence[str]) -> list[int]:
    """Places in ``ids`` of the images that miss the mask of any feature."""
    return [place for place, id in enumerate(ids) if not all(mask_path(out, name, id).is_file() for name in features)]


def expand_all(
    dataset: PhotographDataset,
    places: Sequence[int],
    backbone: Backbone,
    expander: SVMExpander,
    features: Sequence[str],
    out: Path,
    device: torch.device,
    batch_size: int = 1,
    workers: int = 0,
    report: Callable[[Progress], object] | None = None,
) -> Progress:
    """Expand the ground truth of images and save a mask for each of them and each feature.

    An image that cannot be used is skipped, with its reason in the result; an error of writing ends the run.

    Args:
        dataset: Photographs with masks.
        places: Which of them.
        backbone: Gives the features; on ``device``.
        expander: Trains and applies the SVMs.
        features: Names of the backbone's stages.
        out: Folder to write to.
        device: Where to compute.
        batch_size: Images of one size to expand at once.
        workers: Processes that read images ahead.
        report: Called with the progress so far whenever images are done.
    """
    progress = Progress(seconds=dict.fromkeys(features, 0.0))
    for group in _batches(_read(dataset, places, workers), batch_size, progress.skipped):
        _expand_or_skip(group, backbone, expander, features, out, device, progress)
        if report:
            report(progress)
    return progress


def _expand_or_skip(
    group: list[Photograph],
    backbone: Backbone,
    expander: SVMExpander,
    features: Sequence[str],
    out: Path,
    device: torch.device,
    progress: Progress,
) -> None:
    """Expand a batch; where it cannot be, one by one, and skip what spoils it."""
    try:
        _expand(group, backbone, expander, features, out, device, progress)
    except ValueError as error:
        if len(group) > 1:
            for photograph in group:
                _expand_or_skip([photograph], backbone, expander, features, out, device, progress)
        else:
            progress.skipped[group[0].id] = str(error)
    else:
        progress.images += len(group)


@torch.inference_mode()
def _expand(
    group: list[Photograph],
    backbone: Backbone,
    expander: SVMExpander,
    features: Sequence[str],
    out: Path,
    device: torch.device,
    progress: Progress,
) -> None:
    images = torch.stack([photograph.image for photograph in group]).to(device)
    labels = torch.stack([photograph.mask for photograph in group if photograph.mask is not None]).to(device)
    stages = backbone.stages(images, features)
    for feature in features:
        start = time.perf_counter()
        masks = expander(stages[feature], labels).masks.cpu()
        seconds = time.perf_counter() - start
        for photograph, mask in zip(group, masks, strict=True):
            save_mask(mask_path(out, feature, photograph.id), mask)
        progress.seconds[feature] += seconds


class _Readings(Dataset[Photograph | tuple[str, str]]):
    """Photographs read in worker processes: one that cannot be read is its id and the reason instead."""

    def __init__(self, dataset: PhotographDataset, places: Sequence[int]) -> None:
        self.dataset, self.places = dataset, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Photograph | tuple[str, str]:
        place = self.places[index]
        try:
            return self.dataset[place]
        except InputError as error:
            return self.dataset.ids[place], str(error)


def _read(dataset: PhotographDataset, places: Sequence[int], workers: int) -> Iterator[Photograph | tuple[str, str]]:
    # Photographs are of any size: they come one by one, not stacked.
    yield from DataLoader(_Readings(dataset, places), batch_size=None, num_workers=workers, collate_fn=_as_it_is)


def _as_it_is(reading: Any) -> Any:
    return reading


def _batches(
    readings: Iterator[Photograph | tuple[str, str]], batch_size: int, skipped: dict[str, str]
) -> Iterator[list[Photograph]]:
    """Groups of photographs of one size; whatever could not be read goes to ``skipped``."""
    waiting: dict[tuple[int, ...], list[Photograph]] = {}
    for reading in readings:
        if not isinstance(reading, Photograph):
            skipped[reading[0]] = reading[1]
            continue
        group = waiting.setdefault(tuple(reading.image.shape), [])
        group.append(reading)
        if len(group) == batch_size:
            yield waiting.pop(tuple(reading.image.shape))
    yield from waiting.values()
