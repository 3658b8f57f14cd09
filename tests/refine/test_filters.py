"""Gaussian filters on the permutohedral lattice, and by position, against all pairs of pixels."""

import itertools
import math

import pytest
import torch
from conftest import normal
from torch import Tensor

from torch_svm_seg.refine.filters import ExactFilter, LatticeFilter, PositionFilter
from torch_svm_seg.refine.lattice import Lattice, _elevate, _enclosing_simplex


def one_image(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Arguments of a filter for pixels of a single image."""
    return features, torch.zeros_like(features[0], dtype=torch.long), torch.ones_like(features[0])


def simplex_vertices(features: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates of the vertices (D + 1 remainders, D + 1 coordinates, N), and barycentric coordinates."""
    anchor, rank, weights = _enclosing_simplex(_elevate(features))
    last = len(anchor) - 1
    return torch.stack([(last + 1) * (anchor - (rank > last - r).to(anchor)) + r for r in range(last + 1)]), weights


# The lattice


@pytest.mark.parametrize("dimensions", range(1, 7))
def test_points_are_the_mean_of_their_simplex(dimensions: int, device: str) -> None:
    """In barycentric coordinates; the vertices lie in the plane and are 'remainder' modulo D + 1."""
    features = 5 * normal(dimensions, dimensions, 500).to(device)
    vertices, weights = simplex_vertices(features)
    assert float(weights.min()) > -1e-12
    torch.testing.assert_close(weights.sum(0), torch.ones_like(weights[0]))
    torch.testing.assert_close((weights[:, None] * vertices).sum(0), _elevate(features))
    assert bool((vertices.sum(1) == 0).all())
    remainders = torch.arange(dimensions + 1, device=device)[:, None, None]
    assert bool((vertices.remainder(dimensions + 1) == remainders).all())


@pytest.mark.parametrize("dimensions", [1, 2, 5])
def test_elevation_keeps_distances_up_to_scale(dimensions: int) -> None:
    features = normal(1, dimensions, 30)
    expected = math.sqrt(2 / 3) * (dimensions + 1) * torch.pdist(features.mT)
    torch.testing.assert_close(torch.pdist(_elevate(features).mT), expected)


@pytest.mark.parametrize(("dimensions", "spread"), [(1, 3.0), (2, 4.0), (5, 1.0), (5, 300.0)])
def test_vertices_and_neighbours_are_those_of_a_dictionary(dimensions: int, spread: float) -> None:
    """Of coordinates; the larger spread needs keys of 64 bits."""
    features = spread * normal(3, dimensions, 120)
    image = torch.arange(120) % 2
    lattice = Lattice.of(features, image)
    vertices, _ = simplex_vertices(features)
    number: dict[tuple[int, ...], int] = {}
    for pixel, remainder in itertools.product(range(120), range(dimensions + 1)):
        key = (int(image[pixel]), *vertices[remainder, :, pixel].int().tolist())
        assert number.setdefault(key, int(lattice.slice_vertices[pixel, remainder])) == int(
            lattice.slice_vertices[pixel, remainder]
        )
    assert sorted(number.values()) == list(range(len(lattice.splat_starts)))
    for direction, (neighbours, weights) in enumerate(lattice.blurs):
        for key, vertex in number.items():
            step = [-1] * (dimensions + 1)
            step[direction] = dimensions
            around = [
                number.get((key[0], *(at + sign * by for at, by in zip(key[1:], step, strict=True))))
                for sign in (-1, 1)
            ]
            found = [
                int(index) if weight else None
                for index, weight in zip(neighbours[vertex, 1:], weights[vertex, 1:].tolist(), strict=True)
            ]
            assert found == around
            assert int(neighbours[vertex, 0]) == vertex and float(weights[vertex, 0]) == 1
            assert set(weights[vertex, 1:].tolist()) <= {0.0, 0.5}


def test_splatting_is_the_transpose_of_slicing(device: str) -> None:
    features = normal(4, 5, 200).to(device)
    lattice = Lattice.of(features, torch.zeros(200, dtype=torch.long, device=device))
    vertices = len(lattice.splat_starts)
    slicing = torch.zeros(200, vertices, dtype=torch.float64, device=device)
    slicing.scatter_add_(1, lattice.slice_vertices.long(), lattice.slice_weights)
    splatting = torch.zeros(vertices, 200, dtype=torch.float64, device=device)
    ends = torch.cat([lattice.splat_starts[1:], lattice.splat_starts.new_tensor([6 * 200])])
    vertex = torch.arange(vertices, device=device).repeat_interleave(ends - lattice.splat_starts)
    splatting.index_put_((vertex, lattice.splat_pixels.long()), lattice.splat_weights, accumulate=True)
    torch.testing.assert_close(splatting, slicing.mT)


def test_too_wide_features_are_told() -> None:
    with pytest.raises(ValueError, match="features: expected fewer than 2\\^63 lattice cells"):
        Lattice.of(1e4 * normal(5, 5, 50), torch.zeros(50, dtype=torch.long))


# Filters


def test_the_lattice_comes_close_to_all_pairs(device: str) -> None:
    """For a smooth image, as errors go in Adams et al.: a few per cent of the values' range."""
    column, row = torch.meshgrid(torch.arange(40.0), torch.arange(40.0), indexing="ij")
    colours = torch.stack([(column / 6).sin(), (row / 5).cos(), (column + row) / 40])
    features = torch.cat([torch.stack([column, row]) / 10, colours]).flatten(1).double().to(device)
    values = normal(6, 3, 5, 5).repeat_interleave(8, 1).repeat_interleave(8, 2).flatten(1).mT.contiguous().to(device)
    ours, exact = LatticeFilter(*one_image(features))(values), ExactFilter(*one_image(features))(values)
    assert float((ours - exact).abs().mean()) < 0.03 * float(exact.max() - exact.min())
    assert float((ours - exact).abs().mean()) < 0.25 * float((values - exact).abs().mean())


def test_all_pairs_are_those_of_the_formula() -> None:
    features, values = normal(7, 3, 6), normal(8, 6, 2)
    weight = torch.tensor([1, 1, 0, 1, 1, 1.0]).double()
    image = torch.tensor([0, 0, 0, 1, 1, 1])
    kernel = torch.zeros(6, 6, dtype=torch.float64)
    for i, j in itertools.product(range(6), range(6)):
        if image[i] == image[j]:
            kernel[i, j] = math.exp(-float((features[:, i] - features[:, j]).square().sum()) / 2)
    scale = weight / (kernel @ weight).sqrt()
    expected = torch.stack([scale[i] * sum(kernel[i, j] * scale[j] * values[j] for j in range(6)) for i in range(6)])
    torch.testing.assert_close(ExactFilter(features, image, weight)(values), expected)


@pytest.mark.parametrize("kind", [ExactFilter, LatticeFilter])
def test_images_and_pixels_without_weight_are_apart(kind: type, device: str) -> None:
    """A filter of two images, some of whose pixels have no weight, is that of the other pixels of each."""
    features, values = normal(9, 5, 300).to(device), normal(10, 300, 4).to(device)
    image = (torch.arange(300, device=device) % 3 == 0).long()
    weight = (torch.arange(300, device=device) % 5 > 0).double()
    filtered = kind(features, image, weight)(values)
    for number in (0, 1):
        chosen = (image == number) & (weight > 0)
        alone = kind(*one_image(features[:, chosen]))(values[chosen])
        torch.testing.assert_close(filtered[chosen], alone)
    assert bool((filtered[weight == 0] == 0).all())


@pytest.mark.parametrize("kind", [ExactFilter, LatticeFilter])
def test_constants_far_from_others_are_kept(kind: type) -> None:
    """The rows of a filter of equal pixels, which have equal sums, sum to 1; so do those of single pixels."""
    features = torch.tensor([[0.0] * 5 + [1e3]]).double()
    values = normal(11, 1, 2).expand(6, -1)
    torch.testing.assert_close(kind(*one_image(features))(values.contiguous()), values)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0, 20.0])
