"""A classifier of all images' pixels on images whose colours are their classes."""

import pytest
import torch
from torch import Tensor, nn

from torch_svm_seg.backbones.backbone import Backbone
from torch_svm_seg.data.constants import VOID
from torch_svm_seg.pixel_classifier.classifier import PixelClassifier, posterior_of, prior_on_grid
from torch_svm_seg.pixel_classifier.fitting import GridSamples, confident_cells, draw_samples, fit_in_rounds

COLOURS = torch.tensor([[40.0, 40, 40], [200, 60, 60], [60, 60, 200]])
CLASSES = ((1,), (2,), (1, 2), (1,), (2,), (1, 2))


def classifier_of_colours() -> PixelClassifier:
    return PixelClassifier(Backbone(nn.Identity(), {}), ["img"], num_classes=3)


def image_of(truth: Tensor, seed: int) -> Tensor:
    noise = 25 * torch.randn(3, *truth.shape, generator=torch.Generator().manual_seed(seed))
    return (COLOURS[truth].permute(2, 0, 1) + noise).clamp(0, 255)


def truth_of(classes: tuple[int, ...]) -> Tensor:
    truth = torch.zeros(24, 24, dtype=torch.long)
    for number, id in enumerate(classes):
        truth[4:20, 3 + 10 * number : 11 + 10 * number] = id
    return truth


def activation_of(truth: Tensor, classes: tuple[int, ...]) -> Tensor:
    """Right in the upper half of objects; the lower half is taken for background, a border of it for the object."""
    activation = torch.full((1 + len(classes), *truth.shape), 0.5)
    for channel, id in enumerate(classes, 1):
        seen = truth == id
        seen[12:] = False
        activation[channel] = 0.1 + 0.8 * torch.nn.functional.max_pool2d(seen[None].float(), 3, 1, 1)[0]
    return activation


@pytest.fixture(scope="module")
def data() -> list[tuple[Tensor, Tensor, Tensor]]:
    found = []
    for seed, classes in enumerate(CLASSES):
        truth = truth_of(classes)
        found.append((image_of(truth, seed), activation_of(truth, classes), truth))
    return found


def fitted(data: list[tuple[Tensor, Tensor, Tensor]], **rule: float) -> PixelClassifier:
    classifier = classifier_of_colours()
    samples = [
        draw_samples(classifier, image, activation, (0, *classes), 200, seed)
        for seed, ((image, activation, _), classes) in enumerate(zip(data, CLASSES, strict=True))
    ]
    fit_in_rounds(classifier, samples, **rule)  # type: ignore[arg-type]
    return classifier


def share_right(labels: Tensor, truth: Tensor) -> float:
    return float((labels == truth).float().mean())


def test_other_images_mend_what_the_maps_miss(data: list[tuple[Tensor, Tensor, Tensor]]) -> None:
    classifier = fitted(data)
    for (image, activation, truth), classes in zip(data, CLASSES, strict=True):
        maps = classifier(image, activation, (0, *classes))
        assert maps.classes == classes and maps.background is not None
        ids = torch.tensor([0, *classes])
        found = ids[torch.cat([maps.background[None], maps.maps]).argmax(0)]
        assert share_right(found, truth) > share_right(ids[activation.argmax(0)], truth) + 0.05


def test_probabilities_sum_to_one_and_follow_the_prior(data: list[tuple[Tensor, Tensor, Tensor]]) -> None:
    classifier = fitted(data, rounds=1)
    image, activation, _ = data[0]
    logits = classifier.logits(classifier.features(image), (0, 1))
    posterior = posterior_of(logits, prior_on_grid(activation, (24, 24)))
    torch.testing.assert_close(posterior.sum(-1), torch.ones(24, 24))
    certain = torch.tensor([0.0, 1.0]).expand(5, 2)
    torch.testing.assert_close(posterior_of(torch.rand(5, 2), certain), certain)
    nothing = posterior_of(torch.rand(5, 2), torch.zeros(5, 2))
    assert bool((nothing == 0).all())


def test_at_full_size_the_prior_keeps_its_borders() -> None:
    """A classifier that knows nothing leaves the prior as it is, to the pixel."""
    image, mask = torch.rand(3, 24, 24) * 255, torch.randint(0, 2, (24, 24))
    activation = torch.where(torch.stack([mask == 0, mask == 1]), 0.9, 0.1)
    maps = classifier_of_colours()(image, activation, (0, 1), full_size=True)
    assert maps.background is not None
    torch.testing.assert_close(torch.stack([maps.background, maps.maps[0]]), activation)


def test_rounds_repeat_exactly_and_the_seed_matters(data: list[tuple[Tensor, Tensor, Tensor]]) -> None:
    assert torch.equal(fitted(data).weight, fitted(data).weight)
    image, activation, _ = data[0]
    classifier = classifier_of_colours()
    first, second = (draw_samples(classifier, image, activation, (0, 1), 50, seed) for seed in (0, 1))
    assert not torch.equal(first.features, second.features)


def test_samples_are_cells_of_the_image_each_once(data: list[tuple[Tensor, Tensor, Tensor]]) -> None:
    image, activation, _ = data[2]
    samples = draw_samples(classifier_of_colours(), image, activation, (0, 1, 2), 10**6)
    assert samples.features.shape == (576, 3)
    cells = image.permute(1, 2, 0).flatten(0, 1).half()
    assert torch.equal(samples.features.unique(dim=0), cells.unique(dim=0))


def test_confident_cells_by_hand() -> None:
    posterior = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.55, 0.45], [0.2, 0.8], [0.0, 0.0], [0.3, 0.7]])
    assert confident_cells(posterior, 0.5).tolist() == [0, 0, VOID, 1, VOID, VOID]
    assert confident_cells(posterior, 1.0).tolist() == [0, 0, 0, 1, VOID, 1]


def test_a_round_reports_how_many_cells_changed() -> None:
    classifier = classifier_of_colours()
    features = torch.tensor([[0.0, 0, 0]] * 8 + [[9.0, 0, 0]] * 8).half()
    prior = torch.tensor(
        [[0.9, 0.1]] * 8 + [[0.51, 0.49]] + [[0.1, 0.9]] * 7
    )  # the ninth is of class 2 by its features
    rounds: list[tuple[int, float]] = []
    samples = [GridSamples(features, prior.half(), (0, 2))]
    fit_in_rounds(classifier, samples, rounds=2, on_round=lambda *round: rounds.append(round))
    assert rounds == [(1, 1 / 16), (2, 0.0)]
