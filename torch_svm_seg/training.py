"""Training a classifier on image-level labels: resumable, on one process or several, the same result for both.

Every random choice follows from the seed, the epoch and the image's place in the data set. So an interrupted run that
continues at its last epoch ends like an undisturbed one, and each process of several reads its share of a batch just
as one process would.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD
from torch.optim.lr_scheduler import PolynomialLR
from torch.utils.data import DataLoader, Dataset
from torchmetrics.functional.classification import binary_average_precision, binary_f1_score

from torch_svm_seg.augmentation import random_crop, resize_longest_side
from torch_svm_seg.classifier import Classifier
from torch_svm_seg.distributed import gathered, mean_over_processes
from torch_svm_seg.files import InputError
from torch_svm_seg.image_labels import LabelledPhotographs
from torch_svm_seg.tensors import hash_integers

# Of SIPE and IRN.
_NEW_LAYER_RATE, _DECAY_POWER, _LARGEST_GRADIENT = 10, 0.9, 1.0
# Sides of validation images are multiples of the deepest stride.
_STRIDE = 16


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.

    Attributes:
        epochs: passes over the images.
        batch_size: images a step, over all processes together; a last smaller batch is left out.
        learning_rate: of the pretrained layers at the start; new layers have ten times as much.
        momentum: of stochastic gradient descent.
        weight_decay: of all trained parameters.
        crop_size: side of the square crops, in pixels.
        seed: of order and augmentation.
        amp: whether to compute in bfloat16 where PyTorch deems it safe.
        workers: processes that read images ahead.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float
    crop_size: int
    seed: int = 0
    amp: bool = False
    workers: int = 0


class Step(NamedTuple):
    """What one step of training did.

    Attributes:
        step: number of the step, from 1.
        learning_rate: of the pretrained layers.
        losses: terms of the loss, means over the batch.
    """

    step: int
    learning_rate: float
    losses: dict[str, float]


class Training:
    """One run of training.

    Args:
        network: what to train, on the device to train on.
        data: the labelled photographs.
        settings: how to train.
        rank: number of this process.
        processes: number of processes; all of them build the same objects and call the same methods.

    Raises:
        InputError: the batch cannot be shared evenly among the processes.
    """

    def __init__(
        self,
        network: Classifier,
        data: LabelledPhotographs,
        settings: TrainingSettings,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.network = network.to(memory_format=torch.channels_last)  # a quarter faster, on the CPU too
        self.epoch = 0
        self._data, self._settings, self._rank, self._processes = data, settings, rank, processes
        self._batch_size = min(settings.batch_size, len(data))
        if self._batch_size % processes:
            raise InputError(
                f"--batch-size: {self._batch_size} images cannot be shared evenly among {processes} processes"
            )
        self.steps_per_epoch = len(data) // self._batch_size
        groups = [
            {"params": network.pretrained_parameters, "lr": settings.learning_rate},
            {"params": network.new_parameters, "lr": settings.learning_rate * _NEW_LAYER_RATE},
        ]
        self._optimizer = SGD(groups, momentum=settings.momentum, weight_decay=settings.weight_decay)
        self._schedule = PolynomialLR(self._optimizer, settings.epochs * self.steps_per_epoch, _DECAY_POWER)
        losses = _Losses(network)
        self._losses: nn.Module = DistributedDataParallel(losses) if distributed.is_initialized() else losses

    @property
    def step(self) -> int:
        """Number of steps done."""
        return self.epoch * self.steps_per_epoch

    @property
    def finished(self) -> bool:
        """Whether all epochs are done."""
        return self.epoch >= self._settings.epochs

    def run_epoch(self, report: Callable[[Step], object]) -> None:
        """Trains for one epoch.

        Args:
            report: called after each step.

        Raises:
            InputError: an image cannot be read, or the loss is no longer a finite number.
        """
        self.network.train()
        device = self.network.head.weight.device
        # A backbone's dropout draws from PyTorch's own generator.
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(_seed(self._settings.seed, self.epoch))
            for number, batch in enumerate(self._batches(), start=1):
                images, valid, labels = (part.to(device, non_blocking=True) for part in batch)
                rate = float(self._schedule.get_last_lr()[0])
                report(Step(self.step + number, rate, self._update(self.step + number, images, valid, labels)))
        self.epoch += 1

    def state_dict(self) -> dict[str, Any]:
        """Gives all that is needed to continue after the last epoch."""
        return {
            "model": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "epoch": self.epoch,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from what :meth:`state_dict` gave, in a run of the same settings."""
        self.network.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self.epoch = state["epoch"]

    def _update(self, step: int, images: Tensor, valid: Tensor, labels: Tensor) -> dict[str, float]:
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self._settings.amp):
            losses: dict[str, Tensor] = self._losses(images, valid, labels)
        total = torch.stack(list(losses.values())).sum()
        self._optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_([p for g in self._optimizer.param_groups for p in g["params"]], _LARGEST_GRADIENT)
        self._optimizer.step()
        self._schedule.step()
        means = mean_over_processes(torch.stack(list(losses.values())).detach().cpu())
        if not means.isfinite().all():
            raise InputError(f"--learning-rate {self._settings.learning_rate}: the loss is not finite at step {step}")
        return dict(zip(losses, means.tolist(), strict=True))

    def _batches(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """This process's part of each batch: images, where they are not padding, and labels."""
        generator = torch.Generator().manual_seed(_seed(self._settings.seed, self.epoch))
        order = torch.randperm(len(self._data), generator=generator)[: self.steps_per_epoch * self._batch_size]
        batches = order.view(self.steps_per_epoch, self._batch_size)[:, self._rank :: self._processes].tolist()
        fill = self.network.backbone.mean.cpu()
        crops = _Crops(self._data, self._settings, fill, self.epoch)
        yield from DataLoader(crops, batch_sampler=batches, num_workers=self._settings.workers)


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
    network: Classifier, data: LabelledPhotographs, length: int, rank: int = 0, processes: int = 1
) -> ClassificationScore:
    """Scores a classifier on whole images, each process its share.

    Args:
        network: the classifier.
        data: labelled photographs.
        length: what the images' longest side is resized to, in pixels.
        rank: number of this process.
        processes: number of processes.
    """
    network.eval()
    logits = {}
    for place in range(rank, len(data), processes):
        image = resize_longest_side(data.photographs.image(place), length, _STRIDE)
        logits[place] = network(image[None].to(network.head.weight)).float().cpu()[0]
    merged = {place: row for part in gathered(logits) for place, row in part.items()}
    return score_logits(torch.stack([merged[place] for place in range(len(data))]), data.present)


class _Losses(nn.Module):
    """The losses of a network as a module's output: what DistributedDataParallel can wrap."""

    def __init__(self, network: Classifier) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, valid: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return self.network.losses(images, valid, labels)


class _Crops(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """A random crop of each photograph, with where it is not padding and its labels; the same in each process."""

    def __init__(self, data: LabelledPhotographs, settings: TrainingSettings, fill: Tensor, epoch: int) -> None:
        self._data, self._settings, self._fill, self._epoch = data, settings, fill, epoch

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor, Tensor]:
        generator = torch.Generator().manual_seed(_seed(self._settings.seed, self._epoch, place))
        image = self._data.photographs.image(place)
        crop, valid = random_crop(image, self._settings.crop_size, self._fill, generator)
        return crop, valid, self._data.present[place]


def _seed(*parts: int) -> int:
    return int(hash_integers(*parts))
