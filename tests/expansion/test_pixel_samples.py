"""Inner products of interpolated pixels against those of dense features, and SVMs fitted with them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from conftest import normal
from test_interpolation import SIZES, dense
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from torch_svm_seg import SVMExpander
from torch_svm_seg.expansion import joint_fit, pixel_samples
from torch_svm_seg.expansion.interpolation import FEW_CHANNELS, read_pixels
from torch_svm_seg.expansion.pixel_samples import PixelProducts
from torch_svm_seg.svm import solver, stages, svm, working_sets
from torch_svm_seg.svm.approximations import Fourier, Nystroem
from torch_svm_seg.svm.svm import SVM

SIZE = (40, 50)


def some_pixels(size: tuple[int, int], device: str, number: int = 30) -> Tensor:
    return torch.randint(size[0] * size[1], (3, number), generator=torch.Generator().manual_seed(2)).to(device)


def pixel_problem(
    device: str, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Callable[[], PixelProducts]]:
    """Samples (3, 80, 6) far from the origin, overlapping classes, the second image with padding and two classes."""
    features = (normal(0, 3, 6, 5, 7) + 5).to(device, dtype)
    positions = some_pixels(SIZE, device, 80)
    x = read_pixels(features, positions, SIZE)
    y = (x[..., 0] + normal(1, 3, 80).to(x) > 5).long() + (x[..., 1] > 5.5)
    y[1, 60:], y[1, :60] = -1, y[1, :60].clamp(max=1)
    return x, y, partial(PixelProducts.of_pixels, features, positions, SIZE)


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
    images = torch.arange(3, device=device)
    found = products.read(products.with_cells(images, some), images, everyone)
    expected = pixels @ torch.stack([rows[at] for rows, at in zip(pixels, some, strict=True)]).mT
    tolerance = 1e-4 if dtype == torch.float32 else 1e-10
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(products.squared_norms.double(), pixels.square().sum(2), rtol=tolerance, atol=tolerance)


def test_joined_products_are_multiplied_once(device: str) -> None:
    """Three images joined cost the multiplications of three images."""
    maps, positions = normal(0, 3, 6, 5, 7).to(device), some_pixels(SIZE, device)

    def parts() -> list[PixelProducts]:
        return [PixelProducts.of_pixels(maps[i : i + 1], positions[i : i + 1], SIZE) for i in range(3)]

    with FlopCounterMode(display=False) as alone:
        expected = [part.squared_norms for part in parts()]
    with FlopCounterMode(display=False) as together:
        found = PixelProducts.joined(parts()).squared_norms
    torch.testing.assert_close(found, torch.cat(expected))
    assert together.get_total_flops() == alone.get_total_flops() > 0


def test_problems_read_the_products_of_their_own_image(device: str) -> None:
    products = pixel_problem(device, torch.float32)[2]()
    images, pixels = torch.tensor([2, 0, 2, 1], device=device), torch.arange(9, device=device).expand(4, -1)
    found = products.read(products.with_cells(images, pixels), images, pixels)
    own = torch.arange(3, device=device)
    whole = products.read(products.with_cells(own, pixels[:3]), own, pixels[:3])
    torch.testing.assert_close(found, whole[images])
    double = products.double()
    assert double.cells.dtype == torch.float64 and double.number == 80
    exact = double.read(double.with_cells(images, pixels), images, pixels)
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("gamma", [None, 0.2])
def test_rows_and_diagonals_are_those_of_the_kernel_matrix(gamma: float | None) -> None:
    products, image = pixel_problem("cpu")[2](), torch.tensor([1])
    samples = products.samples(image, None if gamma is None else torch.full((1, 1, 1), gamma).double())
    kernel = samples.space(torch.arange(80)[None]).kernel[0]
    torch.testing.assert_close(
        samples.kernel_blocks()(torch.tensor([3, 9]))(torch.tensor([7, 0, 79])), kernel[[7, 0, 79]][:, [3, 9]]
    )
    torch.testing.assert_close(samples.diagonal()[0], kernel.diagonal())


@pytest.mark.parametrize("in_parts", [False, True])
@pytest.mark.parametrize("loss", ["hinge", "squared_hinge"])
@pytest.mark.parametrize("options", [{}, {"gamma": 0.3}, {"kernel": "linear"}, {"approximation": Fourier(60)}])
def test_an_svm_decides_alike_with_and_without_products(
    options: dict[str, Any], loss: Any, in_parts: bool, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with working sets that grow, kernel matrices in blocks, and two problems at a time."""
    monkeypatch.setattr(svm, "MANY_CHANNELS", 0)
    if in_parts:
        monkeypatch.setattr(pixel_samples, "COLUMNS", 7)
        monkeypatch.setattr(pixel_samples, "block_entries", lambda tensor: 200)
        monkeypatch.setattr(solver, "FIRST_WORKING_SET", 20)
        monkeypatch.setattr(stages, "_kernel_entries", lambda image: 2 * 80**2)
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
    monkeypatch.setattr(stages, "SINGLE_PRECISION_STEPS", 1)
    monkeypatch.setattr(working_sets, "SWEEPS", 0)
    x, y, products = pixel_problem(device, torch.float32)
    double, asked = PixelProducts.double, []
    monkeypatch.setattr(PixelProducts, "double", lambda products: asked.append(products) or double(products))
    found = SVM(kernel=kernel, tol=1e-6).fit(x, y, products=products)
    assert asked
    expected = SVM(kernel=kernel, tol=1e-6).fit(x.double(), y)
    torch.testing.assert_close(found.objective_, expected.objective_, rtol=1e-5, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    "options",
    [
        {"gradient": "implicit"},
        {"gradient": "unrolled"},
        {"approximation": Fourier(20)},
        {"approximation": Nystroem(20)},
        {"kernel": "linear"},
    ],
)
def test_products_are_made_only_where_they_are_used(options: dict[str, Any], device: str) -> None:
    x, y, _ = pixel_problem(device)
    fitted = SVM(**options).fit(x, y, products=lambda: pytest.fail("not used"))
    assert bool(fitted.decision_function(x).isfinite().any())


