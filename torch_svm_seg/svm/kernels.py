"""The Gaussian kernel of batches of samples, and products with it.

Its exponent, to the base of 2, is a product of two matrices: x and z with their squared norms appended. Both are moved
to the centre of z first, which changes no distance and keeps the product's cancellation small.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from torch_svm_seg.tensors import on_cpu

# Kernel values held at once by a product with a kernel matrix: 1 MB in single precision, which stays in a CPU's cache,
# and 512 MB, for which a GPU needs few operations.
BLOCK_ENTRIES, GPU_BLOCK_ENTRIES = 2**18, 2**27
# exp(t) = 2^(t log2(e)): a power of two is several times quicker to compute, and accurate to 2e-6.
LOG2_E = math.log2(math.e)


def block_entries(tensor: Tensor) -> int:
    """Return how many kernel values a product with a kernel matrix holds at once on a tensor's device.

    Examples:
        >>> block_entries(torch.zeros(1))
        262144
    """
    return BLOCK_ENTRIES if on_cpu(tensor) else GPU_BLOCK_ENTRIES


def gaussian_kernel(x: Tensor, z: Tensor, gamma: Tensor) -> Tensor:
    """Return exp(-gamma |x_i - z_j|^2).

    Args:
        x: Samples (B, N, D).
        z: Samples (B, M, D).
        gamma: Coefficient of each image's kernel, > 0, (B, 1, 1).

    Returns:
        Kernel values in (0, 1], (B, N, M).

    Examples:
        >>> x, z = torch.zeros(1, 1, 2), torch.tensor([[[0.0, 0.0], [1.0, 1.0]]])
        >>> gaussian_kernel(x, z, torch.tensor([[[0.5]]]))
        tensor([[[1.0000, 0.3679]]])
    """
    centre = z.mean(1, keepdim=True)
    return (_left_factor(x, centre, gamma) @ _right_factor(z, centre, gamma)).exp2_()


def kernel_blocks(x: Tensor, gamma: Tensor) -> Callable[[Tensor], Callable[[Tensor], Tensor]]:
    """Return what computes blocks of gaussian_kernel(x, x) of a single image.

    Args:
        x: Samples (1, N, D).
        gamma: Coefficient of the kernel, > 0, (1, 1, 1).

    Returns:
        A function of columns (n,) that returns a function of rows (m,) that returns their block (m, n).

    Examples:
        >>> blocks = kernel_blocks(torch.rand(1, 5, 3), torch.ones(1, 1, 1))
        >>> blocks(torch.tensor([0, 1, 3]))(torch.tensor([2, 4])).shape
        torch.Size([2, 3])
    """
    centre = x.mean(1, keepdim=True)
    left, right = _left_factor(x, centre, gamma)[0], _right_factor(x, centre, gamma)[0]

    def among(columns: Tensor) -> Callable[[Tensor], Tensor]:
        chosen = right[:, columns]
        return lambda rows: (left[rows] @ chosen).exp2_()

    return among


def multiply_by_kernel(x: Tensor, z: Tensor, gamma: Tensor, coefficients: Tensor) -> Tensor:
    """Return gaussian_kernel(x, z) @ coefficients, computed in blocks of rows.

    Args:
        x: Samples (B, N, D).
        z: Samples (B, M, D).
        gamma: Coefficient of each image's kernel, > 0, (B, 1, 1).
        coefficients: One row per sample in z, (B, M, K).

    Returns:
        One row per sample in x, (B, N, K).

    Examples:
        >>> x, z, gamma = torch.rand(2, 5, 3), torch.rand(2, 4, 3), torch.ones(2, 1, 1)
        >>> multiply_by_kernel(x, z, gamma, torch.rand(2, 4, 6)).shape
        torch.Size([2, 5, 6])
    """
    centre = z.mean(1, keepdim=True)
    right = _right_factor(z, centre, gamma)
    block = max(block_entries(x) // max(z.shape[0] * z.shape[1], 1), 1)
    thin = coefficients.mT.contiguous().mT  # a product with few columns is quicker if each lies in one piece
    products = [(_left_factor(rows, centre, gamma) @ right).exp2_() @ thin for rows in x.split(block, dim=1)]
    return torch.cat(products, 1)


def _left_factor(x: Tensor, centre: Tensor, gamma: Tensor) -> Tensor:
    """Return the exponent's left factor, (B, N, D + 2)."""
    x = x - centre
    squared_norm = x.square().sum(-1, keepdim=True)
    return torch.cat([x, -LOG2_E * gamma * squared_norm, torch.ones_like(squared_norm)], -1)


def _right_factor(z: Tensor, centre: Tensor, gamma: Tensor) -> Tensor:
    """Return the exponent's right factor, (B, D + 2, M)."""
    z = z - centre
    squared_norm = z.square().sum(-1, keepdim=True)
    rate = LOG2_E * gamma
    return torch.cat([2 * rate * z, torch.ones_like(squared_norm), -rate * squared_norm], -1).mT.contiguous()
