"""IRN's sure labels, and probabilities refined by walks that stop at boundaries."""

import math
from collections.abc import Callable

import pytest
import torch
from conftest import small_backbone
from irn_references import random
from torch import Tensor

from torch_svm_seg.irn import IRNet, IRNRefinement
from torch_svm_seg.irn.refinement import refine_activation
from torch_svm_seg.irn.training import label_by_activation, sure_labels
from torch_svm_seg.refine import DenseCRF


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
    """Claims that there is a boundary in one column of cells."""

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
        (lambda: IRNRefinement(Wall(1), steps=-1), "steps: expected an integer >= 0, got -1"),
        (lambda: IRNRefinement(Wall(1), power=0), "power: expected a number > 0, got 0"),
        (lambda: IRNRefinement(Wall(1), exponent=-2), "exponent: expected a number > 0, got -2"),
        (lambda: IRNRefinement(Wall(1), threshold=1), "threshold: expected a number > 0 and < 1, got 1"),
        (lambda: IRNRefinement(Wall(1))(torch.zeros(1, 3, 4, 5), torch.ones(1, 2, 5, 4)), "images: expected"),
        (lambda: IRNRefinement(Wall(1))(torch.zeros(1, 3, 4, 4), -torch.ones(1, 2, 4, 4)), "probabilities: expected"),
    ],
)
def test_bad_arguments_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
