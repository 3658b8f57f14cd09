"""Expanding a whole data set into folders of masks: resumable, and never losing finished work.

``DIR/NAME/ID.png`` holds the masks, ``DIR/run.json`` the settings and the summary. ``NAME`` is that of a feature or of
a baseline, with ``+`` and a refinement if there is one: ``F3``, ``seed``, ``F3+crf``.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torch_svm_seg.backbones.backbone import Backbone
from torch_svm_seg.data.class_numbers import ids_of
from torch_svm_seg.data.constants import VOID
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.io import save_mask
from torch_svm_seg.expansion.box_labeller import BoxLabeller
from torch_svm_seg.expansion.labelling import (
    Baseline,
    FittedLabeller,
    KnownImages,
    Labelling,
    SVMLabeller,
    label,
    seeds_of,
)
from torch_svm_seg.expansion.normalization import fused_stages
from torch_svm_seg.expansion.sampling import sample_pixels
from torch_svm_seg.expansion.self_training import SelfTraining
from torch_svm_seg.pipeline.fit_on import FitOnImages
from torch_svm_seg.pipeline.image_log import ImageEntry, Report
from torch_svm_seg.pipeline.jobs import Job
from torch_svm_seg.pipeline.readings import Reading, batches, read_ahead
from torch_svm_seg.pipeline.run_folder import Progress, skip_reason, spoils_one_image
from torch_svm_seg.pipeline.same_size import SameSize, by_size
from torch_svm_seg.pipeline.supervision import Supervised, Supervision
from torch_svm_seg.pixel_classifier.other_images import OtherImages
from torch_svm_seg.refine import RegionVote, refine

UNREFINED = "none"
Labeller = SVMLabeller | FittedLabeller | SelfTraining | BoxLabeller
Refinement = nn.Module | type[RegionVote]
"""A module that refines probabilities by images, or one that is made of the regions that the supervision gives."""


def mask_path(out: Path, name: str, id: str) -> Path:
    """Return where the mask of an image lies.

    Examples:
        >>> mask_path(Path("out"), "F4+crf", "2007_000032").as_posix()
        'out/F4+crf/2007_000032.png'
    """
    return out / name / f"{id}.png"


@dataclass
class ExpansionRun:
    """Expands images into folders of masks.

    An image that cannot be used is skipped, with its reason in the progress; an error of writing ends the run.

    Attributes:
        backbone: Gives the features; on ``device``.
        labellers: Labels pixels by features and what is known about them, by the name of the features: the backbone's
            stages, or several fused, as F3+F4.
        supervision: Gives what is known.
        baselines: Labellers without features, by name.
        refinements: Steps to apply one after the other to probabilities, by name; ``"none"`` has none.
        out: Folder to write to.
        device: Where to compute.
        ignore_below: A pixel whose most likely class is less likely than this, from 0 to 1, gets 255 in its mask.
        others: Labels of all images, which take part in the place of SVMs, with the same backbone; only with a
            ``SVMLabeller``.
        fit_on: Images that all labellers are fitted to before a run; None if each image is labelled by its own.
    """

    backbone: Backbone
    labellers: Mapping[str, Labeller]
    supervision: Supervision
    baselines: Mapping[str, Baseline]
    refinements: Mapping[str, Sequence[Refinement]]
    out: Path
    device: torch.device
    ignore_below: float = 0.0
    others: OtherImages | None = None
    fit_on: FitOnImages | None = None

    @property
    def names(self) -> list[str]:
        """Names of the masks that the run writes."""
        return [
            _mask_name(base, refinement)
            for base in (*self.baselines, *self.labellers)
            for refinement in self.refinements
        ]

    def paths(self, id: str) -> list[Path]:
        """Return where the masks of an image lie, in the order of :attr:`names`."""
        return [mask_path(self.out, name, id) for name in self.names]

    def jobs(self, dataset: ImageDataset) -> list[Job]:
        """Return the files to write for each image of a data set."""
        return [
            Job(
                id,
                tuple(mask_path(self.out, name, id) for name in self.names),
                partial(self.supervision.sources, dataset, index),
            )
            for index, id in enumerate(dataset.ids)
        ]

    def run(
        self,
        dataset: ImageDataset,
        indices: Sequence[int],
        progress: Progress,
        batch_size: int = 1,
        workers: int = 0,
        report: Report | None = None,
    ) -> None:
        """Expand some images of a data set.

        Args:
            dataset: The images.
            indices: Which of them.
            progress: Takes note of skipped images, and of those done where there is no ``report``.
            batch_size: Images to expand at once.
            workers: Processes that read images ahead.
            report: Takes note of images that are done, or, without any, that some were skipped.
        """
        if self.fit_on is not None:
            expanders = {name: labeller.expander for name, labeller in self.labellers.items()}
            self.fit_on.fit(expanders, self.backbone, self.device)
        note: Report = report or (lambda entries: progress.add(Progress.of(entries)))
        readings = read_ahead(dataset, indices, self.supervision, workers)
        for group in batches(readings, batch_size, progress.skipped):
            self._expand_or_skip(group, progress, note)

    @torch.inference_mode()
    def training_pixels(self, supervised: Supervised) -> Tensor | None:
        """Return the class of each pixel that trains its image's classifier, 255 elsewhere, (H, W); None without it."""
        if not self.labellers:
            return None
        labeller = next(iter(self.labellers.values()))
        image, known = supervised.image[None].to(self.device), supervised.known[None].to(self.device)
        labels, expander = labeller.training_labels(image, known), self.others or labeller.expander
        sample = sample_pixels(labels, expander.samples_per_class, expander.seed)
        return supervised.class_ids(sample.as_labels(*labels.shape[1:])[0]).cpu()

    def _expand_or_skip(self, group: list[Reading], progress: Progress, report: Report) -> None:
        """Expand a batch; where it cannot be, one by one, and skip what spoils it."""
        try:
            entries = self._expand(group)
        except Exception as error:
            if not spoils_one_image(error):
                raise
            reason = skip_reason(error)
        else:
            report(entries)
            return
        # Out of the handler, whose error holds on to the whole batch's tensors.
        if len(group) == 1:
            progress.skipped[group[0].supervised.id] = reason
            report([])
        else:
            for one in group:
                self._expand_or_skip([one], progress, report)

    @torch.inference_mode()
    def _expand(self, group: list[Reading]) -> list[ImageEntry]:
        """Expand a batch of images of any sizes; return what was done with each image."""
        parts, ids = by_size(group, self.device)
        for name, baseline in self.baselines.items():
            self._write(name, partial(_by_baseline, baseline, parts), parts, ids)
        wanted = {stage for name in self.labellers for stage in fused_stages(name)}
        stages = [self.backbone.stages(part.images, wanted) if wanted else {} for part in parts]
        more: dict[str, Any] = {}
        if self.others is not None:
            more["expander"] = self.others.expander(ids)
        for name, labeller in self.labellers.items():
            known = [
                KnownImages(part.images, [own[stage] for stage in fused_stages(name)], part.known, part.certainty)
                for part, own in zip(parts, stages, strict=True)
            ]
            self._write(name, partial(labeller.label_batches, known, **more), parts, ids)
        return [entry for part in parts for entry in part.entries]

    def _write(
        self, base: str, label_parts: Callable[[], list[Labelling]], parts: Sequence[SameSize], ids: Tensor
    ) -> None:
        """Have a batch labelled, write its masks with each refinement, and note the time and what was restored.

        Classes are numbered as in what is known; ``ids`` are their ids.
        """
        start = time.perf_counter()
        labellings = label_parts()
        seconds = (time.perf_counter() - start) / sum(len(part.entries) for part in parts)
        for part, labelling in zip(parts, labellings, strict=True):
            seeds = None
            if part.known.dim() == 4:
                seeds = labelling.masks if base in self.baselines else seeds_of(part.known)
            for refinement, steps in self.refinements.items():
                self._refine(_mask_name(base, refinement), steps, labelling, part, seeds, ids, seconds)

    def _refine(
        self,
        name: str,
        steps: Sequence[Refinement],
        labelling: Labelling,
        part: SameSize,
        seeds: Tensor | None,
        ids: Tensor,
        seconds: float,
    ) -> None:
        """Write the refined masks of images of one size, labelled in some seconds each."""
        start = time.perf_counter()
        own = [step if isinstance(step, nn.Module) else step(part.regions) for step in steps]
        found = label(refine(own, part.images, labelling.probabilities), seeds) if steps else labelling
        masks = ids_of(self._sure(found), ids).cpu()
        seconds += (time.perf_counter() - start) / len(part.entries)
        restored = found.restored or (0,) * len(part.entries)
        for entry, mask, number in zip(part.entries, masks, restored, strict=True):
            save_mask(mask_path(self.out, name, entry.id), mask)
            entry.seconds[name], entry.restored[name] = seconds, number

    def _sure(self, found: Labelling) -> Tensor:
        """Masks without the pixels that are too unlikely; those that were restored from their seed stay."""
        likeliest, classes = found.probabilities.max(1)
        unsure = (likeliest < self.ignore_below) & (found.masks == classes)
        return found.masks.masked_fill(unsure, VOID)


def _by_baseline(baseline: Baseline, parts: Sequence[SameSize]) -> list[Labelling]:
    return [baseline(part.images, part.known) for part in parts]


def _mask_name(base: str, refinement: str) -> str:
    return base if refinement == UNREFINED else f"{base}+{refinement}"
