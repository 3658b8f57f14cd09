"""IRN: paths, losses, random walk and labels against direct computations; boundaries and displacements are learned."""

import math
from collections.abc import Callable

import pytest
import torch
from conftest import small_backbone
from torch import Tensor, nn

from torch_svm_seg.irn import IRNet, IRNRefinement
from torch_svm_seg.irn.labels import label_by_activation, sure_labels
from torch_svm_seg.irn.losses import Pair, pair_kinds, pair_losses
from torch_svm_seg.irn.paths import Paths, path_maxima
from torch_svm_seg.irn.refinement import refine_activation
from torch_svm_seg.irn.training import centre_displacements
from torch_svm_seg.irn.walk import RandomWalk, repeated
from torch_svm_seg.refine import DenseCRF
from torch_svm_seg.trainable import Crops

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"))]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pairs_of(shape: tuple[int, int], paths: Paths) -> list[tuple[int, int, tuple[int, int], tuple[int, int]]]:
    """All pairs of cells of a grid as (path, which cell it starts from, the cell, the other cell)."""
    height, width = shape
    found = []
    for path, (down, right) in enumerate(paths.offsets.tolist()):
        for row in range(height - down):
            for column in range(max(0, -right), min(width, width - right)):
                end = (row + down, column + right)
                found.append((path, row * width + column, (row, column), end))
    return found


def direct_affinity(boundary: Tensor, start: tuple[int, int], end: tuple[int, int]) -> float:
    """1 - the largest boundary (h, w) on cells whose distance from the line, inside the box, is below 1."""
    (top, left), (bottom, right) = start, end
    length = math.hypot(bottom - top, right - left)
    on_path = [
        boundary[row, column]
        for row in range(top, bottom + 1)
        for column in range(min(left, right), max(left, right) + 1)
        if abs((row - top) * (right - left) - (column - left) * (bottom - top)) / length < 1 - 1e-9
    ]
    return 1 - float(max(on_path))


def test_paths_of_a_hand_computed_neighbourhood() -> None:
    paths = Paths(3)
    below = [[row, column] for row in (1, 2) for column in range(-2, 3)]  # all are nearer than 3
    assert paths.offsets.tolist() == [[0, 1], [0, 2], *below]
    assert set(paths.cells[1]) == {(0, 0), (0, 1), (0, 2)}
    assert set(paths.cells[3]) == {(0, 0), (0, -1), (1, 0), (1, -1)}
    assert paths.cells[2][0] == (0, 0) and paths.cells[2][-1] == (1, -2)
    assert len(Paths(5).offsets) == 34 and len(Paths(10).offsets) == 152  # half of the lattice points in a disc


@pytest.mark.parametrize("shape", [(7, 9), (3, 4), (1, 6), (1, 1)])
def test_path_maxima_are_those_of_every_pair(shape: tuple[int, int]) -> None:
    paths, boundary = Paths(5), random(2, *shape)
    expected = torch.ones(2, len(paths.offsets), *shape, dtype=torch.float64)  # 1 where a path leaves the grid
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


@pytest.mark.parametrize("device", DEVICES)
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


def direct_losses(boundary: Tensor, displacement: Tensor, labels: Tensor, paths: Paths) -> tuple[float, float]:
    """The losses by a loop over pairs, in the words of the paper."""
    terms: dict[str, list[float]] = {name: [] for name in ("background", "object", "different", "towards", "still")}
    for image in range(len(labels)):
        for _, _, start, end in pairs_of(tuple(labels.shape[1:]), paths):
            first, second = int(labels[image][start]), int(labels[image][end])
            if 255 in (first, second):
                continue
            affinity = direct_affinity(boundary[image], start, end)
            found = displacement[image][:, start[0], start[1]] - displacement[image][:, end[0], end[1]]
            if first != second:
                terms["different"].append(-math.log(1 - affinity + 1e-5))
            else:
                terms["object" if first else "background"].append(-math.log(affinity + 1e-5))
                expected = torch.tensor(end) - torch.tensor(start) if first else torch.zeros(2)
                terms["towards" if first else "still"].append(float((found - expected).abs().mean()))
    mean = {name: sum(values) / len(values) if values else 0.0 for name, values in terms.items()}
    positive = (mean["background"] + mean["object"]) / 2
    return (positive + mean["different"]) / 2, (mean["towards"] + mean["still"]) / 2


