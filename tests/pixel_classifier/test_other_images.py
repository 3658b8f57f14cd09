"""An image's own labels pooled with those of all images."""

import pytest
import torch
from torch import Tensor, nn

from torch_svm_seg.backbones.backbone import Backbone
from torch_svm_seg.expansion.expander import SVMExpander
from torch_svm_seg.expansion.labelling import SVMLabeller
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
        masks = others_of(moments).expander(IDS)(channels[None], clicks(truth, seed)[None]).masks
        right += float((masks[0] == truth).float().mean())
    return right / images


def test_other_images_tell_which_channel_is_noise() -> None:
    assert share_right(all_moments(20)) > share_right(ClassMoments.zeros(5, 3)) + 0.05


def test_without_others_it_is_the_image_s_own_classifier() -> None:
    channels, truth = image_of(0)
    own = ClassMoments.zeros(2, 3)
    own.add(channels.flatten(1).mT, truth.flatten())
    others = OtherImages(others_of(own).classifier, ClassMoments.zeros(5, 3), ridge=0.1, samples_per_class=1000)
    found = others.expander(IDS)(channels[None], truth[None]).scores[0]
    expected = SLOPE * own.solve(0.1)(channels.permute(1, 2, 0)).permute(2, 0, 1)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_their_weight_does_not_grow_with_their_number() -> None:
    moments, (channels, truth) = all_moments(5), image_of(9)
    twice = ClassMoments(*(2 * part for part in moments))
    labels = clicks(truth, 9)[None]
    one, two = (others_of(part).expander(IDS)(channels[None], labels).scores for part in (moments, twice))
    torch.testing.assert_close(one, two)


def test_an_uncertain_label_counts_for_less() -> None:
    moments, (channels, truth) = all_moments(5), image_of(9)
    right = clicks(truth, 9)
    wrong = right.clone()
    wrong[2, 2] = 1
    sure, unsure = torch.ones(1, 16, 24), torch.ones(1, 16, 24)
    unsure[0, 2, 2] = 1e-4
    expected, found, misled = (
        others_of(moments).expander(IDS)(channels[None], labels[None], certainty).scores
        for labels, certainty in ((right, None), (wrong, unsure), (wrong, sure))
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=0.01)
    assert float((misled - expected).abs().max()) > 0.5


def test_classes_are_found_by_their_ids_and_absent_ones_get_no_pixel() -> None:
    moments, (channels, truth) = all_moments(5), image_of(9)
    labels = clicks(truth, 9)[None]
    two = others_of(moments).expander(IDS)(channels[None], labels).scores
    of_three = labels * (labels == 255) + 2 * labels * (labels == 1)
    more = others_of(moments).expander(torch.tensor([0, 2, 3]))(channels[None], of_three).scores
    torch.testing.assert_close(more[:, [0, 2]], two)
    assert bool((more[:, 1] == -torch.inf).all())


def test_images_of_a_batch_do_not_see_each_other() -> None:
    expander, images = others_of(all_moments(5)).expander(IDS), [image_of(8), image_of(9)]
    features = torch.stack([channels for channels, _ in images])
    labels = torch.stack([clicks(images[0][1], 8), torch.full((16, 24), 1)])
    together = expander(features, labels)
    for number in range(2):
        alone = expander(features[number][None], labels[number][None])
        torch.testing.assert_close(together.scores[number], alone.scores[0])
        assert torch.equal(together.masks[number], alone.masks[0])


def test_maps_of_several_stages_are_joined_on_the_finest_grid() -> None:
    expander, (channels, truth) = others_of(all_moments(5)).expander(IDS), image_of(9)
    labels = clicks(truth, 9)[None]
    constant = torch.nn.functional.interpolate(channels[None, 2:].mean((2, 3), keepdim=True), (4, 6))
    split = expander([channels[None, :2], constant], labels).scores
    joined = torch.cat([channels[:2], constant[0, :, :1, :1].expand(1, 16, 24)])
    torch.testing.assert_close(split, expander(joined[None], labels).scores)


def test_one_class_alone_has_the_whole_image() -> None:
    channels, truth = image_of(0)
    masks = others_of(all_moments(3)).expander(IDS)(channels[None], torch.full_like(truth, 1)[None]).masks
    assert bool((masks == 1).all())


def test_its_scores_are_the_logits_of_probabilities() -> None:
    channels, truth = image_of(0)
    labels, expander = clicks(truth, 0)[None], others_of(all_moments(3)).expander(IDS)
    labelling = SVMLabeller(SVMExpander())(torch.zeros(1, 3, 16, 24), channels[None], labels, expander=expander)
    scores = expander(channels[None], labels).scores
    torch.testing.assert_close(labelling.probabilities, scores.softmax(1))


def test_no_label_is_refused() -> None:
    channels, truth = image_of(0)
    with pytest.raises(ValueError, match="labels: expected a labelled pixel"):
        others_of(all_moments(3)).expander(IDS)(channels[None], torch.full_like(truth, 255)[None])
