"""Small tensor operations on batches of padded rows."""

import torch
from torch import Tensor


def take_rows(values: Tensor, rows: Tensor) -> Tensor:
    """Rows ``rows`` (B, n) of values (B, N, C), as (B, n, C)."""
    return values.gather(1, rows[..., None].expand(-1, -1, values.shape[-1]))


def spread_rows(values: Tensor, rows: Tensor, number: int) -> Tensor:
    """Values (P, n) at places ``rows`` (P, n) of zeros (P, number), added where places repeat."""
    return values.new_zeros(values.shape[0], number).scatter_add_(1, rows, values)


def first_true(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Where a mask (..., N) is true along its last dimension, padded to the largest count (at least 1).

    Returns:
        Indices (..., A) in ascending order, padded by indices of entries that are false (or repeated); and which of
        them are real, bool (..., A).
    """
    count = max(int(mask.sum(-1).max()), 1)
    indices = mask.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)[..., :count]
    return indices, mask.gather(-1, indices)


def position_hash(valid: Tensor, seed: int = 0) -> Tensor:
    """Pseudo-random numbers for choosing among the valid entries of (B, N); the others get the largest number.

    A number depends on the seed and on the entry's rank among the valid ones alone: a choice made by it is the same on
    every device, and whatever the padding and the other images of the batch.
    """
    rank = valid.long().cumsum(1) + (seed % 2**31) * 0x9E3779B1
    # Two rounds of a multiply-and-shift hash modulo 2^31 - 1 (products stay below 2^63).
    for multiplier in (0x2C1B3C6D, 0x297A2D39):
        rank = rank & 0x7FFFFFFF
        rank = ((rank ^ (rank >> 15)) * multiplier) & 0x7FFFFFFF
    return torch.where(valid, rank ^ (rank >> 14), 2**31)
