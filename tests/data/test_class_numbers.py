"""Numbers of classes among a few of them, and their ids again."""

import pytest
import torch

from torch_svm_seg.data.class_numbers import ids_of, numbered
from torch_svm_seg.data.constants import VOID


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_ids_come_back_and_other_classes_have_no_number(dtype: torch.dtype, device: str) -> None:
    labels, ids = torch.arange(256, device=device).view(16, 16).to(dtype), [7, 0, 254, 15]
    numbers = numbered(labels, ids)
    kept = torch.isin(labels, torch.tensor([*ids, VOID], device=device, dtype=dtype))
    assert torch.equal(ids_of(numbers, torch.tensor(ids)), torch.where(kept, labels.long(), VOID))
    assert [int(numbers.flatten()[id]) for id in ids] == [0, 1, 2, 3]


def test_without_any_class_there_is_no_number() -> None:
    assert numbered(torch.tensor([3, 255]), []).tolist() == [VOID, VOID]
    assert ids_of(torch.tensor([3, 255]), []).tolist() == [3, VOID], "masks of ids, as of images without any label"
