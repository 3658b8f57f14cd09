"""Probabilities of scores, labels of probabilities, refinement of the classes present, PPMG."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from torch_svm_seg.data.constants import VOID
from torch_svm_seg.expansion.calibration import calibrated, held_out
from torch_svm_seg.expansion.expander import SVMExpander
from torch_svm_seg.expansion.labelling import FittedLabeller, SeedLabeller, as_probabilities, label, seeds_of
from torch_svm_seg.expansion.ppmg import PPMG, smooth
from torch_svm_seg.expansion.sampling import PixelSample, sample_pixels
from torch_svm_seg.refine import PAMR, DenseCRF, refine


def test_the_slope_is_that_of_logistic_regression() -> None:
    """Of two classes with opposite scores, softmax(slope * (s, -s)) is a logistic function of 2 * slope * s."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(200, generator=generator) < 0.5
    score = truth.float() - 0.5 + 0.7 * torch.randn(200, generator=generator)
    scores = torch.stack([-score, score, torch.full_like(score, -torch.inf)]).view(1, 3, 10, 20)
    sample = PixelSample(torch.arange(200)[None], truth.long()[None])
    reference = LogisticRegression(C=1e9, fit_intercept=False).fit(score[:, None].numpy(), truth.numpy())
    expected = torch.from_numpy(reference.predict_proba(score[:, None].numpy())).float()
    found = calibrated(scores, sample).flatten(2)[0]
    assert torch.allclose(found[:2].T, expected, atol=1e-4)
    assert not found[2].any()


def test_slopes_are_each_images_own_and_ignore_padding() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(3, 2, 6, 7, generator=generator)
    classes = torch.randint(0, 2, (3, 30), generator=generator)
    classes[0, 20:], classes[2] = -1, -1
    positions = torch.randint(0, 42, (3, 30), generator=generator)
    together = calibrated(scores, PixelSample(positions, classes))
    first = calibrated(scores[:1], PixelSample(positions[:1, :20], classes[:1, :20]))
    assert torch.allclose(together[:1], first)
    assert torch.allclose(together[2], scores[2].softmax(0)), "nothing known: slope 1"


def test_held_out_pixels_are_labelled_and_were_not_drawn() -> None:
    labels = torch.randint(0, 3, (2, 20, 30), generator=torch.Generator().manual_seed(0))
    labels[labels == 2] = VOID
    labels[1, 1:] = VOID
    sample = sample_pixels(labels, 25)
    rest = held_out(labels, sample, seed=0)
    for image in range(2):
        drawn = sample.positions[image][sample.classes[image] >= 0]
        left = rest.positions[image][rest.classes[image] >= 0]
        assert len(left)
        assert torch.equal(labels[image].flatten()[left], rest.classes[image][rest.classes[image] >= 0])
        if image == 0:
            assert not torch.isin(left, drawn).any()
        else:
            assert torch.equal(left.sort().values, drawn.sort().values), "all were drawn: they are used again"


def test_activation_becomes_probabilities() -> None:
    activation = torch.tensor([[0.2, 0.0, -torch.inf], [0.6, 0.0, -torch.inf]]).view(2, 3, 1, 1)
    activation[1, 1] = 0.2
    expected = torch.tensor([[1.0, 0.0, 0.0], [0.75, 0.25, 0.0]]).view(2, 3, 1, 1)
    assert torch.allclose(as_probabilities(activation), expected)
    nothing = torch.tensor([0.0, 0.0, -torch.inf]).view(1, 3, 1, 1)
    assert as_probabilities(nothing).flatten().tolist() == [0.5, 0.5, 0]
    assert SeedLabeller()(activation, activation).masks.flatten().tolist() == [0, 0]


def test_vanished_classes_get_their_seed_back() -> None:
    probabilities = torch.tensor([0.9, 0.1, 0.0, 0.0]).view(1, 4, 1, 1).expand(2, 4, 2, 3)
    seeds = torch.tensor([[[0, 1, 1], [0, 0, 3]], [[0, 0, 0], [0, 0, 0]]])
    found = label(probabilities, seeds)
    assert torch.equal(found.masks, seeds)
    assert sum(found.restored) == 2
    assert not label(probabilities).masks.any()


