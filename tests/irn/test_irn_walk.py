"""IRN's paths and random walk, against direct computations on all pairs of cells."""

import pytest
import torch
from irn_references import direct_affinity, pairs_of, random
from torch import Tensor

from torch_svm_seg.irn.paths import Paths, path_maxima
from torch_svm_seg.irn.walk import RandomWalk, repeated


def test_paths_of_a_hand_computed_neighbourhood() -> None:
    paths = Paths(3)
    below = [(row, column) for row in (1, 2) for column in range(-2, 3)]  # all are nearer than 3
    assert paths.ends == [(0, 1), (0, 2), *below]
    assert set(paths.cells[1]) == {(0, 0), (0, 1), (0, 2)}
    assert set(paths.cells[3]) == {(0, 0), (0, -1), (1, 0), (1, -1)}
    assert paths.cells[2][0] == (0, 0) and paths.cells[2][-1] == (1, -2)
    assert len(Paths(5).ends) == 34 and len(Paths(10).ends) == 152  # half of the lattice points in a disc


def test_a_neighbourhood_without_neighbours_is_refused() -> None:
    with pytest.raises(ValueError, match="radius: expected at least 2, got 1"):
        Paths(1)


@pytest.mark.parametrize("shape", [(7, 9), (3, 4), (1, 6), (1, 1)])
def test_path_maxima_are_those_of_every_pair(shape: tuple[int, int]) -> None:
    paths, boundary = Paths(5), random(2, *shape)
    expected = torch.ones(2, len(paths.ends), *shape, dtype=torch.float64)  # 1 where a path leaves the grid
    for path, _, start, end in pairs_of(shape, paths):
        for image in range(2):
            expected[image, path, start[0], start[1]] = 1 - direct_affinity(boundary[image], start, end)
    torch.testing.assert_close(path_maxima(boundary, paths), expected)


def test_gradient_of_path_maxima() -> None:
    boundary = random(2, 4, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda values: path_maxima(values, Paths(3)), boundary)


def dense_step(boundary: Tensor, paths: Paths, power: float) -> Tensor:
    """The matrix of a step on (h, w), normalised so that each receiving cell's weights, a column, sum to 1."""
    height, width = boundary.shape
    affinity = torch.eye(height * width, dtype=torch.float64)
    for _, number, start, end in pairs_of((height, width), paths):
        other = end[0] * width + end[1]
        affinity[number, other] = affinity[other, number] = direct_affinity(boundary, start, end) ** power
    return affinity / affinity.sum(0)


@pytest.mark.parametrize("shape", [(7, 9), (12, 3), (1, 1)])
def test_sparse_walk_is_the_dense_one(shape: tuple[int, int]) -> None:
    boundary, values = random(2, *shape) ** 3, random(2, 3, *shape, seed=1)
    walk = RandomWalk(boundary, Paths(5), power=10)
    matrices = torch.stack([dense_step(image, Paths(5), 10) for image in boundary])
    for number in (0, 1, 5, 256):
        expected = (values.flatten(2) @ torch.linalg.matrix_power(matrices, number)).view_as(values)
        torch.testing.assert_close(walk(values, number), expected, atol=1e-6, rtol=0)


def test_walk_in_single_precision(device: str) -> None:
    boundary, values = random(2, 20, 30) ** 3, random(2, 3, 20, 30, seed=1)
    expected = RandomWalk(boundary, Paths(5), 10)(values, 256)
    walk = RandomWalk(boundary.float().to(device), Paths(5), 10)
    torch.testing.assert_close(walk(values.float().to(device), 256).cpu().double(), expected, atol=1e-3, rtol=0)


def test_powers_by_chebyshev_polynomials() -> None:
    matrix = random(6, 6)
    vectors = torch.linalg.qr(matrix).Q
    matrix = vectors @ torch.diag(torch.tensor([-1, -0.99, 0, 0.5, 0.999, 1.0]).double()) @ vectors.T
    taken = []

    def step(values: Tensor) -> Tensor:
        taken.append(1)
        return values @ matrix

    values = random(4, 6, seed=1)
    for number in (0, 1, 2, 3, 255, 256, 1000):
        torch.testing.assert_close(
            repeated(step, values, number), values @ torch.linalg.matrix_power(matrix, number), atol=1e-7, rtol=0
        )
    taken.clear()
    repeated(step, values, 256)
    assert len(taken) < 100
    with pytest.raises(ValueError, match="number: expected at least 0, got -1"):
        repeated(step, values, -1)


def test_walk_stays_behind_walls_and_evens_out_inside() -> None:
    boundary = torch.zeros(1, 9, 9)
    boundary[:, :, 4] = 1
    values = torch.zeros(1, 2, 9, 9)
    values[:, 0, 3, 1] = values[:, 1, 5, 7] = 1
    left, right = RandomWalk(boundary, Paths(5), 10)(values, 2000)[0]
    assert (left[:, 4:].abs() < 1e-6).all() and (right[:, :5].abs() < 1e-6).all()
    torch.testing.assert_close(left[:, :4], left[:1, :1].expand(9, 4), atol=1e-4, rtol=1e-3)
    constant = torch.ones(1, 1, 9, 9).double()
    torch.testing.assert_close(RandomWalk(random(1, 9, 9), Paths(5), 10)(constant, 256), constant)
