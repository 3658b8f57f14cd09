"""An image's own labels pooled with those of all images."""

import pytest
import torch
from torch import Tensor, nn

from torch_svm_seg.backbones.backbone import Backbone
from torch_svm_seg.pixel_classifier.classifier import SLOPE, PixelClassifier
from torch_svm_seg.pixel_classifier.other_images import OtherImages, add_labelled
from torch_svm_seg.svm.least_squares import ClassMoments

IDS = torch.tensor([0, 3])


def others_of(moments: ClassMoments, ridge: float = 0.5) -> OtherImages:
    return OtherImages(PixelClassifier(Backbone(nn.Identity(), {}), ["img"], num_classes=5), moments, ridge)


def image_of(seed: int) -> tuple[Tensor, Tensor]:
    """An object, class number 1, on the right: the first channel shows it, the second is noise of large patches."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.zeros(16, 24, dtype=torch.long)
    truth[:, 12:] = 1
    channels = 0.3 * torch.randn(3, 16, 24, generator=generator)
    channels[0] += truth
    patches = 3 * torch.randn(1, 1, 2, 3, generator=generator)
    channels[1] += torch.nn.functional.interpolate(patches, (16, 24))[0, 0]
    return channels, truth


def clicks(truth: Tensor, seed: int) -> Tensor:
    """One labelled pixel of each class."""
    labels = torch.full_like(truth, 255)
    for class_ in (0, 1):
        pixels = (truth == class_).nonzero()
        row, column = pixels[torch.randint(len(pixels), (1,), generator=torch.Generator().manual_seed(seed))[0]]
        labels[row, column] = class_
    return labels


def all_moments(images: int) -> ClassMoments:
    moments = ClassMoments.zeros(5, 3)
    for seed in range(images):
        channels, truth = image_of(seed)
        labels = clicks(truth, seed)
        labels = torch.where(labels == 255, labels, IDS[labels.clamp_max(1)])
        add_labelled(moments, channels, labels, 10)
    return moments


def share_right(moments: ClassMoments, images: int = 20) -> float:
    right = 0.0
    for seed in range(images):
        channels, truth = image_of(seed)
        scores = others_of(moments).scores({"img": channels[None]}, clicks(truth, seed)[None], IDS)
        right += float((scores[0].argmax(0) == truth).float().mean())
    return right / images


def test_other_images_tell_which_channel_is_noise() -> None:
    assert share_right(all_moments(20)) > share_right(ClassMoments.zeros(5, 3)) + 0.05


def test_without_others_it_is_the_image_s_own_classifier() -> None:
    channels, truth = image_of(0)
    own = ClassMoments.zeros(2, 3)
    own.add(channels.flatten(1).mT, truth.flatten())
    others = OtherImages(others_of(own).classifier, ClassMoments.zeros(5, 3), ridge=0.1, per_class=1000)
    found = others.scores({"img": channels[None]}, truth[None], IDS)[0]
    expected = SLOPE * own.solve(0.1)(channels.permute(1, 2, 0)).permute(2, 0, 1)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_their_weight_does_not_grow_with_their_number() -> None:
    moments, (channels, truth) = all_moments(5), image_of(9)
    twice = ClassMoments(*(2 * part for part in moments))
    labels = clicks(truth, 9)[None]
    one, two = (others_of(part).scores({"img": channels[None]}, labels, IDS) for part in (moments, twice))
    torch.testing.assert_close(one, two)


def test_an_uncertain_label_counts_for_less() -> None:
    moments, (channels, truth) = all_moments(5), image_of(9)
    right = clicks(truth, 9)
    wrong = right.clone()
    wrong[2, 2] = 1
    sure, unsure = torch.ones(1, 16, 24), torch.ones(1, 16, 24)
    unsure[0, 2, 2] = 1e-4
    expected, found, misled = (
        others_of(moments).scores({"img": channels[None]}, labels[None], IDS, certainty)
        for labels, certainty in ((right, None), (wrong, unsure), (wrong, sure))
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=0.01)
    assert float((misled - expected).abs().max()) > 0.5


def test_classes_are_found_by_their_ids_and_absent_ones_add_nothing() -> None:
    moments, (channels, truth) = all_moments(5), image_of(9)
    labels = clicks(truth, 9)[None]
    two = others_of(moments).scores({"img": channels[None]}, labels, IDS)
    more = others_of(moments).scores(
        {"img": channels[None]}, labels * (labels == 255) + 2 * labels * (labels == 1), torch.tensor([0, 2, 3])
    )
    torch.testing.assert_close(more[:, [0, 2]], two)
    assert float(more[:, 1].abs().max()) == 0


@pytest.mark.parametrize("labels", [torch.full((16, 24), 1), torch.full((16, 24), 255)])
def test_one_class_alone_is_left_to_the_svm(labels: Tensor) -> None:
    channels, _ = image_of(0)
    assert not others_of(all_moments(3)).scores({"img": channels[None]}, labels[None], IDS).any()
