"""Training a network on crops of photographs: resumable, on one process or several, the same result for both.

Every random choice follows from the seed, the pass over the images and the image's place in the data set. So an
interrupted run that continues at its last checkpoint ends like an undisturbed one, and each process of several reads
its share of a batch just as one process would.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD
from torch.optim.lr_scheduler import PolynomialLR
from torch.utils.data import DataLoader, Dataset

from torch_svm_seg.distributed import mean_over_processes
from torch_svm_seg.files import InputError
from torch_svm_seg.tensors import hash_integers
from torch_svm_seg.trainable import Trainable

# Of SIPE and IRN for classifiers, of DeepLab for segmentation networks.
_NEW_LAYER_RATE, _DECAY_POWER = 10, 0.9


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.

    Attributes:
        steps: updates of the network.
        batch_size: images a step, over all processes together; a last smaller batch of a pass is left out.
        learning_rate: of the pretrained layers at the start; new layers have ten times as much.
        momentum: of stochastic gradient descent.
        weight_decay: of all trained parameters.
        largest_gradient: norm that gradients are clipped to; None: they are not.
        seed: of order and augmentation.
        amp: whether to compute in bfloat16 where PyTorch deems it safe.
        workers: processes that read images ahead.
    """

    steps: int
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float
    largest_gradient: float | None = None
    seed: int = 0
    amp: bool = False
    workers: int = 0


class TrainingData(Protocol):
    """Photographs with what is known about them, as a network trains on them."""

    def __len__(self) -> int:
        """Gives the number of photographs."""
        ...

    def crop(self, place: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Gives what :meth:`~torch_svm_seg.trainable.Trainable.losses` takes, of a random crop of one photograph."""
        ...


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
        data: what to train on.
        settings: how to train.
        rank: number of this process.
        processes: number of processes; all of them build the same objects and call the same methods.

    Raises:
        InputError: the batch cannot be shared evenly among the processes.
    """

    def __init__(
        self,
        network: Trainable,
        data: TrainingData,
        settings: TrainingSettings,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.network = network.to(memory_format=torch.channels_last)  # a quarter faster, on the CPU too
        self.settings = settings
        self._data, self._rank, self._processes = data, rank, processes
        self._batch_size = min(settings.batch_size, len(data))
        if self._batch_size % processes:
            raise InputError(
                f"--batch-size: {self._batch_size} images cannot be shared evenly among {processes} processes"
            )
        groups = [
            {"params": network.pretrained_parameters, "lr": settings.learning_rate},
            {"params": network.new_parameters, "lr": settings.learning_rate * _NEW_LAYER_RATE},
        ]
        self._optimizer = SGD(groups, momentum=settings.momentum, weight_decay=settings.weight_decay)
        self._schedule = PolynomialLR(self._optimizer, settings.steps, _DECAY_POWER)
        losses = _Losses(network)
        self._losses: nn.Module = DistributedDataParallel(losses) if distributed.is_initialized() else losses

    @property
    def step(self) -> int:
        """Number of steps done."""
        return int(self._schedule.last_epoch)  # PyTorch's name for the number of calls of its step()

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.settings.steps

    def run(self, steps: int, report: Callable[[Step], object]) -> None:
        """Trains for some steps, or for those that are left.

        Args:
            steps: number of steps.
            report: called after each step.

        Raises:
            InputError: an image cannot be read, or the loss is no longer a finite number.
        """
        self.network.train()
        device = next(self.network.parameters()).device
        # Dropout draws from PyTorch's own generator.
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            for batch in self._batches(min(steps, self.settings.steps - self.step)):
                torch.manual_seed(_seed(self.settings.seed, self.step, self._rank))
                rate = float(self._schedule.get_last_lr()[0])
                losses = self._update([part.to(device, non_blocking=True) for part in batch])
                report(Step(self.step, rate, losses))

    def state_dict(self) -> dict[str, Any]:
        """Gives all that is needed to continue after the last step."""
        return {
            "model": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from what :meth:`state_dict` gave, in a run of the same settings."""
        self.network.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])

    def _update(self, batch: list[Tensor]) -> dict[str, float]:
        images = batch[0].contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.settings.amp):
            losses: dict[str, Tensor] = self._losses(images, *batch[1:])
        total = torch.stack(list(losses.values())).sum()
        self._optimizer.zero_grad()
        total.backward()
        if self.settings.largest_gradient is not None:
            parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self.settings.largest_gradient)
        self._optimizer.step()
        self._schedule.step()
        means = mean_over_processes(torch.stack(list(losses.values())).detach().cpu())
        if not means.isfinite().all():
            rate = self.settings.learning_rate
            raise InputError(f"--learning-rate {rate}: the loss is not finite at step {self.step}")
        return dict(zip(losses, means.tolist(), strict=True))

    def _batches(self, steps: int) -> Iterator[list[Tensor]]:
        """This process's part of each of the next batches."""
        batches = [self._places(step) for step in range(self.step, self.step + steps)]
        crops = _Crops(self._data, self.settings.seed)
        yield from DataLoader(crops, batch_sampler=batches, num_workers=self.settings.workers)

    def _places(self, step: int) -> list[tuple[int, int]]:
        """This process's images of a step: the pass over the data, and the place in it."""
        epoch, number = divmod(step, len(self._data) // self._batch_size)
        generator = torch.Generator().manual_seed(_seed(self.settings.seed, epoch))
        order = torch.randperm(len(self._data), generator=generator)
        batch = order[number * self._batch_size : (number + 1) * self._batch_size]
        return [(epoch, place) for place in batch[self._rank :: self._processes].tolist()]


class _Losses(nn.Module):
    """The losses of a network as a module's output: what DistributedDataParallel can wrap."""

    def __init__(self, network: Trainable) -> None:
        super().__init__()
        self.network = network

    def forward(self, *batch: Tensor) -> dict[str, Tensor]:
        return self.network.losses(*batch)


class _Crops(Dataset[tuple[Tensor, ...]]):
    """The random crop of a photograph in a pass over the data; the same in each process."""

    def __init__(self, data: TrainingData, seed: int) -> None:
        self._data, self._seed = data, seed

    def __getitem__(self, pass_and_place: tuple[int, int]) -> tuple[Tensor, ...]:
        epoch, place = pass_and_place
        return self._data.crop(place, torch.Generator().manual_seed(_seed(self._seed, epoch, place)))


def _seed(*parts: int) -> int:
    return int(hash_integers(*parts))
