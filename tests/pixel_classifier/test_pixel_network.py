"""The pixel network: trained among each image's own classes."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch_svm_seg.backbones.backbone import Backbone
from torch_svm_seg.pixel_classifier.classifier import PixelNetwork
from torch_svm_seg.pixel_classifier.fitting import GridSamples
from torch_svm_seg.pixel_classifier.network_fitting import train_network


def network(classes: int = 3, hidden: int = 16) -> PixelNetwork:
    return PixelNetwork(Backbone(nn.Identity(), {}), ["img"], classes, hidden).eval()


def cells(x: torch.Tensor, labels: torch.Tensor, classes: tuple[int, ...]) -> GridSamples:
    return GridSamples(x.half(), F.one_hot(labels, len(classes)).half(), classes)


def disc(number: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points of a plane (and a third channel, constant), labelled by whether they lie in a disc: no line does that."""
    x = 4 * torch.rand(number, 3, generator=torch.Generator().manual_seed(seed)) - 2
    x[:, 2] = 7
    return x, (x[:, :2].norm(dim=1) < 1.2).long()


def test_it_learns_what_no_linear_classifier_can() -> None:
    model = network(classes=2)
    train_network(model, [cells(*disc(2000, 0), (0, 1))], steps=400, batch_size=256, learning_rate=1e-2)
    x, labels = disc(1000, 1)
    with torch.no_grad():
        right = model.logits(x, [0, 1]).argmax(1) == labels
    assert float(right.double().mean()) > 0.95
    assert not any(layer.training for layer in model.layers)


def test_the_loss_is_among_the_classes_of_the_image() -> None:
    """The same cells are class 1 in one image and class 2 in another one: no contradiction, as none has both."""
    x, labels = disc(1000, 0)
    images = [cells(x, labels, (0, 1)), cells(x, labels, (0, 2))]
    model = network(classes=3)
    train_network(model, images, steps=400, batch_size=256, learning_rate=1e-2)
    with torch.no_grad():
        for own in ([0, 1], [0, 2]):
            probability = model.logits(x, own).softmax(1).gather(1, labels[:, None])
            # Had it to choose between 1 and 2 as well, half of it would be the most.
            assert float(probability[labels == 1].mean()) > 0.8


def test_features_are_normalised_and_constant_channels_left_out() -> None:
    x, labels = disc(3000, 0)
    model = network(classes=2)
    train_network(model, [cells(x, labels, (0, 1))], steps=1)
    torch.testing.assert_close(model.mean, x.half().float().mean(0))
    torch.testing.assert_close(model.rate[:2], 1 / x[:, :2].half().float().std(0, correction=0))
    assert float(model.rate[2]) == 0


def test_a_seed_gives_the_same_weights_and_leaves_the_generator_as_it_was() -> None:
    images = [cells(*disc(500, 0), (0, 1))]
    first, again, other = network(), network(), network()
    state = torch.get_rng_state()
    for model, seed in ((first, 0), (again, 0), (other, 1)):
        train_network(model, images, steps=3, seed=seed)
    assert torch.equal(torch.get_rng_state(), state)
    weights = [model.layers[0].weight for model in (first, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_cells_without_any_prior_train_nothing() -> None:
    x, labels = disc(200, 0)
    silent = GridSamples(x.half(), torch.zeros(200, 2).half(), (0, 1))
    model = network(classes=2)
    train_network(model, [silent], steps=1, weight_decay=0)
    loss = F.cross_entropy(model.logits(x, [0, 1]), labels)
    assert bool(loss.isfinite())
    with pytest.raises(ValueError, match="at least one image"):
        train_network(model, [])
