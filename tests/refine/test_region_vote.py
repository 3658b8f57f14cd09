"""The vote of regions against NumPy's means, and its gradient."""

import numpy as np
import pytest
import torch
from torch import Tensor

from torch_svm_seg.refine import RegionVote, refine


@pytest.fixture
def regions() -> Tensor:
    return torch.randint(-1, 5, (2, 6, 7), generator=torch.Generator().manual_seed(0))


def probabilities(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(2, 3, 6, 7, generator=torch.Generator().manual_seed(1)).to(dtype).softmax(1)


def test_each_pixel_gets_the_mean_of_its_region(regions: Tensor) -> None:
    given = probabilities()
    found = RegionVote(regions)(torch.zeros(2, 3, 6, 7), given).numpy()
    for image, numbers, before in zip(found, regions.numpy(), given.numpy(), strict=True):
        for number in range(5):
            mean = before[:, numbers == number].mean(1)
            np.testing.assert_allclose(image[:, numbers == number], mean[:, None].repeat((numbers == number).sum(), 1))
        np.testing.assert_array_equal(image[:, numbers == -1], before[:, numbers == -1])


def test_numbers_of_regions_mean_nothing(regions: Tensor) -> None:
    shuffled = torch.where(regions < 0, regions, 7 * (4 - regions))
    image, given = torch.zeros(2, 3, 6, 7), probabilities()
    torch.testing.assert_close(RegionVote(regions)(image, given), RegionVote(shuffled)(image, given))


def test_gradient(regions: Tensor) -> None:
    given = probabilities(torch.float64).requires_grad_()
    vote = RegionVote(regions)
    assert torch.autograd.gradcheck(lambda values: vote(torch.zeros(2, 3, 6, 7), values), (given,))


def test_a_step_among_others_and_regions_of_another_size(regions: Tensor) -> None:
    image, given = torch.zeros(2, 3, 6, 7), probabilities()
    twice = refine([RegionVote(regions), RegionVote(regions)], image, given)
    torch.testing.assert_close(twice, refine([RegionVote(regions)], image, given))
    with pytest.raises(ValueError, match=r"regions: expected \(2, 6, 7\).*got \(2, 7, 6\)"):
        RegionVote(regions.mT)(image, given)


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        (torch.zeros(1, 2, 3), r"expected int64 \(B, H, W\), got torch.float32 \(1, 2, 3\)"),
        (torch.zeros(1, 2, 3, dtype=torch.uint8), r"expected int64 \(B, H, W\), got torch.uint8 \(1, 2, 3\)"),
        (torch.zeros(2, 3, dtype=torch.int64), r"expected int64 \(B, H, W\), got torch.int64 \(2, 3\)"),
        (torch.full((1, 2, 3), -2), "expected numbers from 0 on, or -1, got -2"),
    ],
)
def test_bad_regions_are_told(regions: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=f"regions: {message}"):
        RegionVote(regions)
