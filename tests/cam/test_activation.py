"""Class activation maps and seeds: ranges, present classes, symmetry, and cases worked out by hand."""

import pytest
import torch
from conftest import small_backbone

from torch_svm_seg.cam.activation import (
    ActivationMaps,
    class_activation_maps,
    constant_background,
    make_seed,
    own_background,
    power_background,
)
from torch_svm_seg.cam.classifier import Classifier
from torch_svm_seg.cam.sipe import SIPE

METHODS = [Classifier, SIPE]


def picture(height: int = 70, width: int = 101) -> torch.Tensor:
    return torch.randint(256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


def network(method: type[Classifier] = Classifier) -> Classifier:
    return method(small_backbone(), 6).eval()


@pytest.mark.parametrize("method", METHODS)
def test_maps_are_of_the_classes_present_from_0_to_1_at_a_quarter_of_the_size(method: type[Classifier]) -> None:
    maps = class_activation_maps(network(method), picture(), [5, 2, 2])
    assert maps.classes == (2, 5) and maps.maps.shape == (2, 18, 26) and maps.size == (70, 101)
    assert (maps.background is not None) == (method is SIPE)
    parts = maps.maps if maps.background is None else torch.cat([maps.background[None], maps.maps])
    assert parts.min() >= 0 and parts.max() <= 1
    for part in parts:
        assert part.max() == 1 or not part.any()
    assert parts.amax((1, 2)).max() > 0.99
    assert not parts.requires_grad


@pytest.mark.parametrize("method", METHODS)
def test_maps_of_the_mirror_image_are_the_mirrored_maps(method: type[Classifier]) -> None:
    scales = (1.0, 0.5)
    straight = class_activation_maps(network(method), picture(), [1, 3], scales)
    mirrored = class_activation_maps(network(method), picture().flip(-1), [1, 3], scales)
    torch.testing.assert_close(mirrored.maps.flip(-1), straight.maps, atol=1e-4, rtol=0)
    alone = class_activation_maps(network(method), picture(), [1, 3], scales, flip=False)
    alone_mirrored = class_activation_maps(network(method), picture().flip(-1), [1, 3], scales, flip=False)
    assert (alone_mirrored.maps.flip(-1) - alone.maps).abs().max() > 1e-3  # so the average is what makes it so


def test_one_scale_is_the_positive_class_map_over_its_maximum() -> None:
    model, image = network(), picture(64, 96)
    maps = class_activation_maps(model, image, [4], scales=[1.0], flip=False)
    with torch.no_grad():
        expected = model.class_maps(image[None].float())[:, 3:4].relu()
    expected = torch.nn.functional.interpolate(expected, (16, 24), mode="bilinear")
    torch.testing.assert_close(maps.maps, expected[0] / expected.max(), atol=1e-4, rtol=1e-4)


def test_adding_classes_does_not_change_the_maps_of_the_others() -> None:
    few, more = (class_activation_maps(network(), picture(), present) for present in ([2], [1, 2, 6]))
    torch.testing.assert_close(more.maps[1], few.maps[0])


def test_a_class_without_any_activation_is_silent_and_gets_no_pixel() -> None:
    model = network()
    with torch.no_grad():
        model.head.weight[1] = -model.head.weight[1].abs() - 0.1  # features are never negative
        model.head.weight[2] = 0.5
    maps = class_activation_maps(model, picture(), [2, 3])
    assert maps.silent == (2,) and maps.maps.isfinite().all()
    assert set(make_seed(maps, constant_background(maps, 0.2)).unique().tolist()) <= {0, 3}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"present": []}, "present: expected class ids from 1 to 6, got"),
        ({"present": [0, 1]}, "present: expected class ids from 1 to 6, got"),
        ({"present": [7]}, "present: expected class ids from 1 to 6, got"),
        ({"present": [1], "scales": [1.0, 0.0]}, "scales: expected positive numbers"),
        ({"present": [1], "scales": []}, "scales: expected positive numbers"),
        ({"present": [1], "scales": [1.0, float("nan")]}, "scales: expected positive numbers"),
        ({"present": [1], "scales": [float("inf")]}, "scales: expected positive numbers"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        class_activation_maps(network(), picture(), **arguments)


HAND = ActivationMaps((3, 7), torch.tensor([[[0.9, 0.2, 0.5]], [[0.1, 0.6, 0.5]]]), (1, 3), torch.tensor([[0, 0.7, 0]]))


def test_constant_threshold_by_hand() -> None:
    assert make_seed(HAND, constant_background(HAND, 0.55)).tolist() == [[3, 7, 0]]
    assert make_seed(HAND, constant_background(HAND, 0.5)).tolist() == [[3, 7, 0]]  # a tie is background
    assert make_seed(HAND, constant_background(HAND, 0.4)).tolist() == [[3, 7, 3]]  # then the lowest id
    assert make_seed(HAND, constant_background(HAND, 1)).tolist() == [[0, 0, 0]]


def test_power_rule_by_hand() -> None:
    torch.testing.assert_close(power_background(HAND, 2), torch.tensor([[0.01, 0.16, 0.25]]))
    assert make_seed(HAND, power_background(HAND, 2)).tolist() == [[3, 7, 3]]
    assert make_seed(HAND, power_background(HAND, 0.1)).tolist() == [[3, 0, 0]]


def test_own_background_by_hand() -> None:
    assert make_seed(HAND, own_background(HAND)).tolist() == [[3, 0, 3]]
    with pytest.raises(ValueError, match="no background of their own"):
        own_background(ActivationMaps(HAND.classes, HAND.maps, HAND.size))


def test_seed_has_the_images_size_and_interpolates_before_deciding() -> None:
    maps = ActivationMaps((1,), torch.tensor([[[1.0, 0.0]]]), (2, 8))
    assert make_seed(maps, constant_background(maps, 0.7)).tolist() == [[1, 1, 1, 0, 0, 0, 0, 0]] * 2
    assert maps.resized().maps.shape == (1, 2, 8)


@pytest.mark.parametrize(
    ("rule", "value"), [(constant_background, 1.1), (constant_background, -1), (power_background, 0)]
)
def test_bad_rules_are_refused(rule, value: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        rule(HAND, value)


@pytest.mark.parametrize(
    ("classes", "shape", "message"),
    [
        ((1, 2), (1, 4, 4), "maps: expected"),
        ((), (0, 4, 4), "maps: expected"),
        ((1,), (4, 4), "maps: expected"),
        ((0, 1), (2, 4, 4), "classes: expected ascending"),
        ((2, 1), (2, 4, 4), "classes: expected ascending"),
        ((1, 1), (2, 4, 4), "classes: expected ascending"),
    ],
)
def test_maps_that_do_not_fit_their_classes_are_refused(classes: tuple, shape: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ActivationMaps(classes, torch.zeros(shape), (16, 16))


def test_background_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="background: expected"):
        ActivationMaps((1,), torch.zeros(1, 4, 4), (16, 16), torch.zeros(4, 5))
