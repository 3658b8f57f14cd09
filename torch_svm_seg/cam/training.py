"""Training and validating a classifier on image-level labels: what it sees of the images, and how it is scored."""

from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_average_precision, binary_f1_score

from torch_svm_seg.cam.classifier import Classifier
from torch_svm_seg.data.image_labels import LabelledImages
from torch_svm_seg.data.transforms import random_crop, resize_longest_side
from torch_svm_seg.training.distributed import gathered
from torch_svm_seg.training.trainable import Crops

# Sides of validation images are multiples of the deepest stride.
_STRIDE = 16


class LabelledCrops(Crops):
    """A random crop of each image, with where it is not padding and its labels.

    Args:
        data: the labelled images.
        size: side of the crops, in pixels.
        fill: colour of the padding, (3, 1, 1).
        seed: of the choices.
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


class ClassificationScore(NamedTuple):
    """How well a classifier names the classes of images, from 0 to 1.

    Attributes:
        average_precision: mean over the classes that some image shows.
        f1: of all decisions at a probability of 0.5 together (micro average).
    """

    average_precision: float
    f1: float


def score_logits(logits: Tensor, present: Tensor) -> ClassificationScore:
    """Scores the logits (N, K) of N images against the classes they show, bool (N, K)."""
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
    """Scores a classifier on whole images, each process its share.

    Args:
        network: the classifier.
        data: labelled images.
        length: what the images' longest side is resized to, in pixels.
        rank: number of this process.
        processes: number of processes.
    """
    network.eval()
    logits = {}
    for index in range(rank, len(data), processes):
        image = resize_longest_side(data.dataset.image(index), length, _STRIDE)
        logits[index] = network(image[None].to(network.head.weight)).float().cpu()[0]
    merged = {index: row for part in gathered(logits) for index, row in part.items()}
    return score_logits(torch.stack([merged[index] for index in range(len(data))]), data.present)
