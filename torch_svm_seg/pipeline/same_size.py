"""Images of one size with what is known about them, made from a batch of images of any sizes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torch_svm_seg.data.class_numbers import numbered
from torch_svm_seg.data.constants import VOID
from torch_svm_seg.data.mask_forms import used_values
from torch_svm_seg.expansion.labelling import seeds_of
from torch_svm_seg.pipeline.image_log import ImageEntry
from torch_svm_seg.pipeline.readings import Reading
from torch_svm_seg.pipeline.supervision import Supervised
from torch_svm_seg.tensors import sent


@dataclass(frozen=True)
class SameSize:
    """Images of one size with what is known about them, on the device.

    Attributes:
        readings: The images as they were read.
        images: RGB from 0 to 255, or other channels, (B, C, H, W).
        known: Labels (B, H, W) or activation (B, K, H, W), by the number of a class among those of the whole batch.
        certainty: Weight of each label, (B, H, W); None where it is known of no image.
        entries: What is done with each image, to be filled in.
    """

    readings: list[Reading]
    images: Tensor
    known: Tensor
    certainty: Tensor | None
    entries: list[ImageEntry]

    @property
    def regions(self) -> Tensor:
        """The regions of the images, (B, R, H, W) or (B, H, W) as the supervision gives them."""
        return torch.stack([one.supervised.regions for one in self.readings if one.supervised.regions is not None])


def by_size(readings: Sequence[Reading], device: torch.device) -> tuple[list[SameSize], Tensor]:
    """Group a batch by size, in the order in which sizes come.

    Most of a data set's classes are in none of a batch's images; without them, all that follows is quicker and takes no
    memory for them. So classes are numbered among those present, and the background.

    Args:
        readings: Images of any sizes, of the same kind of supervision.
        device: Where to compute.

    Returns:
        The images, and the ids of the classes in the order of their numbers, (K,).

    Examples:
        >>> labels = torch.tensor([[0, 8], [255, 8]])
        >>> supervised = Supervised("a", torch.zeros(3, 2, 2, dtype=torch.uint8), labels)
        >>> (one,), ids = by_size([Reading(supervised, "0f3a")], torch.device("cpu"))
        >>> one.known.tolist(), ids.tolist()
        ([[[0, 1], [255, 1]]], [0, 8])
    """
    classes = _classes([one.supervised for one in readings])
    sizes: dict[tuple[int, ...], list[Reading]] = {}
    for one in readings:
        sizes.setdefault(tuple(one.supervised.image.shape), []).append(one)
    return [_same_size(group, classes, device) for group in sizes.values()], torch.tensor(
        classes, dtype=torch.long, device=device
    )


def _same_size(group: list[Reading], classes: list[int], device: torch.device) -> SameSize:
    images = sent(torch.stack([one.supervised.image for one in group]), device)
    known = torch.stack([_known(one.supervised, classes) for one in group])
    entries = [
        ImageEntry(one.supervised.id, one.sources, unseeded=unseeded, notes=one.supervised.notes)
        for one, unseeded in zip(group, _unseeded(known), strict=True)
    ]
    return SameSize(group, images, sent(known, device), _certainty(group, device), entries)


def _classes(batch: Sequence[Supervised]) -> list[int]:
    """Return the ids of the classes that any image has; with activation, and of the background."""
    if batch[0].classes is None:
        return sorted({value for one in batch for value in used_values(one.known) if value != VOID})
    return sorted({0}.union(*(one.classes or () for one in batch)))


def _known(one: Supervised, classes: list[int]) -> Tensor:
    """Return labels (H, W) or activation (K, H, W) by the number of a class; -inf for one that an image lacks."""
    if one.classes is None:
        return numbered(one.known, classes)
    activation = one.known.new_full((len(classes), *one.known.shape[1:]), -torch.inf)
    activation[[classes.index(id) for id in one.classes]] = one.known
    return activation


def _certainty(group: Sequence[Reading], device: torch.device) -> Tensor | None:
    read = [one.supervised for one in group]
    if all(one.certainty is None for one in read):
        return None
    given = [torch.ones(one.known.shape) if one.certainty is None else one.certainty for one in read]
    return sent(torch.stack(given), device)


def _unseeded(known: Tensor) -> list[int]:
    """Count the classes of each image that have activation (B, K, H, W), but no pixel where it is the largest."""
    if known.dim() == 3:
        return [0] * len(known)
    classes = torch.arange(1, known.shape[1], device=known.device)[:, None]
    present = (known[:, 1:] > -torch.inf).flatten(2).any(2)
    shown = (seeds_of(known).flatten(1)[:, None] == classes).any(2)
    return [int(number) for number in (present & ~shown).sum(1)]
