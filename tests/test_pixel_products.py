"""Inner products of interpolated pixels against those of dense features, and SVMs fitted with them."""

from typing import Any

import pytest
import torch
from conftest import normal
from test_interpolation import SIZES, dense
from torch import Tensor

from torch_svm_seg import SVMExpander, expander, mapped_samples, pixel_products, solvers, svm
from torch_svm_seg.interpolation import FEW_CHANNELS, read_pixels
from torch_svm_seg.pixel_products import PixelProducts
from torch_svm_seg.svm import SVM

SIZE = (40, 50)


def some_pixels(size: tuple[int, int], device: str, number: int = 30) -> Tensor:
    return torch.randint(size[0] * size[1], (3, number), generator=torch.Generator().manual_seed(2)).to(device)


def pixel_problem(device: str, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, PixelProducts]:
    """Samples (3, 80, 6) far from the origin, overlapping classes, the second image with padding and two classes."""
    features = (normal(0, 3, 6, 5, 7) + 5).to(device, dtype)
    positions = some_pixels(SIZE, device, 80)
    x = read_pixels(features, positions, SIZE)
    y = (x[..., 0] + normal(1, 3, 80).to(x) > 5).long() + (x[..., 1] > 5.5)
    y[1, 60:], y[1, :60] = -1, y[1, :60].clamp(max=1)
    return x, y, PixelProducts.of_pixels(features, positions, SIZE)


@pytest.mark.parametrize(("grid", "size"), SIZES)
def test_products_are_those_of_dense_features_about_the_cells_mean(
    grid: tuple[int, int], size: tuple[int, int], dtype: torch.dtype, device: str
) -> None:
    features = (normal(0, 3, 6, *grid) + 2).to(device, dtype)
    positions = some_pixels(size, device)
    products = PixelProducts.of_pixels(features, positions, size)
    pixels = dense(features.double(), size) - features.double().mean((2, 3))[:, None]
    pixels = torch.stack([rows[at] for rows, at in zip(pixels, positions, strict=True)])
    everyone, some = torch.arange(30, device=device).expand(3, -1), some_pixels((5, 6), device, 9)
    found = products.read(products.with_cells(some), everyone)
    expected = pixels @ torch.stack([rows[at] for rows, at in zip(pixels, some, strict=True)]).mT
    tolerance = 1e-4 if dtype == torch.float32 else 1e-10
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)
    norms = products.squared_norms(everyone).double()
    torch.testing.assert_close(norms, pixels.square().sum(2), rtol=tolerance, atol=tolerance)


def test_products_of_chosen_images_and_in_double_precision_are_the_same(device: str) -> None:
    _, _, products = pixel_problem(device, torch.float32)
    images, pixels = torch.tensor([2, 0, 2], device=device), torch.arange(9, device=device).expand(3, -1)
    whole = products.read(products.with_cells(pixels), pixels)
    chosen = products.of(images).double()
    assert chosen.cells.dtype == torch.float64 and chosen.number == 80
    found = chosen.read(chosen.with_cells(pixels), pixels)
    torch.testing.assert_close(found, whole[images].double(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("columns", [7, 1024])
@pytest.mark.parametrize("loss", ["hinge", "squared_hinge"])
@pytest.mark.parametrize(
    "options", [{}, {"gamma": 0.3}, {"kernel": "linear"}, {"approximation": "fourier", "components": 60}]
)
def test_an_svm_decides_alike_with_and_without_products(
    options: dict[str, Any], loss: Any, columns: int, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(svm, "MANY_CHANNELS", 0)
    monkeypatch.setattr(mapped_samples, "COLUMNS", columns)
    monkeypatch.setattr(mapped_samples, "BLOCK_ENTRIES", 200)
    x, y, products = pixel_problem(device)
    weight = torch.linspace(0, 2, 80, dtype=x.dtype, device=device).expand(3, -1)
    plain = SVM(loss=loss, tol=1e-10, **options).fit(x, y, weight)
    quick = SVM(loss=loss, tol=1e-10, **options).fit(x, y, weight, products)
    expected = plain.decision_function(x)
    assert bool((expected[1, :, 2] == -torch.inf).all())
    torch.testing.assert_close(quick.decision_function(x), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(quick.objective_, plain.objective_, rtol=1e-8, atol=0, equal_nan=True)


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_what_single_precision_does_not_solve_is_solved_in_double(
    kernel: Any, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(svm, "MANY_CHANNELS", 0)
    monkeypatch.setattr(solvers, "SINGLE_PRECISION_STEPS", 1)
    x, y, products = pixel_problem(device, torch.float32)
    double, asked = PixelProducts.double, []
    monkeypatch.setattr(PixelProducts, "double", lambda products: asked.append(products) or double(products))
    found = SVM(kernel=kernel, tol=1e-6).fit(x, y, products=products)
    assert asked
    expected = SVM(kernel=kernel, tol=1e-6).fit(x.double(), y)
    torch.testing.assert_close(found.objective_, expected.objective_, rtol=1e-5, atol=0, equal_nan=True)


def test_a_fit_with_a_gradient_takes_the_samples_themselves(device: str) -> None:
    x, y, products = pixel_problem(device)
    x.requires_grad_()
    with_products = SVM(gradient="implicit").fit(x, y, products=products).decision_function(x.detach())
    without = SVM(gradient="implicit").fit(x, y).decision_function(x.detach())
    assert with_products.requires_grad
    torch.testing.assert_close(with_products, without, rtol=0, atol=0)


def test_products_of_other_samples_are_refused(device: str) -> None:
    x, y, products = pixel_problem(device)
    with pytest.raises(ValueError, match=r"products: expected \(3, 79\) to match y, got \(3, 80\)"):
        SVM().fit(x[:, 1:], y[:, 1:], products=products)


@pytest.mark.parametrize(
    ("channels", "grid", "number", "pays"),
    [
        (FEW_CHANNELS + 1, (4, 5), 21, True),
        (FEW_CHANNELS, (4, 5), 21, False),
        (FEW_CHANNELS + 1, (4, 5), 20, False),
    ],
)
def test_products_are_made_for_many_channels_on_few_cells(
    channels: int, grid: tuple[int, int], number: int, pays: bool
) -> None:
    features, positions = normal(0, 1, channels, *grid), torch.zeros(1, number, dtype=torch.long)
    assert (pixel_products.pixel_products([features], positions, (8, 8)) is not None) == pays
    assert pixel_products.pixel_products([features, features], positions, (8, 8)) is None


@pytest.mark.parametrize("options", [{}, {"kernel": "linear"}])
def test_an_expander_gives_the_same_masks_with_products(
    options: dict[str, Any], device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = normal(0, 2, svm.MANY_CHANNELS + 1, 6, 8).to(device, torch.float32)
    labels = (normal(1, 2, 1, 5, 5).to(device)[:, 0] > 0).long().repeat_interleave(10, 1).repeat_interleave(12, 2)
    quick = SVMExpander(samples_per_class=100, **options)(features, labels)
    monkeypatch.setattr(expander, "pixel_products", lambda *_: None)
    plain = SVMExpander(samples_per_class=100, **options)(features, labels)
    assert float((quick.masks == plain.masks).double().mean()) > 0.998
    assert float((quick.scores - plain.scores).abs().max()) < 0.1
