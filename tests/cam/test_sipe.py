"""SIPE's parts against loops that say what they mean, and the properties that training relies on."""

import pytest
import torch
from conftest import small_backbone
from torch import Tensor

from torch_svm_seg.cam.sipe import (
    SIPE,
    consistency_loss,
    image_specific_maps,
    normalized_maps,
    prototype_seeds,
    prototypes,
)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def all_allowed(batch: int, channels: int, height: int, width: int) -> Tensor:
    return torch.ones(batch, channels, height, width)


def seeds_by_loops(maps: Tensor, features: Tensor, allowed: Tensor) -> Tensor:
    """Section 3.2 as it is written: a soft IoU for each image, place and class."""
    batch, channels, _, width = maps.shape
    seeds = torch.zeros_like(maps)
    for b in range(batch):
        vectors = features[b].flatten(1).T
        for place, vector in enumerate(vectors):
            similarity = torch.cosine_similarity(vector[None], vectors).clamp_min(0)
            scores = []
            for channel in range(channels):
                activation = maps[b, channel].flatten()
                inter = (similarity * activation).sum()
                iou = inter / (similarity.sum() + activation.sum() - inter)
                scores.append(float(iou) * (0.5 if channel == 0 else 1))
            best = max(range(channels), key=scores.__getitem__)
            row, column = divmod(place, width)
            seeds[b, best, row, column] = allowed[b, best, row, column]
    return seeds


def test_seeds_by_one_product_are_those_by_loops() -> None:
    allowed = all_allowed(3, 4, 5, 6)
    allowed[1, 2], allowed[2, 1:3] = 0, 0
    maps = normalized_maps(random(3, 3, 5, 6), allowed)
    features = random(3, 7, 5, 6, seed=1)
    seeds = prototype_seeds(maps, features, allowed)
    assert torch.equal(seeds, seeds_by_loops(maps, features, allowed))
    assert (seeds.sum(1) == 1).all() and len(seeds[0].flatten(1).any(1).nonzero()) > 1


def test_background_counts_half_in_seeds() -> None:
    features = torch.ones(1, 1, 1, 2)  # every place is like every other: likeness is the same overlap for both places
    allowed = all_allowed(1, 2, 1, 2)
    # Background: 1 / 2, halved; class: 0.8 / 2. Without the half, background would win.
    maps = torch.tensor([[[[0.5, 0.5]], [[0.4, 0.4]]]])
    assert prototype_seeds(maps, features, allowed)[0, :, 0].tolist() == [[0, 0], [1, 1]]
    maps = torch.tensor([[[[1.0, 1.0]], [[0.4, 0.4]]]])  # 2 / 2 halved against 0.8 / 2
    assert prototype_seeds(maps, features, allowed)[0, :, 0].tolist() == [[1, 1], [0, 0]]


def test_normalized_maps_by_hand() -> None:
    class_maps = torch.tensor([[[[2.0, 1.0, -1.0]], [[8.0, 8.0, 8.0]]]])
    allowed = torch.ones(1, 3, 1, 3)
    allowed[:, 2] = 0  # the second class is absent: it neither has a map nor takes from the background
    maps = normalized_maps(class_maps, allowed)
    expected = torch.tensor([[[[0, 0.5, 1]], [[1, 0.5, 0]], [[0, 0, 0]]]])
    torch.testing.assert_close(maps, expected, atol=1e-5, rtol=0)


def test_padding_has_neither_maps_nor_seeds_nor_a_say_in_the_maximum() -> None:
    class_maps, features = random(1, 2, 4, 4), random(1, 5, 4, 4, seed=1)
    class_maps[:, :, :, 3] = 100
    allowed = all_allowed(1, 3, 4, 4)
    allowed[:, :, :, 3] = 0
    maps = normalized_maps(class_maps, allowed)
    assert maps[..., 3].abs().max() == 0 and maps[:, 1:].amax((2, 3)).min() > 0.99
    assert prototype_seeds(maps, features, allowed)[..., 3].sum() == 0


def test_prototypes_and_their_similarity_maps_by_loops() -> None:
    features, seeds = random(2, 5, 3, 4), (random(2, 3, 3, 4, seed=1) > 0).float()
    seeds[1, 2] = 0
    centres = prototypes(features, seeds)
    maps = image_specific_maps(features, centres)
    for b in range(2):
        for c in range(3):
            centre = (features[b] * seeds[b, c]).mean((1, 2))
            torch.testing.assert_close(centres[b, c], centre)
            similarity = torch.cosine_similarity(features[b], centre[:, None, None], dim=0).clamp_min(0)
            torch.testing.assert_close(maps[b, c], similarity)
    assert maps[1, 2].abs().max() == 0  # no seed, no map


def test_consistency_loss_by_hand() -> None:
    maps = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])
    specific = torch.tensor([[[[0.2, 0.1]], [[0.0, 0.4]]]])
    assert float(consistency_loss(maps, specific)) == pytest.approx(0.5 / 4, abs=1e-4)
    assert float(consistency_loss(maps, maps * 0.3)) == pytest.approx(0, abs=1e-4)


def losses(network: SIPE, labels: Tensor) -> dict[str, Tensor]:
    images = torch.rand(len(labels), 3, 64, 80, generator=torch.Generator().manual_seed(3)) * 255
    valid = torch.ones(len(labels), 64, 80, dtype=torch.bool)
    valid[:, :, 48:] = False
    return network.losses(images, valid, labels)


def test_side_layers_learn_from_the_consistency_loss_alone() -> None:
    network = SIPE(small_backbone(), 3).train()
    terms = losses(network, torch.tensor([[True, False, True], [False, True, False]]))
    assert tuple(terms) == network.loss_names
    sides = [side.weight for side in network.sides]
    gradients = torch.autograd.grad(terms["classification"], sides, allow_unused=True, retain_graph=True)
    assert gradients == (None,) * 4
    for gradient in torch.autograd.grad(terms["consistency"], sides, retain_graph=True):
        assert gradient.abs().max() > 0
    deep = network.backbone.get_submodule("network.4.0").weight
    (gradient,) = torch.autograd.grad(terms["consistency"], deep)
    assert gradient.abs().max() > 0


def test_losses_do_not_depend_on_the_other_images_of_a_batch() -> None:
    network = SIPE(small_backbone(), 3)
    labels = torch.tensor([[True, False, True], [True, False, True]])
    pair = losses(network, labels)
    images = torch.rand(2, 3, 64, 80, generator=torch.Generator().manual_seed(3)) * 255
    valid = torch.ones(2, 64, 80, dtype=torch.bool)
    valid[:, :, 48:] = False
    alone = [network.losses(images[[b]], valid[[b]], labels[[b]]) for b in range(2)]
    for name in network.loss_names:
        torch.testing.assert_close(pair[name], (alone[0][name] + alone[1][name]) / 2)


def test_consistency_falls_when_trained() -> None:
    network = SIPE(small_backbone(), 3).train()
    labels = torch.tensor([[True, False, True], [False, True, False]])
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], 0.2)
    values = []
    for _ in range(15):
        loss = losses(network, labels)["consistency"]
        values.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert values[-1] < 0.8 * values[0]
