"""Training a network on random crops: resumable, on one process or several, with the same result for both.

Every random choice follows from the seed, the epoch and the image's index in the data set. So an interrupted run that
continues at its last checkpoint ends like an undisturbed one, and each process of several reads its share of a batch
just as one process would.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import PolynomialLR
from torch.utils.data import DataLoader

from torch_svm_seg.data.errors import InputError
from torch_svm_seg.tensors import hash_integers, sent
from torch_svm_seg.training.distributed import mean_over_processes
from torch_svm_seg.training.trainable import Crops, Trainable

Relabel = Callable[[int, Tensor, list[Tensor]], list[Tensor]]
"""Returns the labels to train on in place of those of a batch, given the number of steps done and the images."""

OPTIMIZERS = ("sgd", "adamw")

# Power of the learning rate's decay in SIPE and IRN.
_DECAY_POWER = 0.9


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of a training.

    Attributes:
        epochs: Passes over the images; None if `steps` says how long to train.
        batch_size: Images per step, over all processes together; a last smaller batch is left out.
        learning_rate: Learning rate at the start; a network's groups of parameters have factors on it.
        momentum: Momentum of stochastic gradient descent.
        weight_decay: Weight decay of all trained parameters.
        crop_size: Side of the square crops, in pixels.
        seed: Seed of order and augmentation.
        amp: Whether to compute in bfloat16 where PyTorch deems it safe.
        workers: Processes that read images ahead.
        steps: Updates of the network, in place of `epochs`.
        optimizer: One of :data:`OPTIMIZERS`; AdamW (Loshchilov and Hutter, ICLR 2019) has no use for the momentum.
    """

    epochs: int | None
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float
    crop_size: int
    seed: int = 0
    amp: bool = False
    workers: int = 0
    steps: int | None = None
    optimizer: str = "sgd"


class TrainingStep(NamedTuple):
    """Outcome of one step of training.

    Attributes:
        step: Number of the step, from 1.
        learning_rate: Learning rate of the network's first group of parameters.
        losses: Terms of the loss, means over the batch.
    """

    step: int
    learning_rate: float
    losses: dict[str, float]