def test_products_of_other_samples_are_refused(device: str) -> None:
    x, y, products = pixel_problem(device)
    with pytest.raises(ValueError, match=r"products: expected torch.float64 of \(3, 79\) .* of \(3, 80\)"):
        SVM().fit(x[:, 1:], y[:, 1:], products=products)
    with pytest.raises(ValueError, match=r"products: expected torch.float32 .* got torch.float64"):
        SVM().fit(x.float(), y, products=products)


@pytest.mark.parametrize(
    ("channels", "number", "pays"),
    [(FEW_CHANNELS + 1, 80, True), (FEW_CHANNELS, 80, False), (FEW_CHANNELS + 1, 79, False)],
)
def test_products_are_made_for_many_channels_on_few_cells(channels: int, number: int, pays: bool) -> None:
    features, positions = normal(0, 1, channels, 4, 5), torch.zeros(1, number, dtype=torch.long)
    assert (pixel_samples.pixel_products([features], positions, (8, 8)) is not None) == pays
    assert pixel_samples.pixel_products([features, features], positions, (8, 8)) is None


@pytest.mark.parametrize("options", [{}, {"kernel": "linear"}])
def test_images_of_one_class_need_no_svm(options: dict[str, Any], device: str) -> None:
    """One beside an image of two classes, and a batch of nothing else."""
    features = normal(0, 2, svm.MANY_CHANNELS + 1, 4, 5).to(device, torch.float32)
    labels = torch.full((2, 32, 40), 3, device=device)
    alone = SVMExpander(SVM(**options), samples_per_class=200)(features, labels)
    assert bool((alone.masks == 3).all())
    labels[1, 16:] = 1
    beside = SVMExpander(SVM(**options), samples_per_class=200)(features, labels)
    assert bool((beside.masks[0] == 3).all()) and len(beside.masks[1].unique()) == 2


@pytest.mark.parametrize("options", [{}, {"kernel": "linear"}])
def test_an_expander_gives_the_same_masks_with_products(
    options: dict[str, Any], device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = normal(0, 2, svm.MANY_CHANNELS + 1, 5, 8).to(device, torch.float32)
    labels = (normal(1, 2, 1, 5, 5).to(device)[:, 0] > 0).long().repeat_interleave(10, 1).repeat_interleave(12, 2)
    quick = SVMExpander(SVM(**options), samples_per_class=100)(features, labels)
    monkeypatch.setattr(joint_fit, "pixel_products", lambda *_: None)
    plain = SVMExpander(SVM(**options), samples_per_class=100)(features, labels)
    assert float((quick.masks == plain.masks).double().mean()) > 0.998
    assert float((quick.scores - plain.scores).abs().max()) < 0.1
