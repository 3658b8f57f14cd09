"""Counts and seeds, wherever one is an argument: integers alone, of any library."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from torch_svm_seg import PAMR, AffinityWalk, DenseCRF, Fourier, Nystroem, SVMExpander
from torch_svm_seg.expansion.box_labeller import BoxLabeller
from torch_svm_seg.expansion.sampling import sample_pixels
from torch_svm_seg.expansion.self_training import SelfTraining


@pytest.mark.parametrize("value", [1.5, "one", None, 2**63])
@pytest.mark.parametrize("seeded", [Nystroem, Fourier, SVMExpander])
def test_a_wrong_seed_is_named(seeded: Any, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^seed: expected an integer of 64 bits, got {value!r}"):
        seeded(seed=value)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (SVMExpander, "num_classes"),
        (SVMExpander, "samples_per_class"),
        (DenseCRF, "steps"),
        (PAMR, "steps"),
        (AffinityWalk, "steps"),
        (AffinityWalk, "nearest"),
        (partial(SelfTraining, SVMExpander()), "rounds"),
        (partial(BoxLabeller, SVMExpander()), "rounds"),
        (partial(sample_pixels, torch.zeros(1, 2, 2, dtype=torch.long)), "per_class"),
    ],
)
def test_a_number_that_is_no_integer_is_named(make: Any, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected an integer >= [01], got 3.0"):
        make(**{name: 3.0})


def test_integers_of_numpy_are_integers() -> None:
    assert Nystroem(np.int64(20), seed=np.int32(3)).components == 20  # type: ignore[arg-type]
