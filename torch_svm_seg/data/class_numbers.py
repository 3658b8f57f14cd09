"""Classes by their number among a few of them, in place of their id among all that a data set has.

Most of a data set's classes are in none of a few images: without them, probabilities take less memory and time.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from torch_svm_seg.data.constants import VOID


def numbered(labels: Tensor, ids: Sequence[int] | Tensor) -> Tensor:
    """Return the number of each label's class among some.

    Args:
        labels: Class ids from 0 to 255, of any shape.
        ids: Ids of these classes, (K,).

    Returns:
        Numbers from 0 to K - 1, and 255 for a label of no such class, int64.

    Examples:
        >>> numbered(torch.tensor([15, 0, 9, 255]), [0, 15])
        tensor([  1,   0, 255, 255])
    """
    table = torch.full((VOID + 1,), VOID, device=labels.device)
    table[torch.as_tensor(ids, dtype=torch.long, device=labels.device)] = torch.arange(len(ids), device=labels.device)
    return table[labels.long()]


def ids_of(numbers: Tensor, ids: Sequence[int] | Tensor) -> Tensor:
    """Return the ids of classes that are given by :func:`numbered`; 255 stays, as what is no number of a class does.

    So masks of ids stay what they are where nothing was numbered, as in images without any label.

    Examples:
        >>> ids_of(torch.tensor([1, 0, 255]), [0, 15])
        tensor([ 15,   0, 255])
    """
    table = torch.arange(VOID + 1, device=numbers.device)
    table[: len(ids)] = torch.as_tensor(ids, dtype=torch.long, device=numbers.device)
    return table[numbers.long()]
