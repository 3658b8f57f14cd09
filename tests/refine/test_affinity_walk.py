"""The walk between similar cells, against matrices made by hand and an image at a time."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from torch_svm_seg.backbones.builder import load_backbone
from torch_svm_seg.cam.activation import ActivationMaps, spread_maps
from torch_svm_seg.refine import AffinityWalk, FeatureWalk, affinity_walk
from torch_svm_seg.refine.affinity_walk import boxes_above


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uniform(seed: int, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(maps: Tensor, features: list[Tensor], power: float, steps: int, nearest: int | None, threshold: float):
    """One image (K, h, w), (C, h, w), written with NumPy's loops over cells."""
    similarity = np.zeros(2 * [maps[0].numel()])
    for part in features:
        rows = part.flatten(1).T.cpu().numpy()
        rows = rows - rows.mean(0)
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        similarity += rows @ rows.T / len(features)
    affinity = np.zeros_like(similarity)
    for cell, row in enumerate(similarity):
        reached = np.argsort(-row)[:nearest]
        reached = reached[row[reached] > threshold]
        affinity[cell, reached] = row[reached] ** power
    degree = affinity.sum(1)
    affinity /= np.sqrt(degree[:, None] * degree)
    values = maps.flatten(1).T.cpu().numpy()
    for _ in range(steps):
        values = affinity @ values
    return torch.from_numpy(values.T.copy()).view_as(maps)


def test_three_cells_by_hand(device: str) -> None:
    features = torch.tensor([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]], dtype=torch.float64, device=device)
    maps = torch.tensor([1.0, 0.0, 0.5], dtype=torch.float64, device=device).view(1, 1, 1, 3)
    found = AffinityWalk(power=2, centre=False)(maps, features.T.reshape(1, 2, 1, 3)).flatten()
    # Similarities: 1 to itself, 0.6 between the first two, and negative ones, which count as none.
    expected = [1 / 1.36, 0.36 / 1.36, 0.5]  # the first two have the same degree
    torch.testing.assert_close(found, found.new_tensor(expected))


@pytest.mark.parametrize("power", [0.5, 1.0, 4.0, 6.5])
@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize(("nearest", "threshold"), [(None, 0.0), (5, 0.0), (None, 0.3), (9, 0.1), (1000, 0.0)])
def test_it_equals_the_matrix_made_by_hand(power, steps, nearest, threshold, device: str) -> None:
    maps, features = uniform(0, 2, 3, 5, 7).to(device), normal(1, 2, 8, 5, 7).to(device)
    walk = AffinityWalk(power, steps, nearest=nearest, threshold=threshold)
    expected = torch.stack([by_hand(m, [f], power, steps, nearest, threshold) for m, f in zip(maps, features)])  # noqa: B905
    torch.testing.assert_close(walk(maps, features).cpu(), expected)


def test_similarities_of_several_blocks_are_averaged(device: str) -> None:
    maps, blocks = (
        uniform(0, 1, 2, 4, 5).to(device),
        [normal(1, 1, 8, 4, 5).to(device), normal(2, 1, 3, 4, 5).to(device)],
    )
    found = AffinityWalk(power=3, steps=2)(maps, blocks)
    expected = by_hand(maps[0], [block[0] for block in blocks], 3, 2, None, 0)
    torch.testing.assert_close(found[0].cpu(), expected)
    same = AffinityWalk()(maps, [blocks[0], blocks[0]])
    torch.testing.assert_close(same, AffinityWalk()(maps, blocks[0]))


def test_rows_at_a_time_change_nothing(monkeypatch, device: str) -> None:
    maps, features = uniform(0, 2, 3, 6, 7).to(device), normal(1, 2, 8, 6, 7).to(device)
    walk = AffinityWalk(steps=2, nearest=11)
    whole = walk(maps, features)
    monkeypatch.setattr(affinity_walk, "_ENTRIES", 5 * 2 * 42)
    torch.testing.assert_close(walk(maps, features), whole)
    monkeypatch.setattr(affinity_walk, "_ENTRIES", 1)
    torch.testing.assert_close(walk(maps, features), whole)