@pytest.mark.parametrize("classes", [(0, 1, 2, 255), (0, 255), (3,)])
def test_losses_are_those_of_every_pair(classes: tuple[int, ...]) -> None:
    choice = torch.randint(len(classes), (2, 6, 7), generator=torch.Generator().manual_seed(0))
    labels = torch.tensor(classes)[choice]
    boundary, displacement = random(2, 6, 7), random(2, 2, 6, 7, seed=1)
    losses = pair_losses(boundary, displacement, labels, Paths(4))
    assert [float(loss) for loss in losses] == pytest.approx(
        direct_losses(boundary, displacement, labels, Paths(4)), rel=1e-4
    )


def test_nothing_sure_costs_nothing() -> None:
    boundary = random(1, 4, 4).requires_grad_()
    losses = pair_losses(boundary, random(1, 2, 4, 4), torch.full((1, 4, 4), 255), Paths(3))
    assert losses.affinity == 0 and losses.displacement == 0
    losses.affinity.backward()
    assert (boundary.grad == 0).all()


def test_kinds_of_pairs() -> None:
    kinds = pair_kinds(torch.tensor([[[0, 0, 5, 5, 255, 7]]]), Paths(2))[0, 0, 0]  # with the right neighbour
    assert kinds.tolist() == [Pair.BACKGROUND, Pair.DIFFERENT, Pair.OBJECT, Pair.UNSURE, Pair.UNSURE, Pair.UNSURE]


@pytest.mark.parametrize("size", [(64, 96), (61, 83), (5, 3)])
def test_network_covers_any_image(size: tuple[int, int]) -> None:
    network = IRNet(small_backbone()).eval()
    images = 255 * random(2, 3, *size).float()
    boundary, displacement = network(images)
    grid = (math.ceil(size[0] / 4), math.ceil(size[1] / 4))
    assert boundary.shape == (2, *grid) and displacement.shape == (2, 2, *grid)
    assert ((boundary > 0) & (boundary < 1)).all()
    assert network.boundary(images).shape == (2, *grid)
    alone = network.boundary(images[:1])
    torch.testing.assert_close(network.boundary(images)[:1], alone)


def test_boundary_of_the_mirror_image_is_mirrored() -> None:
    network = IRNet(small_backbone()).eval()
    images = 255 * random(1, 3, 64, 96).float()
    torch.testing.assert_close(network.boundary(images.flip(-1)), network.boundary(images).flip(-1))


def test_only_the_branches_train() -> None:
    network = IRNet(small_backbone()).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    groups = network.parameter_groups()
    optimizer = torch.optim.SGD([{"params": parameters, "lr": rate} for parameters, rate in groups])
    labels = torch.tensor([[0, 1], [1, 0]]).repeat_interleave(8, 0).repeat_interleave(8, 1)[None]
    sum(network.losses(255 * random(1, 3, 64, 64).float(), labels).values()).backward()
    optimizer.step()
    still = {name for name, value in network.state_dict().items() if torch.equal(value, before[name])}
    assert still == {name for name in before if name.startswith("backbone.")} | {"displacement_mean"}
    assert not any(module.training for module in network.backbone.modules())
    assert [rate for _, rate in groups] == [1, 10]


def test_weights_follow_the_seed_and_leave_the_generator_alone() -> None:
    state = torch.random.get_rng_state()
    first, again, other = (IRNet(small_backbone(), seed=seed).boundary_head.weight for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first, again) and not torch.equal(first, other)


