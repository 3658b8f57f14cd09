"""Refinement in tiles against that of the whole image."""

import re

import pytest
import torch
from torch import Tensor, nn

from torch_svm_seg.data.embedded import embedded_sample
from torch_svm_seg.refine import PAMR, DenseCRF, refine
from torch_svm_seg.refine.steps import refine_in_tiles


@pytest.fixture(scope="module")
def example() -> tuple[Tensor, Tensor]:
    image = embedded_sample().image(0)[None].float()[..., :160, :220]
    probabilities = torch.rand(1, 3, 160, 220, generator=torch.Generator().manual_seed(0))
    return image, probabilities / probabilities.sum(1, keepdim=True)


@pytest.mark.parametrize("kind", ["pamr", "par"])
@pytest.mark.parametrize("most_pixels", [1, 9_000, 16_000])
def test_pamr_is_the_same_in_tiles(example: tuple[Tensor, Tensor], kind: str, most_pixels: int) -> None:
    step = PAMR(kind, steps=2)
    torch.testing.assert_close(refine_in_tiles(step, *example, most_pixels=most_pixels), step(*example))


def test_a_dense_crf_labels_alike_in_tiles(example: tuple[Tensor, Tensor]) -> None:
    image, mask = example[0], embedded_sample().mask(0)[:160, :220]
    probabilities = nn.functional.avg_pool2d((mask == torch.tensor([0, 15])[:, None, None]).float() + 0.1, 15, 1, 7)
    probabilities = (probabilities / probabilities.sum(0))[None]
    step = DenseCRF(bilateral_sigma=20)
    whole, tiles = step(image, probabilities), refine_in_tiles(step, image, probabilities, most_pixels=20_000)
    assert (whole.argmax(1) == tiles.argmax(1)).float().mean() > 0.99


def test_tiles_are_no_larger_than_asked_for(example: tuple[Tensor, Tensor]) -> None:
    seen = []

    class Watched(nn.Module):
        reach = 10

        def forward(self, image: Tensor, probabilities: Tensor) -> Tensor:
            seen.append(image[0, 0].numel())
            return 2 * probabilities

    image, probabilities = example
    assert torch.equal(refine_in_tiles(Watched(), image, probabilities, most_pixels=5_000), 2 * probabilities)
    assert len(seen) > 7 and max(seen) <= 5_000
    seen.clear()
    refine_in_tiles(Watched(), image, probabilities)
    assert seen == [160 * 220]


def test_a_refinement_without_reach_sees_the_whole_image(example: tuple[Tensor, Tensor]) -> None:
    class Whole(nn.Module):
        def forward(self, image: Tensor, probabilities: Tensor) -> Tensor:
            assert image.shape[2:] == (160, 220)
            return probabilities

    assert refine_in_tiles(Whole(), *example, most_pixels=100) is example[1]


@pytest.mark.parametrize("empty", [[1], [0, 2], [0, 1, 2]])
def test_images_without_any_class_are_told(empty: list[int]) -> None:
    probabilities = torch.full((3, 2, 6, 7), 0.5)
    probabilities[empty] = 0
    with pytest.raises(
        ValueError, match=r"probabilities: expected a class above 0 .* in image\(s\) " + re.escape(str(empty))
    ):
        refine([PAMR()], torch.zeros(3, 3, 6, 7), probabilities)