def test_a_batch_gives_what_its_images_give_alone(device: str) -> None:
    maps, features = uniform(0, 3, 2, 5, 6).to(device), normal(1, 3, 8, 5, 6).to(device)
    walk = AffinityWalk(steps=2, nearest=7)
    alone = [walk(maps[i : i + 1], features[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(walk(maps, features), torch.cat(alone))


def test_padding_changes_nothing(device: str) -> None:
    maps, features = uniform(0, 2, 2, 5, 6).to(device), normal(1, 2, 8, 5, 6).to(device)
    valid = F.pad(torch.ones(2, 5, 6, dtype=torch.bool, device=device), (0, 3, 0, 2))
    walk = AffinityWalk(steps=2, nearest=7)
    padded = walk(F.pad(maps, (0, 3, 0, 2), value=9.0), F.pad(features, (0, 3, 0, 2), value=5.0), valid=valid)
    torch.testing.assert_close(padded[..., :5, :6], walk(maps, features))
    assert (padded[..., 5:, :] == 9).all()
    assert (padded[..., 6:] == 9).all()


def test_a_map_starts_from_its_regions_alone(device: str) -> None:
    maps, features = uniform(0, 1, 2, 4, 5).to(device), normal(1, 1, 8, 4, 5).to(device)
    regions = uniform(2, 1, 2, 4, 5).to(device) > 0.5
    walk = AffinityWalk()
    torch.testing.assert_close(walk(maps, features, regions), walk(maps * regions, features))
    assert walk(maps, features, torch.zeros_like(regions)).abs().max() == 0


def test_features_of_another_grid_are_interpolated(device: str) -> None:
    maps, features = uniform(0, 1, 2, 8, 10).to(device), normal(1, 1, 8, 4, 5).to(device)
    resized = F.interpolate(features, (8, 10), mode="bilinear")
    torch.testing.assert_close(AffinityWalk()(maps, features), AffinityWalk()(maps, resized))


def test_it_is_linear_and_keeps_what_degrees_keep(device: str) -> None:
    """The root of the degrees is the eigenvector of the largest eigenvalue, 1, of the symmetric walk."""
    maps, features = uniform(0, 1, 4, 6, 7).to(device), normal(1, 1, 8, 6, 7).to(device)
    walk = AffinityWalk(power=3, steps=3)
    torch.testing.assert_close(
        walk(2 * maps + maps.flip(1), features), 2 * walk(maps, features) + walk(maps.flip(1), features)
    )
    rows = F.normalize((features - features.mean((2, 3), keepdim=True)).flatten(2), dim=1)[0]
    degree = (rows.T @ rows).clamp_min(0).pow(3).sum(1).view(1, 1, 6, 7)
    torch.testing.assert_close(walk(degree.sqrt(), features), degree.sqrt())


def test_the_walk_is_symmetric(device: str) -> None:
    features = normal(1, 1, 8, 3, 4).to(device)
    cells = torch.eye(12, dtype=torch.float64, device=device).view(1, 12, 3, 4)
    matrix = AffinityWalk(power=2, steps=2)(cells, features).view(12, 12)
    torch.testing.assert_close(matrix, matrix.T)


def test_what_all_cells_share_counts_nothing(device: str) -> None:
    maps, features = uniform(0, 1, 2, 5, 6).to(device), normal(1, 1, 8, 5, 6).to(device)
    torch.testing.assert_close(AffinityWalk()(maps, features + 100), AffinityWalk()(maps, features))
    torch.testing.assert_close(AffinityWalk()(maps, 7 * features), AffinityWalk()(maps, features))


@pytest.mark.parametrize("features", [torch.zeros(1, 4, 5, 6), torch.full((1, 4, 5, 6), 1 / 3)])
def test_images_of_one_colour_keep_their_maps(features: Tensor) -> None:
    maps = uniform(0, 1, 2, 5, 6).float()
    torch.testing.assert_close(AffinityWalk(steps=2)(maps, features), maps)


@pytest.mark.parametrize("size", [(1, 1), (1, 2)])
def test_the_smallest_grids(size: tuple[int, int]) -> None:
    found = AffinityWalk(steps=2)(uniform(0, 1, 2, *size), normal(1, 1, 8, *size))
    assert found.shape == (1, 2, *size)
    assert found.isfinite().all()


def test_half_precision_is_computed_in_single() -> None:
    maps, features = uniform(0, 1, 2, 9, 9), normal(1, 1, 8, 9, 9)
    found = AffinityWalk()(maps.half(), features.half())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), AffinityWalk()(maps, features), atol=2e-3, rtol=0)
    with torch.autocast("cpu", torch.bfloat16):
        assert AffinityWalk()(maps.float(), features.float()).dtype == torch.float32


@pytest.mark.parametrize("nearest", [None, 4])
@pytest.mark.parametrize("power", [1.0, 2.5])
def test_gradients(power: float, nearest: int | None, device: str) -> None:
    maps = uniform(0, 2, 2, 2, 4).to(device).requires_grad_()
    features = normal(1, 2, 5, 2, 4).to(device).requires_grad_()
    walk = AffinityWalk(power, steps=2, nearest=nearest)
    assert torch.autograd.gradcheck(walk, (maps, features))


def test_gradients_are_finite_where_features_are_equal() -> None:
    maps, features = uniform(0, 1, 2, 3, 3).requires_grad_(), torch.zeros(1, 4, 3, 3).double().requires_grad_()
    AffinityWalk(power=0.5)(maps, features).square().sum().backward()
    assert maps.grad.isfinite().all()
    assert features.grad.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"power": 0}, "power: expected a number > 0, got 0"),
        ({"power": float("nan")}, "power: expected a number > 0, got nan"),
        ({"steps": -1}, "steps: expected an integer >= 0, got -1"),
        ({"nearest": 0}, "nearest: expected an integer >= 1, got 0"),
        ({"threshold": 1}, "threshold: expected 0 to less than 1, got 1"),
        ({"threshold": -0.1}, "threshold: expected 0 to less than 1, got -0.1"),
    ],
)
def test_parameters_out_of_range_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AffinityWalk(**options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.rand(2, 3, 4), torch.rand(1, 2, 3, 4)), r"maps: expected floating point \(B, K, h, w\)"),
        ((torch.ones(1, 2, 3, 4).int(), torch.rand(1, 2, 3, 4)), "maps: expected floating point"),
        ((torch.rand(1, 2, 3, 4), torch.rand(2, 2, 3, 4)), r"features: expected .* B = 1, got .*\(2, 2, 3, 4\)"),
        ((torch.rand(1, 2, 3, 4), torch.rand(1, 12, 8)), "features: expected floating point"),
        ((torch.rand(1, 2, 3, 4), []), "features: expected at least one map, got none"),
        ((torch.rand(1, 2, 3, 4), torch.full((1, 2, 3, 4), torch.nan)), "features: expected finite values"),
        ((torch.rand(1, 2, 3, 4), torch.rand(1, 2, 3, 4), torch.ones(1, 1, 3, 4).bool()), "regions: expected bool"),
        ((torch.rand(1, 2, 3, 4), torch.rand(1, 2, 3, 4), torch.ones(1, 2, 3, 4)), "regions: expected bool"),
        ((torch.rand(1, 2, 3, 4), torch.rand(1, 2, 3, 4), None, torch.ones(1, 3, 4)), "valid: expected bool"),
        ((torch.rand(1, 2, 3, 4), torch.rand(1, 2, 3, 4), None, torch.ones(1, 1, 3, 4).bool()), "valid: expected bool"),
    ],
)
def test_input_that_does_not_fit_is_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AffinityWalk()(*arguments)