@pytest.mark.parametrize("size", [(1, 1), (9, 70), (41, 33)])
def test_positions_are_filtered_as_by_all_pairs(sigma: float, size: tuple[int, int], device: str) -> None:
    weight = (torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(0)) > 0.2).double().to(device)
    values = normal(12, 2, 3, *size).to(device)
    image, row, column = torch.ones(2, *size, device=device).nonzero(as_tuple=True)
    exact = ExactFilter(torch.stack([column, row]).double() / sigma, image, weight.flatten())
    expected = exact(values.permute(0, 2, 3, 1).flatten(0, 2)).view(2, *size, 3).permute(0, 3, 1, 2)
    torch.testing.assert_close(PositionFilter(sigma, weight)(values), expected, rtol=0, atol=1e-3)


def test_the_filter_of_positions_is_symmetric() -> None:
    pixels = torch.eye(70, dtype=torch.float64).view(70, 1, 1, 70)
    matrix = PositionFilter(3.0, torch.ones(70, 1, 1, 70, dtype=torch.float64))(pixels).flatten(1)
    assert torch.equal(matrix > 0, matrix.mT > 0) and not (matrix > 0).all()
    torch.testing.assert_close(matrix, matrix.mT, rtol=1e-12, atol=0)


def test_the_gradient_of_the_lattice_is_its_transpose() -> None:
    """Where neighbours are missing, the filter is not symmetric."""
    features, values = 2 * normal(13, 5, 20), normal(14, 20, 2).requires_grad_()
    lattice = LatticeFilter(*one_image(features))
    matrix = lattice(torch.eye(20, dtype=torch.float64))
    assert float((matrix - matrix.mT).abs().max()) > 1e-6
    assert torch.autograd.gradcheck(lattice, values)
    assert torch.autograd.gradgradcheck(lattice, values)
