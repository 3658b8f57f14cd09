"""Maps spread over the image by the attention of a transformer: what its patches look at when they are encoded.

MCTformer (Xu et al., CVPR 2022) takes the attention between patches as it is, CLIP-ES (Lin et al., CVPR 2023,
section 3.3) makes it symmetric and doubly stochastic first. :class:`~torch_svm_seg.refine.AffinityWalk` uses the
similarity of features instead, which any network has.
"""

import torch
from torch import Tensor


def attention_affinity(attention: Tensor, rounds: int = 3) -> Tensor:
    """Return the affinity that CLIP-ES makes of an attention: doubly stochastic, symmetric, and squared.

    Args:
        attention: Weights from row to column, >= 0, (B, N, N), the mean of heads and blocks.
        rounds: Rounds in which columns and then rows are divided by their sums (Sinkhorn and Knopp, 1967).

    Returns:
        Affinities (B, N, N), symmetric, whose rows sum to about 1.

    Examples:
        >>> affinity = attention_affinity(torch.rand(1, 6, 6), rounds=20)
        >>> torch.allclose(affinity, affinity.mT), torch.allclose(affinity.sum(2), torch.ones(1, 6), atol=1e-4)
        (True, True)
    """
    least = torch.finfo(attention.dtype).tiny
    for _ in range(rounds):
        for dimension in (1, 2):
            attention = attention / attention.sum(dimension, keepdim=True).clamp_min(least)
    symmetric = (attention + attention.mT) / 2
    return symmetric @ symmetric


def spread_by(affinity: Tensor, maps: Tensor) -> Tensor:
    """Replace the value of each cell by the sum of all cells' values, times its affinity to them.

    Args:
        affinity: Affinities of rows to columns, (B, N, N).
        maps: Values of N = h w cells, (B, K, h, w).

    Returns:
        Spread maps (B, K, h, w).

    Examples:
        >>> spread_by(torch.tensor([[[0.0, 1.0], [0.5, 0.5]]]), torch.tensor([[[[4.0, 2.0]]]]))
        tensor([[[[2., 3.]]]])
    """
    spread: Tensor = (affinity @ maps.flatten(2).mT).mT.unflatten(2, maps.shape[2:])
    return spread
