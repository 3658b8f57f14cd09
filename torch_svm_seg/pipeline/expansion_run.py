"""Expanding a whole data set into folders of masks: resumable, and never losing finished work.

``DIR/NAME/ID.png`` holds the masks, ``DIR/run.json`` the settings and the summary. ``NAME`` is that of a feature or of
a baseline, with ``+`` and a refinement if there is one: ``F3``, ``seed``, ``F3+crf``.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from torch_svm_seg.backbones.backbone import Backbone
from torch_svm_seg.data.constants import VOID
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.io import save_mask
from torch_svm_seg.expansion.fusion import fused_stages
from torch_svm_seg.expansion.labelling import Baseline, Labelling, StudyLabeller, label, seeds_of
from torch_svm_seg.expansion.seed_expander import SelfTraining
from torch_svm_seg.pipeline.run_folder import SPOILT, Progress, skip_reason
from torch_svm_seg.pipeline.supervision import Supervised, Supervision
from torch_svm_seg.refine import refine

UNREFINED = "none"
# Batches of images that wait for others of their size.
_MOST_WAITING = 4


def mask_path(out: Path, name: str, id: str) -> Path:
    """Where the mask of an image lies."""
    return out / name / f"{id}.png"


@dataclass
class ExpansionRun:
    """Expands images into folders of masks.

    An image that cannot be used is skipped, with its reason in the progress; an error of writing ends the run.

    Attributes:
        backbone: Gives the features; on ``device``.
        expander: Labels pixels by features and what is known about them.
        supervision: Gives that knowledge.
        features: Names of the backbone's stages, or of several fused, as F3+F4.
        baselines: Labellers without features, by name.
        refinements: Modules to apply one after the other to probabilities, by name; ``"none"`` has none.
        out: Folder to write to.
        device: Where to compute.
        ignore_below: A pixel whose most likely class is less likely than this, from 0 to 1, gets 255 in its mask.
    """

    backbone: Backbone
    labeller: StudyLabeller | SelfTraining
    supervision: Supervision
    features: Sequence[str]
    baselines: Mapping[str, Baseline]
    refinements: Mapping[str, Sequence[nn.Module]]
    out: Path
    device: torch.device
    ignore_below: float = 0.0

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
        dataset: ImageDataset,
        indices: Sequence[int],
        progress: Progress,
        batch_size: int = 1,
        workers: int = 0,
        report: Callable[[], object] = lambda: None,
    ) -> None:
        """Expand some images of a data set.

        Args:
            dataset: The images.
            indices: Which of them.
            progress: Takes note of what was done.
            batch_size: Images of one size to expand at once.
            workers: Processes that read images ahead.
            report: Called whenever images are done.
        """
        progress.seconds |= dict.fromkeys(self.names, 0.0)
        progress.restored |= dict.fromkeys(self.names, 0)
        # Images are of any size: they come one by one, not stacked.
        readings = DataLoader(
            _Readings(dataset, indices, self.supervision), batch_size=None, num_workers=workers, collate_fn=_as_it_is
        )
        for group in _batches(readings, batch_size, progress.skipped):
            self._expand_or_skip(group, progress)
            report()

    def _expand_or_skip(self, group: list[Supervised], progress: Progress) -> None:
        """Expand a batch; where it cannot be, one by one, and skip what spoils it."""
        try:
            progress.add(self._expand(group))
            return
        except SPOILT as error:
            reason = skip_reason(error)
        # Out of the handler, whose error holds on to the whole batch's tensors.
        if len(group) == 1:
            progress.skipped[group[0].id] = reason
        else:
            for one in group:
                self._expand_or_skip([one], progress)

    @torch.inference_mode()
    def _expand(self, group: list[Supervised]) -> Progress:
        """Expand a batch; return what was done."""
        images = torch.stack([one.image for one in group]).to(self.device)
        knowledge, ids = _of_classes_present(torch.stack([one.knowledge for one in group]).to(self.device))
        done = Progress(images=len(group), unseeded=_unseeded(knowledge))
        for name, baseline in self.baselines.items():
            self._label(name, partial(baseline, images, knowledge), group, images, knowledge, ids, done)
        wanted = {stage for name in self.features for stage in fused_stages(name)}
        stages = self.backbone.stages(images, wanted) if wanted else {}
        for name in self.features:
            maps = [stages[stage] for stage in fused_stages(name)]
            labelled = partial(self.labeller, images, maps, knowledge)
            self._label(name, labelled, group, images, knowledge, ids, done)
        return done

    def _label(
        self,
        base: str,
        labelled: Callable[[], Labelling],
        group: list[Supervised],
        images: Tensor,
        known: Tensor,
        ids: Tensor,
        done: Progress,
    ) -> None:
        """Have a batch labelled, write its masks with each refinement, and note the time and what was restored.

        Classes are numbered as in ``known``; ``ids`` are their ids.
        """
        start = time.perf_counter()
        labelling = labelled()
        seeds = None
        if known.dim() == 4:
            seeds = labelling.masks if base in self.baselines else seeds_of(known)
        seconds = time.perf_counter() - start
        for refinement, steps in self.refinements.items():
            start = time.perf_counter()
            found = label(refine(steps, images, labelling.probabilities), seeds) if steps else labelling
            masks = ids[self._sure(found)].cpu()
            name = _mask_name(base, refinement)
            done.seconds[name] = seconds + time.perf_counter() - start
            done.restored[name] = sum(found.restored)
            for one, mask in zip(group, masks, strict=True):
                save_mask(mask_path(self.out, name, one.id), mask)

    def _sure(self, found: Labelling) -> Tensor:
        """Masks without the pixels that are too unlikely; those that were given their seed back stay."""
        likeliest, classes = found.probabilities.max(1)
        unsure = (likeliest < self.ignore_below) & (found.masks == classes)
        return found.masks.masked_fill(unsure, VOID)


def _batches(
    readings: Iterable[Supervised | tuple[str, str]], batch_size: int, skipped: dict[str, str]
) -> Iterator[list[Supervised]]:
    """Groups of images of one size; whatever could not be read is skipped."""
    waiting: dict[tuple[int, ...], list[Supervised]] = {}
    for reading in readings:
        if not isinstance(reading, Supervised):
            skipped[reading[0]] = reading[1]
            continue
        group = waiting.setdefault(tuple(reading.image.shape), [])
        group.append(reading)
        if len(group) == batch_size:
            yield waiting.pop(tuple(reading.image.shape))
        elif sum(map(len, waiting.values())) == _MOST_WAITING * batch_size:
            # Images of many sizes would fill the memory: the largest group goes as it is.
            yield waiting.pop(max(waiting, key=lambda size: len(waiting[size])))
    yield from waiting.values()


def _of_classes_present(knowledge: Tensor) -> tuple[Tensor, Tensor]:
    """Activation (B, K, H, W) of the classes that an image of the batch has, and of the background; labels as they are.

    Most of a data set's classes are in none of a batch's images, and all that follows is quicker without them.

    Returns:
        The knowledge, and the id of each of its classes, 255 of 255, (256,).
    """
    ids = torch.arange(VOID + 1, device=knowledge.device)
    if knowledge.dim() == 3:
        return knowledge, ids
    present = (knowledge > -torch.inf).flatten(2).any(2).any(0)
    present[0] = True
    classes = present.nonzero()[:, 0]
    ids[: len(classes)] = classes
    return knowledge[:, classes], ids


def _unseeded(knowledge: Tensor) -> int:
    """How many classes of the images have activation (B, K, H, W), but no pixel where it is the largest."""
    if knowledge.dim() == 3:
        return 0
    classes = torch.arange(1, knowledge.shape[1], device=knowledge.device)[:, None]
    present = (knowledge[:, 1:] > -torch.inf).flatten(2).any(2)
    shown = (seeds_of(knowledge).flatten(1)[:, None] == classes).any(2)
    return int((present & ~shown).sum())


def _mask_name(base: str, refinement: str) -> str:
    return base if refinement == UNREFINED else f"{base}+{refinement}"


class _Readings(Dataset[Supervised | tuple[str, str]]):
    """Images read in worker processes: one that cannot be read is its id and the reason instead."""

    def __init__(self, dataset: ImageDataset, indices: Sequence[int], supervision: Supervision) -> None:
        self.dataset, self.indices, self.supervision = dataset, indices, supervision

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> Supervised | tuple[str, str]:
        index = self.indices[place]
        try:
            return self.supervision.read(self.dataset, index)
        except SPOILT as error:
            return self.dataset.ids[index], skip_reason(error)


def _as_it_is(reading: Any) -> Any:
    return reading