def test_a_class_that_a_returning_one_would_erase_returns_too() -> None:
    probabilities = torch.nn.functional.one_hot(torch.tensor([[[2, 0]]]), 3).movedim(-1, 1).float()
    found = label(probabilities, torch.tensor([[[1, 2]]]))
    assert found.masks.tolist() == [[[1, 2]]]
    assert sum(found.restored) == 2


def test_pixels_of_equal_activation_have_no_seed() -> None:
    activation = torch.tensor([[0.5, 0.5, 0.2], [0.5, 0.1, 0.7], [-torch.inf] * 3]).view(1, 3, 1, 3)
    assert seeds_of(activation).tolist() == [[[VOID, 0, 1]]]
    assert seeds_of(activation[:, :1]).tolist() == [[[0, 0, 0]]]


class Even(nn.Module):
    """Finds all classes that it is shown equally likely."""

    def forward(self, image: Tensor, probabilities: Tensor) -> Tensor:
        return torch.full_like(probabilities, 1 / probabilities.shape[1])


def test_refinement_leaves_absent_classes_out() -> None:
    probabilities = torch.zeros(2, 5, 3, 4)
    probabilities[0, 0], probabilities[0, 3] = 0.3, 0.7
    probabilities[1, 1] = 1
    found = refine([Even()], torch.zeros(2, 3, 3, 4), probabilities)
    assert torch.equal(found > 0, probabilities > 0)
    alone = refine([Even()], torch.zeros(1, 3, 3, 4), probabilities[:1])
    assert torch.allclose(alone[0, 3], torch.tensor(0.5)), "of the two that are present"


def test_refinements_follow_each_other() -> None:
    generator = torch.Generator().manual_seed(0)
    image, probabilities = (
        255 * torch.rand(1, 3, 8, 9, generator=generator),
        torch.rand(1, 2, 8, 9, generator=generator),
    )
    crf = DenseCRF(steps=1)
    torch.testing.assert_close(refine([crf, crf], image, probabilities), crf(image, crf(image, probabilities)))


def test_refined_probabilities_sum_to_one() -> None:
    """Those of PAR alone do not."""
    generator = torch.Generator().manual_seed(0)
    image, probabilities = 255 * torch.rand(1, 3, 8, 9, generator=generator), torch.rand(1, 3, 8, 9).softmax(1)
    assert float(PAMR("par")(image, probabilities).sum(1).mean()) > 1.05
    assert torch.allclose(refine([PAMR("par")], image, probabilities).sum(1), torch.ones(1, 8, 9))


def test_ppmg_smooths_by_the_coefficient_of_variation() -> None:
    map = torch.tensor([[0.0, 0.04, 0.2, 0.6]])
    # mean 0.4 and deviation 0.2 of what exceeds 0.05: the power is 1 - 0.3 / 2
    assert torch.allclose(smooth(map), map**0.85)
    assert not smooth(torch.zeros(2, 2)).any()


def test_ppmg_gives_a_pixel_to_the_class_of_which_it_is_the_larger_part() -> None:
    """Both classes reach 0.9 in the same corner, but there the second one has all of its activation."""
    activation = torch.zeros(1, 4, 20, 20)
    activation[0, 3] = -torch.inf
    activation[0, 1, :16, :16], activation[0, 2, :6, :6] = 0.9, 0.9
    images = 100 * (activation[:, 1:2] > 0) + 100.0 * (activation[:, 2:3] > 0)
    found = PPMG()(images.expand(-1, 3, -1, -1), activation)
    expected = torch.zeros(1, 20, 20, dtype=torch.long)
    expected[0, :16, :16] = 1
    expected[0, :6, :6] = 2
    assert float((found.masks == expected).float().mean()) > 0.98
    assert not found.probabilities[:, 3].any()
    assert torch.allclose(found.probabilities.sum(1), torch.ones(1, 20, 20))


@pytest.mark.parametrize("shape", [(1, 3, 4, 5), (2, 2, 1, 1)])
def test_nothing_active_is_background(shape: tuple[int, ...]) -> None:
    activation = torch.zeros(shape)
    images = torch.zeros(shape[0], 3, *shape[2:])
    assert not PPMG()(images, activation).masks.any()


def test_no_pixel_of_an_image_trains_the_svm_of_others() -> None:
    labels = torch.tensor([[[0, 1, 255], [1, 1, 0]]])
    assert (FittedLabeller(SVMExpander()).training_labels(torch.zeros(1, 3, 2, 3), labels) == VOID).all()