class Discs(Crops):
    """A grey disc at a random place of a dark square of 64 pixels, and its label."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
        row, column, radius = self.disc(place)
        pixels = torch.arange(64) - 31.5
        inside = (pixels[:, None] - row) ** 2 + (pixels - column) ** 2 < radius**2
        image = (40 + 160 * inside.float()).expand(3, 64, 64)
        return image, inside[2::4, 2::4].long()

    def disc(self, place: int) -> tuple[float, float, float]:
        row, column, radius = torch.rand(3, generator=self.generator(place)).tolist()
        return 12 * row - 6, 12 * column - 6, 16 + 4 * radius


def test_displacements_of_a_disc_point_to_its_centre_and_boundaries_lie_around_it() -> None:
    network, discs = IRNet(small_backbone()).train(), Discs(seed=0)
    groups = [{"params": parameters, "lr": 0.1 * rate} for parameters, rate in network.parameter_groups()]
    optimizer = torch.optim.SGD(groups)
    for step in range(60):
        batch = [discs[place % 16] for place in range(4 * step, 4 * step + 4)]
        images, labels = (torch.stack(parts) for parts in zip(*batch, strict=True))
        optimizer.zero_grad()
        sum(network.losses(images, labels).values()).backward()
        optimizer.step()
    discs.epoch = 1  # other discs
    centre_displacements(network, discs)
    image, labels = discs[0]
    with torch.no_grad():
        boundary, displacement = (part[0] for part in network.eval()(image[None]))
    row, column, _ = discs.disc(0)
    cells = 4 * torch.arange(16) + 1.5 - 31.5
    way = torch.stack([(row - cells)[:, None].expand(16, 16), (column - cells).expand(16, 16)]) / 4
    far = (labels == 1) & (way.norm(dim=0) > 2)
    cosine = nn.functional.cosine_similarity(displacement[:, far], way[:, far], dim=0)
    assert cosine.mean() > 0.9
    kinds, strongest = pair_kinds(labels[None], network.paths), path_maxima(boundary[None], network.paths)
    assert strongest[kinds == Pair.DIFFERENT].mean() > 0.5
    assert max(strongest[kinds == kind].mean() for kind in (Pair.OBJECT, Pair.BACKGROUND)) < 0.5


def test_mean_displacement_is_zero_after_centring() -> None:
    network, discs = IRNet(small_backbone()), Discs(seed=0)
    centre_displacements(network, discs)
    with torch.no_grad():
        means = [network(discs[place][0][None])[1].mean((0, 2, 3)) for place in range(len(discs))]
    torch.testing.assert_close(torch.stack(means).mean(0), torch.zeros(2), atol=1e-5, rtol=0)


def test_labels_are_sure_where_both_backgrounds_agree() -> None:
    background = torch.tensor([[0.6, 0.9, 0.6, 0.9]])
    cat, dog = torch.tensor([[0.8, 0.1, 0.4, 0.1]]), torch.tensor([[0.1, 0.4, 0.2, 0.6]])
    activation = torch.stack([background, cat, dog])[None]
    found = sure_labels(torch.zeros(1, 3, 1, 4), activation, 0.5, DenseCRF(steps=0))
    # Above the background; below half of it; between; and dog, above half of it.
    assert found.tolist() == [[[1, 0, 255, 255]]]
    assert sure_labels(torch.zeros(1, 3, 1, 4), activation, 1, DenseCRF(steps=0)).tolist() == [[[1, 0, 0, 0]]]
    with pytest.raises(ValueError, match="factor: expected 0 to 1, got 2"):
        sure_labels(torch.zeros(1, 3, 1, 4), activation, 2)


def test_labels_follow_colours_and_carry_class_ids() -> None:
    image = torch.zeros(3, 32, 48, dtype=torch.uint8)
    image[:, :, 24:] = 250
    activation = torch.full((21, 32, 48), -torch.inf)
    activation[0], activation[15] = 0.4, 0.05
    activation[15, :, 28:] = 0.9  # a little less than the bright half
    labels = label_by_activation(image, activation)
    assert labels[:, :22].unique().tolist() == [0] and labels[:, 26:].unique().tolist() == [15]


class Wall(IRNet):
    """Says that there is a boundary in one column of cells."""

    def __init__(self, column: int) -> None:
        super().__init__(small_backbone())
        self.column = column

    def boundary(self, images: Tensor) -> Tensor:
        height, width = (math.ceil(side / 4) for side in images.shape[-2:])
        boundary = torch.full((len(images), height, width), 0.01)
        boundary[..., self.column] = 1
        return boundary


def wall_example() -> tuple[IRNRefinement, Tensor, Tensor]:
    image = torch.zeros(1, 3, 30, 41)
    probabilities = torch.full((1, 2, 30, 41), 0.2)
    probabilities[:, 1, 10:14, 26:30] = 0.9
    probabilities[:, 0, :, :16] = 0.9
    return IRNRefinement(Wall(5)), image, probabilities


def test_refinement_fills_what_a_boundary_encloses() -> None:
    refinement, image, probabilities = wall_example()
    result = refinement(image, probabilities)
    assert result.shape == probabilities.shape
    torch.testing.assert_close(result.sum(1), torch.ones(1, 30, 41))
    assert (result.argmax(1)[..., :19] == 0).all() and (result.argmax(1)[..., 25:] == 1).all()


def test_a_threshold_takes_the_place_of_the_background() -> None:
    refinement, image, probabilities = wall_example()
    walked = refinement(image, probabilities)
    odds = walked[:, 1] / walked[:, 0]
    refinement.threshold = 0.25
    result = refinement(image, probabilities)
    torch.testing.assert_close(result.sum(1), torch.ones(1, 30, 41))
    # Where the class is strongest, the background has a quarter of it; elsewhere, the class is as much weaker.
    assert float((result[:, 1] / result[:, 0]).max()) == pytest.approx(4, rel=1e-4)
    torch.testing.assert_close(refinement(image, probabilities * torch.tensor([3.0, 1.0])[:, None, None]), result)
    assert (odds[..., 25:] > 1).all() and (result.argmax(1)[..., 25:] == 1).all()


def test_refinement_of_a_batch_is_that_of_each_image() -> None:
    refinement = IRNRefinement(IRNet(small_backbone()).eval())
    images, probabilities = 255 * random(3, 3, 37, 50).float(), random(3, 4, 37, 50, seed=1).float()
    alone = torch.cat([refinement(images[n : n + 1], probabilities[n : n + 1]) for n in range(3)])
    torch.testing.assert_close(refinement(images, probabilities), alone, atol=1e-5, rtol=1e-4)


def test_gradient_of_refinement() -> None:
    _, image, probabilities = wall_example()
    refinement = IRNRefinement(Wall(1), steps=3)
    part = probabilities[..., :5, :9].double() + 0.05
    assert torch.autograd.gradcheck(
        lambda values: refinement(image[..., :5, :9].double(), values), part.requires_grad_(), atol=1e-4
    )


def test_activation_is_refined_to_maps_of_cells() -> None:
    refinement, image, probabilities = wall_example()
    activation = torch.full((9, 30, 41), -torch.inf)
    activation[[0, 7]] = probabilities[0]
    maps = refine_activation(refinement, image[0], activation)
    assert maps.classes == (7,) and maps.size == (30, 41) and maps.background is not None
    assert maps.maps.shape == (1, 8, 11) and maps.background.shape == (8, 11)
    torch.testing.assert_close(maps.maps[0] + maps.background, torch.ones(8, 11))
    assert (maps.maps[0, :, 7:] > 0.5).all() and (maps.maps[0, :, :4] < 0.5).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Paths(1), "radius: expected at least 2, got 1"),
        (lambda: IRNRefinement(Wall(1), steps=-1), "steps: expected a number >= 0, got -1"),
        (lambda: IRNRefinement(Wall(1), power=0), "power: expected a number > 0, got 0"),
        (lambda: IRNRefinement(Wall(1), exponent=-2), "exponent: expected a number > 0, got -2"),
        (lambda: IRNRefinement(Wall(1), threshold=1), "threshold: expected a number > 0 and < 1, got 1"),
        (lambda: IRNRefinement(Wall(1))(torch.zeros(1, 3, 4, 5), torch.ones(1, 2, 5, 4)), "image: expected"),
        (lambda: IRNRefinement(Wall(1))(torch.zeros(1, 3, 4, 4), -torch.ones(1, 2, 4, 4)), "probabilities: expected"),
    ],
)
def test_bad_arguments_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
