"""Small tensor operations, most of them on batches of padded rows."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

Network = TypeVar("Network", bound=nn.Module)


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Keep autocast, if any is on, out of a block.

    Examples:
        >>> with full_precision(torch.device("cpu")):
        ...     print((torch.ones(2, 2) @ torch.ones(2, 2)).dtype)
        torch.float32
    """
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def on_cpu(tensor: Tensor) -> bool:
    """Return whether a tensor is on the CPU, where small operations are cheap and nothing has to be waited for.

    Examples:
        >>> on_cpu(torch.zeros(1))
        True
    """
    return tensor.device.type == "cpu"


def on_host(*columns: Tensor) -> NDArray[np.float64]:
    """Return vectors (P,) of one type as rows of an array, fetched from their device at once; the host waits for it.

    Examples:
        >>> on_host(torch.ones(2), torch.zeros(2))
        array([[1., 1.],
               [0., 0.]], dtype=float32)
    """
    rows: NDArray[np.float64] = torch.stack(columns).detach().cpu().numpy()
    return rows


def sent(values: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the CPU on a device; to a GPU it is copied from pinned memory, and the host goes on meanwhile.

    Examples:
        >>> sent(torch.ones(2), torch.device("cpu")).is_pinned()
        False
    """
    return (values.pin_memory() if device.type == "cuda" else values).to(device, non_blocking=True)


def column(values: NDArray[Any], like: Tensor) -> Tensor:
    """Return an array (P,) as a tensor (P, 1) on the device of another.

    Examples:
        >>> column(np.array([True, False]), torch.zeros(1)).tolist()
        [[True], [False]]
    """
    return sent(torch.from_numpy(values)[:, None], like.device)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed PyTorch's generator of the CPU for a block, and leave it as it was.

    Examples:
        >>> with seeded(3):
        ...     first = torch.rand(2)
        >>> with seeded(3):
        ...     print(torch.equal(first, torch.rand(2)))
        True
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def resize(values: Tensor, size: Sequence[int], antialias: bool = False) -> Tensor:
    """Interpolate values (B, C, h, w) bilinearly to a size (H, W); ``antialias`` as in ``interpolate``.

    Examples:
        >>> resize(torch.rand(1, 3, 4, 4), (8, 12)).shape
        torch.Size([1, 3, 8, 12])
    """
    if tuple(values.shape[-2:]) == tuple(size):
        return values
    return F.interpolate(values, tuple(size), mode="bilinear", align_corners=False, antialias=antialias)


def rounding(largest: Tensor, dtype: torch.dtype) -> Tensor:
    """Return how far equal values of a magnitude ``largest`` may be from their mean, as it was computed in a type.

    Examples:
        >>> rounding(torch.tensor(1000.0), torch.float32)
        tensor(0.0012)
    """
    return 10 * torch.finfo(dtype).eps * largest


def deviation(variance: Tensor, rounding: Tensor) -> Tensor:
    """Return standard deviations; inf where only rounding tells values apart, so that quotients by it become 0.

    Args:
        variance: Variances.
        rounding: Deviation up to which values count as equal, see :func:`rounding`.

    Examples:
        >>> deviation(torch.tensor([4.0, 1e-9]), torch.tensor(1e-3)).tolist()
        [2.0, inf]
    """
    return torch.where(variance > rounding.square(), variance, torch.inf).sqrt()


def take_rows(values: Tensor, rows: Tensor) -> Tensor:
    """Return the rows ``rows`` (B, n) of values (B, N, C), as (B, n, C).

    Examples:
        >>> take_rows(torch.tensor([[[1.0], [2.0], [3.0]]]), torch.tensor([[2, 0]])).tolist()
        [[[3.0], [1.0]]]
    """
    return values.gather(1, rows[..., None].expand(-1, -1, values.shape[-1]))


def dot(first: Tensor, second: Tensor) -> Tensor:
    """Return the inner products (P,) of vectors (P, n), as one operation.

    Examples:
        >>> dot(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]]))
        tensor([11.])
    """
    return torch.bmm(first[:, None], second[..., None])[:, 0, 0]


def spread_rows(values: Tensor, rows: Tensor, number: int) -> Tensor:
    """Add values (P, n) to zeros (P, number) at the indices ``rows`` (P, n).

    Examples:
        >>> spread_rows(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0, 2, 2]]), 4).tolist()
        [[1.0, 0.0, 5.0, 0.0]]
    """
    return values.new_zeros(values.shape[0], number).scatter_add_(1, rows, values)


def padded(values: Tensor, number: int, fill: float = 0) -> Tensor:
    """Return values (B, N, ...) with more entries after the last one, (B, number, ...).

    Examples:
        >>> padded(torch.tensor([[1, 2]]), 3, -1).tolist()
        [[1, 2, -1]]
    """
    more = values.new_full((values.shape[0], number - values.shape[1], *values.shape[2:]), fill)
    return torch.cat([values, more], 1) if more.shape[1] else values


def first_true(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the indices where a mask (..., N) is true along its last dimension, padded to the largest count.

    Returns:
        Indices (..., A), A at least 1, ascending, padded by indices of false entries; and which are valid, bool.

    Examples:
        >>> indices, valid = first_true(torch.tensor([[False, True, True], [True, False, False]]))
        >>> indices[valid].tolist(), valid.tolist()
        ([1, 2, 0], [[True, True], [True, False]])
    """
    count = max(int(mask.sum(-1).max()), 1) if mask.numel() else 1
    indices = mask.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)[..., :count]
    return indices, mask.gather(-1, indices)


def hash_integers(*parts: Tensor | int) -> Tensor:
    """Return pseudo-random integers in [0, 2^32) from the broadcast integers ``parts``: the same on every device.

    Each part is mixed in by the finaliser of MurmurHash3 (Appleby, 2011), on 32 bits of 64-bit integers.

    Examples:
        >>> hash_integers(torch.arange(1000), 7).unique().shape
        torch.Size([1000])
    """
    value = torch.tensor(0)
    for part in parts:
        value = (value * 0x9E3779B9 + 0x7F4A7C15 + part) & 0xFFFFFFFF
        for shift, multiplier in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
            value = ((value ^ (value >> shift)) * multiplier) & 0xFFFFFFFF
    return value


def position_hash(valid: Tensor, seed: int = 0) -> Tensor:
    """Return pseudo-random numbers for choosing among the valid entries of (B, N); the others get a larger number.

    A number depends on the seed and on the entry's rank among the valid ones alone: a choice made by it does not depend
    on the padding, on the other images of the batch or on the device.

    Examples:
        >>> position_hash(torch.tensor([[True, True, False]])).argmax(1).tolist()
        [2]
    """
    return torch.where(valid, hash_integers(seed, valid.long().cumsum(1)), 2**32)


def differentiable(network: Network) -> Network:
    """Return a network whose gradients can be computed: itself, or a copy where it was made in inference mode.

    Examples:
        >>> with torch.inference_mode():
        ...     layer = nn.Linear(3, 1)
        >>> differentiable(layer)(torch.ones(2, 3)).requires_grad
        True
    """
    tensors = (*network.parameters(), *network.buffers())
    return copy.deepcopy(network) if any(tensor.is_inference() for tensor in tensors) else network