# Boxes


@pytest.mark.parametrize("threshold", [0.4, 0.7, 0.95, 2.0])
def test_boxes_are_those_of_scipy(threshold: float, device: str) -> None:
    maps = F.interpolate(uniform(3, 2, 3, 6, 7), (17, 23), mode="bilinear").to(device)
    expected = np.zeros(maps.shape, bool)
    for image, channel in np.ndindex(2, 3):
        labels, _ = ndimage.label(maps[image, channel].cpu().numpy() >= threshold, np.ones((3, 3)))
        for rows, columns in ndimage.find_objects(labels):
            expected[image, channel, rows, columns] = True
    assert np.array_equal(boxes_above(maps, threshold).cpu().numpy(), expected)


# On a backbone's features


def test_probabilities_walk_on_the_deepest_grid() -> None:
    torch.manual_seed(0)
    backbone = load_backbone("resnet18", "random")
    images, probabilities = 255 * uniform(0, 2, 3, 64, 96).float(), uniform(1, 2, 3, 64, 96).float()
    refinement = FeatureWalk(backbone, ("F5", "F3"), AffinityWalk(2, 2))
    assert refinement.stages == ("F3", "F5")
    found = refinement(images, probabilities)
    torch.testing.assert_close(found.sum(1), torch.ones(2, 64, 96))
    with torch.no_grad():
        features = list(backbone.stages(images, ["F3", "F5"]).values())
    cells = F.interpolate(probabilities, (4, 6), mode="bilinear", antialias=True)
    expected = F.interpolate(AffinityWalk(2, 2)(cells, features), (64, 96), mode="bilinear")
    torch.testing.assert_close(found, expected / expected.sum(1, keepdim=True))


@pytest.mark.parametrize("stages", [(), ("F6",), ("img",), ("F5", "f4")])
def test_unknown_stages_are_refused(stages: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="stages: expected some of F1 F2 F3 F4 F5, got"):
        FeatureWalk(load_backbone("resnet18", "random"), stages)


@pytest.mark.parametrize("background", [True, False])
def test_spread_maps_have_their_maximum_at_1(background: bool) -> None:
    walk = FeatureWalk(load_backbone("resnet18", "random"))
    own = torch.rand(16, 24) if background else None
    maps = ActivationMaps((3, 7), torch.stack([torch.rand(16, 24), torch.zeros(16, 24)]), (61, 93), own)
    found = spread_maps(walk, 255 * uniform(0, 3, 61, 93).float(), maps)
    assert found.classes == (3, 7)
    assert found.size == (61, 93)
    assert found.maps[0].max() == 1
    assert found.silent == (7,)
    assert (found.background is not None) == background
    assert found.background is None or found.background.max() <= own.max()


def test_a_background_that_the_walk_raises_above_1_is_cut() -> None:
    walk = FeatureWalk(load_backbone("resnet18", "random"))
    image, background = 255 * uniform(0, 3, 61, 93).float(), torch.ones(16, 24)
    assert walk.spread(image[None], background[None, None]).max() > 1
    found = spread_maps(walk, image, ActivationMaps((3,), torch.rand(1, 16, 24), (61, 93), background))
    assert found.background is not None and found.background.max() == 1
