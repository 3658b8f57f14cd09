"""The expansion of boxes."""

import pytest
import torch

from torch_svm_seg.data.constants import VOID
from torch_svm_seg.expansion.box_labeller import BoxLabeller
from torch_svm_seg.expansion.expander import SVMExpander
from torch_svm_seg.expansion.labelling import SVMLabeller
from torch_svm_seg.pipeline.sparse_labels import Box, box_activation
from torch_svm_seg.svm.svm import SVM

IMAGES = torch.zeros(1, 3, 24, 32)


def scene() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two discs, and a smaller one with the look of the second outside of all boxes; features tell the looks."""
    rows, columns = torch.arange(24)[:, None], torch.arange(32)[None]

    def disc(row: int, column: int, radius: int = 4) -> torch.Tensor:
        return (rows - row).square() + (columns - column).square() <= radius**2

    truth = torch.where(disc(6, 6), 1, torch.where(disc(17, 18), 2, 0))
    looks = torch.where(disc(5, 26, 1), 2, truth)
    features = torch.nn.functional.one_hot(looks, 3).permute(2, 0, 1)[None].float()
    features += 0.05 * torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
    boxes = [Box(2, 2, 11, 11, 1), Box(14, 13, 23, 22, 2)]
    return features, box_activation(boxes, (24, 32), (0, 1, 2))[None], truth


def test_objects_are_cut_out_of_their_boxes() -> None:
    features, activation, truth = scene()
    labelling = BoxLabeller(SVMExpander(SVM("linear"), num_classes=3))(IMAGES, features, activation)
    assert torch.equal(labelling.masks[0], truth)
    torch.testing.assert_close(labelling.probabilities.sum(1), torch.ones(1, 24, 32))


def test_no_class_leaves_its_boxes_whatever_the_features() -> None:
    _, activation, _ = scene()
    features = torch.rand(1, 5, 12, 16, generator=torch.Generator().manual_seed(1))
    labelling = BoxLabeller(SVMExpander(samples_per_class=20, num_classes=3), rounds=2)(IMAGES, features, activation)
    impossible = activation == -torch.inf
    assert not bool(labelling.probabilities[impossible].any())
    assert not bool(impossible.gather(1, labelling.masks[:, None]).any())
    assert set(labelling.masks.unique().tolist()) == {0, 1, 2}


def test_first_svm_learns_filled_boxes() -> None:
    _, activation, _ = scene()
    labels = BoxLabeller(SVMExpander()).training_labels(IMAGES, activation)
    assert [(labels == number).sum().item() for number in (0, 1, 2, VOID)] == [24 * 32 - 162, 81, 81, 0]


def test_rounds_are_at_least_one() -> None:
    with pytest.raises(ValueError, match="rounds: expected an integer >= 1, got 0"):
        BoxLabeller(SVMExpander(), rounds=0)


def test_certainty_weighs_labels_as_the_expander_does() -> None:
    features, _, truth = scene()
    labels = truth[None].masked_fill(torch.rand(1, 24, 32, generator=torch.Generator().manual_seed(2)) < 0.9, VOID)
    labels[0, 0, 0] = 2  # wrong, and hardly trusted
    weights = torch.ones(labels.shape)
    weights[0, 0, 0] = 0.001
    expander = SVMExpander(SVM("linear"), num_classes=3)
    expected = expander(features, labels, weights).masks
    assert torch.equal(SVMLabeller(expander)(IMAGES, features, labels, weights).masks, expected)
    assert bool((expected[0] == truth)[:12, :20].all())
