"""Images of several sizes, whose SVMs are fitted at once: the same as one after the other."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from torch_svm_seg.expansion.expander import Expansion, LabelledMaps, SVMExpander
from torch_svm_seg.svm.approximations import Fourier
from torch_svm_seg.svm.svm import SVM

# Of different grids, numbers of images and classes: the second batch has no class 1, the third no class 0.
SIZES = [(1, (5, 8), (40, 60)), (2, (6, 6), (48, 40)), (1, (7, 4), (30, 16))]
CLASSES = [[0, 1], [0, 3], [1, 3, 4]]


def labelled(number: int, channels: int, dtype: torch.dtype = torch.float64, device: str = "cpu") -> LabelledMaps:
    """Maps whose channels say, through noise, which class a cell is of."""
    (images, grid, size), generator = SIZES[number], torch.Generator().manual_seed(number)
    cells = torch.tensor(CLASSES[number])[torch.randint(0, len(CLASSES[number]), (images, *grid), generator=generator)]
    codes = torch.randn(5, channels, generator=torch.Generator().manual_seed(9))
    noise = torch.randn(images, *grid, channels, generator=generator)
    features = (2 * codes[cells] + noise).movedim(3, 1).to(device, dtype)
    height, width = size
    rows, columns = torch.arange(height) * grid[0] // height, torch.arange(width) * grid[1] // width
    labels = cells[:, rows][:, :, columns]
    labels[:, 0] = 255
    return LabelledMaps(features, labels.to(device))


def far(one: Tensor, other: Tensor) -> float:
    assert torch.equal(one.isinf(), other.isinf())
    return float((one - other)[one.isfinite()].abs().max())


def same(together: list[Expansion], alone: list[Expansion], tolerance: float) -> None:
    for found, expected in zip(together, alone, strict=True):
        assert torch.equal(found.sample.positions, expected.sample.positions)
        assert far(found.scores, expected.scores) < tolerance
        # Where two classes score alike to the last digits either may win.
        assert float((found.masks == expected.masks).double().mean()) > 0.999


@pytest.mark.parametrize(
    "options",
    [
        {"kernel": "linear"},
        {"kernel": "linear", "loss": "squared_hinge", "C": 10},
        {"kernel": "rbf"},
        {"kernel": "rbf", "approximation": Fourier(64)},
    ],
)
@pytest.mark.parametrize("channels", [8, 520])  # many channels are known by their inner products
def test_sizes_fitted_together_are_as_if_fitted_alone(options: dict[str, Any], channels: int, device: str) -> None:
    expander = SVMExpander(SVM(**options, tol=1e-9), samples_per_class=150)
    batches = [labelled(number, channels, device=device) for number in range(3)]
    same(expander.expand_batches(batches), [expander(*batch) for batch in batches], tolerance=1e-3)


def test_weights_of_some_and_a_size_of_one_class_alone(device: str) -> None:
    expander = SVMExpander(SVM(tol=1e-9), samples_per_class=100)
    weighted, alone = labelled(0, 8, device=device), labelled(1, 8, device=device)
    weights = torch.rand(weighted.labels.shape, generator=torch.Generator().manual_seed(3)).to(device)
    batches = [weighted._replace(weights=weights), alone._replace(labels=alone.labels.clamp(max=0))]
    together = expander.expand_batches(batches)
    same(together, [expander(*batch) for batch in batches], tolerance=1e-3)
    assert bool((together[1].masks == 0).all())


def test_the_gradient_of_a_size_is_its_own() -> None:
    """The fit of all does not mix images: what one scores has no gradient in another's features."""
    expander = SVMExpander(SVM(kernel="linear", loss="squared_hinge", tol=1e-9, gradient="implicit"), 50)
    batches = [labelled(number, 4) for number in (0, 1)]
    for batch in batches:
        assert isinstance(batch.features, Tensor)
        batch.features.requires_grad_()
    first, _ = expander.expand_batches(batches)
    own, other = torch.autograd.grad(
        first.scores[:, 0].square().mean(), [batch.features for batch in batches], allow_unused=True
    )
    expected = torch.autograd.grad(expander(*batches[0]).scores[:, 0].square().mean(), batches[0].features)[0]
    torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-9)
    assert other is None or float(other.abs().max()) == 0


def test_bad_labels_of_any_size_are_named() -> None:
    batches = [labelled(0, 4), labelled(1, 4)._replace(labels=torch.full((2, 48, 40), 255))]
    with pytest.raises(ValueError, match="labelled pixel"):
        SVMExpander().expand_batches(batches)


@pytest.mark.parametrize("options", [{"kernel": "linear"}, {"kernel": "rbf"}])
@pytest.mark.parametrize("channels", [8, 520])
def test_batches_of_two_precisions_are_fitted_in_the_higher(options: dict[str, Any], channels: int) -> None:
    batches = [labelled(number, channels, dtype) for number, dtype in enumerate((torch.float32, torch.float64))]
    expander = SVMExpander(SVM(**options, tol=1e-6), samples_per_class=50)
    together = expander.expand_batches(batches)
    assert all(found.scores.dtype == torch.float64 for found in together)
    same(together, [expander(*batch) for batch in batches], tolerance=1e-3)


def test_bad_batches_are_named() -> None:
    with pytest.raises(ValueError, match=r"^batches: expected at least one, got none"):
        SVMExpander().expand_batches([])
    two = labelled(2, 4)
    fused = two._replace(features=[two.features, two.features])
    for other, channels in ((labelled(1, 6), "(6,)"), (fused, "(4, 4)")):
        message = f"batches: expected maps of the same channels in all, got [(4,), {channels}]"
        with pytest.raises(ValueError, match="^" + re.escape(message)):
            SVMExpander().expand_batches([labelled(0, 4), other])
