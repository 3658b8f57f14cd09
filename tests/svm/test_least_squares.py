"""Least-squares classifiers from sums, against scikit-learn's ridge regression on the samples themselves."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from torch_svm_seg.svm.least_squares import ClassMoments


def moments_of(x: torch.Tensor, y: torch.Tensor, num_classes: int = 3) -> ClassMoments:
    moments = ClassMoments.zeros(num_classes, x.shape[1])
    moments.add(x, y)
    return moments


@pytest.fixture
def samples() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    y = torch.multinomial(torch.tensor([0.6, 0.1, 0.3]), 400, replacement=True, generator=generator)
    x = torch.randn(400, 7, generator=generator, dtype=torch.float64) * torch.arange(1.0, 8.0) + 5
    return x + 3 * torch.nn.functional.one_hot(y, 7), y


@pytest.mark.parametrize("ridge", [1e-3, 0.5])
def test_solution_is_that_of_ridge_regression(samples: tuple[torch.Tensor, torch.Tensor], ridge: float) -> None:
    x, y = samples
    found = moments_of(x, y).solve(ridge)
    weight = torch.bincount(y).double().rsqrt()[y]
    weight = (weight / weight.sum()).numpy()
    mean, variance = np.average(x, axis=0, weights=weight), np.average(x**2, axis=0, weights=weight)
    scaled = (x.numpy() - mean) / np.sqrt(variance - mean**2)
    theirs = Ridge(ridge).fit(scaled, np.eye(3)[y], sample_weight=weight)
    np.testing.assert_allclose(found(x.float()), theirs.predict(scaled), atol=2e-5)


def test_blocks_add_up(samples: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, y = samples
    moments = moments_of(x[:150], y[:150])
    moments.add(x[150:], y[150:])
    for part, whole in zip(moments, moments_of(x, y), strict=True):
        torch.testing.assert_close(part, whole)


def test_a_weight_counts_samples_several_times(samples: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, y = samples
    weights = torch.randint(0, 4, (len(x),), generator=torch.Generator().manual_seed(1))
    found = ClassMoments.zeros(3, x.shape[1])
    found.add(x, y, weights)
    for part, repeated in zip(
        found, moments_of(x.repeat_interleave(weights, 0), y.repeat_interleave(weights)), strict=True
    ):
        torch.testing.assert_close(part, repeated)


def test_a_class_without_samples_never_wins(samples: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, y = samples
    scores = moments_of(x, y, num_classes=4).solve()(x.float())
    assert bool((scores[:, 3] == -torch.inf).all()) and bool(scores[:, :3].isfinite().all())


@pytest.mark.parametrize("value", [0.0, 3.0, 0.1, -1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_constant_channel_changes_nothing(
    samples: tuple[torch.Tensor, torch.Tensor], dtype: torch.dtype, value: float
) -> None:
    x, y = samples[0].to(dtype), samples[1]
    wider = torch.cat([x, torch.full((400, 1), value, dtype=dtype)], 1)
    torch.testing.assert_close(
        moments_of(wider, y).solve()(wider.float()), moments_of(x, y).solve()(x.float()), rtol=0, atol=1e-5
    )


def test_samples_far_from_the_origin_are_separated_as_near_it(samples: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, y = samples
    far = (x + 3000).float()
    expected = moments_of(x, y).solve()(x.float())
    torch.testing.assert_close(moments_of(far, y).solve()(far), expected, rtol=0, atol=2e-3)


def test_autocast_does_not_reach_the_moments(samples: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, y = samples[0].float(), samples[1]
    with torch.autocast("cpu"):
        found = moments_of(x, y)
    for part, expected in zip(found, moments_of(x, y), strict=True):
        assert torch.equal(part, expected)


def test_errors_name_the_argument() -> None:
    moments = ClassMoments.zeros(2, 3)
    with pytest.raises(ValueError, match="x: expected finite samples"):
        moments.add(torch.full((1, 3), torch.nan), torch.tensor([0]))
    with pytest.raises(ValueError, match="moments: expected samples, got none"):
        moments.solve()
    with pytest.raises(ValueError, match="ridge: expected more than 0, got 0"):
        moments_of(torch.rand(4, 3), torch.tensor([0, 0, 1, 1]), 2).solve(ridge=0)
    for ids, expected in (
        (torch.tensor([0, -1]), "in 0 to 1, got -1 to 0"),
        (torch.tensor([2, 0]), "in 0 to 1, got 0 to 2"),
        (torch.tensor([0.0, 1.0]), r"integer \(2,\)"),
        (torch.tensor([0]), r"integer \(2,\)"),
    ):
        with pytest.raises(ValueError, match=f"^y: expected .*{expected}"):
            moments.add(torch.rand(2, 3), ids)
    for weights in (torch.tensor([1.0, -1.0]), torch.tensor([1.0, torch.inf]), torch.ones(3)):
        with pytest.raises(ValueError, match=r"^weights: expected"):
            moments.add(torch.rand(2, 3), torch.tensor([0, 1]), weights)
    for x in (torch.rand(2, 4), torch.rand(3), torch.ones(2, 3, dtype=torch.long)):
        with pytest.raises(ValueError, match=r"^x: expected floating point \(N, 3\), got"):
            moments.add(x, torch.tensor([0, 1]))
    assert not any(bool(part.any()) for part in moments), "nothing is added of what is refused"