class Training:
    """One run of training.

    Args:
        network: Network to train, on the device to train on.
        crops: Crops to train it on.
        settings: Settings of the training.
        rank: Number of this process.
        processes: Number of processes; all of them build the same objects and call the same methods.
        relabel: Changes the labels of batches, each process those of its part; by the network as it is, if need be.

    Attributes:
        network: The network.
        steps: Number of steps of the whole run.
        steps_per_epoch: Number of steps of a pass over the images.

    Raises:
        InputError: The batch cannot be shared evenly among the processes.
        ValueError: The settings have neither epochs nor steps, or both.

    Examples:
        >>> settings = TrainingSettings(3, 16, 0.1, momentum=0.0, weight_decay=1e-4, crop_size=320)
        >>> training = Training(network, crops, settings)  # doctest: +SKIP
        >>> training.run(training.steps, report=print)  # doctest: +SKIP
    """

    def __init__(
        self,
        network: Trainable,
        crops: Crops,
        settings: TrainingSettings,
        rank: int = 0,
        processes: int = 1,
        relabel: Relabel | None = None,
    ) -> None:
        self.network = network.to(memory_format=torch.channels_last)  # a quarter faster, on the CPU too
        self._crops, self._settings, self._rank, self._processes = crops, settings, rank, processes
        self._relabel = relabel
        self._batch_size = min(settings.batch_size, len(crops))
        if self._batch_size % processes:
            raise InputError(
                f"--batch-size: {self._batch_size} images cannot be shared evenly among {processes} processes"
            )
        self.steps_per_epoch = len(crops) // self._batch_size
        if (settings.epochs is None) == (settings.steps is None):
            raise ValueError(f"settings: expected epochs or steps, got {settings.epochs} and {settings.steps}")
        self.steps = settings.steps or (settings.epochs or 0) * self.steps_per_epoch
        self._optimizer = _optimizer(network, settings)
        self._schedule = PolynomialLR(self._optimizer, self.steps, _DECAY_POWER)
        losses = _Losses(network)
        self._losses: nn.Module = DistributedDataParallel(losses) if distributed.is_initialized() else losses

    @property
    def step(self) -> int:
        """Number of steps done."""
        return int(self._schedule.last_epoch)  # PyTorch's name for the number of calls of its step()

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.steps

    def run(self, steps: int, report: Callable[[TrainingStep], object]) -> None:
        """Train for some steps, or for those that are left.

        Args:
            steps: Number of steps.
            report: Called after each step.

        Raises:
            InputError: An image cannot be read, or the loss is no longer a finite number.
        """
        self.network.train()
        device = next(self.network.parameters()).device
        # Dropout draws from PyTorch's own generator.
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            for batch in self._batches(min(steps, self.steps - self.step)):
                torch.manual_seed(int(hash_integers(self._settings.seed, self.step, self._rank)))
                rate = float(self._schedule.get_last_lr()[0])
                images, *labels = (sent(part, device) for part in batch)
                if self._relabel is not None:
                    labels = self._relabel(self.step, images, labels)
                losses = self._update(images, labels)
                report(TrainingStep(self.step, rate, losses))

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to continue after the last step."""
        return {
            "model": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the result of :meth:`state_dict` of a run of the same settings.

        Raises:
            ValueError: The state is of no step of this run.
        """
        step = state["schedule"]["last_epoch"]
        if not isinstance(step, int) or not 0 <= step <= self.steps:
            raise ValueError(f"step {step} of {self.steps}")
        self.network.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])

    def _update(self, images: Tensor, labels: list[Tensor]) -> dict[str, float]:
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self._settings.amp):
            losses: dict[str, Tensor] = self._losses(images, *labels)
        total = torch.stack(list(losses.values())).sum()
        self._optimizer.zero_grad()
        total.backward()
        parameters = [parameter for group in self._optimizer.param_groups for parameter in group["params"]]
        if self.network.largest_gradient is not None:
            nn.utils.clip_grad_norm_(parameters, self.network.largest_gradient)
        self._optimizer.step()
        self._schedule.step()
        means = mean_over_processes(torch.stack(list(losses.values())))
        if not means.isfinite().all():
            rate = self._settings.learning_rate
            raise InputError(f"--learning-rate {rate}: the loss is not finite at step {self.step}")
        return dict(zip(losses, means.tolist(), strict=True))

    def _batches(self, steps: int) -> Iterator[list[Tensor]]:
        """Yield this process's part of each of the next batches, epoch by epoch."""
        last = self.step + steps
        while self.step < last:
            epoch, first = divmod(self.step, self.steps_per_epoch)
            generator = torch.Generator().manual_seed(int(hash_integers(self._settings.seed, epoch)))
            order = torch.randperm(len(self._crops), generator=generator)[: self.steps_per_epoch * self._batch_size]
            batches = order.view(self.steps_per_epoch, self._batch_size)[:, self._rank :: self._processes].tolist()
            self._crops.epoch = epoch
            batches = batches[first : first + last - self.step]
            yield from DataLoader(self._crops, batch_sampler=batches, num_workers=self._settings.workers)


def _optimizer(network: Trainable, settings: TrainingSettings) -> Optimizer:
    groups = [
        {"params": parameters, "lr": settings.learning_rate * factor}
        for parameters, factor in network.parameter_groups()
    ]
    if settings.optimizer == "adamw":
        return AdamW(groups, weight_decay=settings.weight_decay)
    return SGD(groups, momentum=settings.momentum, weight_decay=settings.weight_decay)


class _Losses(nn.Module):
    """The losses of a network as a module's output, which DistributedDataParallel can wrap."""

    def __init__(self, network: Trainable) -> None:
        super().__init__()
        self.network = network

    def forward(self, *batch: Tensor) -> dict[str, Tensor]:
        return self.network.losses(*batch)
