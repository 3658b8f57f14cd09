"""PAMR and PAR against the formulas on unfolded neighbourhoods."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from torch_svm_seg.data.embedded import embedded_sample
from torch_svm_seg.refine import PAMR, pamr

KINDS = ["pamr", "par"]


def uniform(seed: int, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def windows(x: Tensor) -> Tensor:
    """All 3x3 windows at the six dilations, (B, C, 6, 9, H, W)."""
    (images, channels, height, width), found = x.shape, []
    for dilation in (1, 2, 4, 8, 12, 24):
        padded = F.pad(x, 4 * [dilation], mode="replicate")
        unfolded = F.unfold(padded, 3, dilation=dilation)
        found.append(unfolded.view(images, channels, 9, height, width))
    return torch.stack(found, 2)


def neighbours(x: Tensor) -> Tensor:
    return windows(x)[:, :, :, [0, 1, 2, 3, 5, 6, 7, 8]].flatten(2, 3)


def straightforward(image: Tensor, mask: Tensor, kind: str, steps: int = 10) -> Tensor:
    differences = (neighbours(image) - image[:, :, None]).abs()
    if kind == "pamr":
        deviation = windows(image).flatten(2, 3).std(2, keepdim=True)
        affinity = (-differences / (1e-8 + 0.1 * deviation)).mean(1, keepdim=True).softmax(2)
    else:
        deviation = neighbours(image).std(2, keepdim=True)
        affinity = (-((differences / (deviation + 1e-8) / 0.3) ** 2)).mean(1, keepdim=True).softmax(2)
        far = 2**0.5
        ring = image.new_tensor([far, 1, far, 1, 1, far, 1, far])
        position = torch.cat([dilation * ring for dilation in (1, 2, 4, 8, 12, 24)])
        nearness = (-((position / (position.std() + 1e-8) / 0.3) ** 2)).softmax(0)
        affinity = affinity + 0.01 * nearness.view(1, 1, 48, 1, 1)
    for _ in range(steps):
        mask = (neighbours(mask) * affinity).sum(2)
    return mask


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(60, 75), (5, 90), (13, 1), (1, 1)])
def test_it_equals_the_straightforward_version(kind: str, size: tuple[int, int], device: str) -> None:
    image, mask = 255 * uniform(0, 2, 3, *size).to(device), uniform(1, 2, 4, *size).to(device)
    expected = straightforward(image, mask, kind)
    torch.testing.assert_close(PAMR(kind)(image, mask), expected, rtol=0, atol=1e-10)
    single = PAMR(kind)(image.float(), mask.float())
    torch.testing.assert_close(single, expected.float(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_it_equals_the_straightforward_version_on_a_image(kind: str, device: str) -> None:
    """Part of one, whose rows are more than are computed at once."""
    image = embedded_sample()[0].image[None, :, 60:240, 100:300].to(device)
    mask = uniform(2, 1, 2, *image.shape[2:]).to(device).float()
    expected = straightforward(image.double(), mask.double(), kind, steps=3)
    assert image.shape[2] * 3 * 48 * image.shape[3] > pamr.BLOCK_ENTRIES
    torch.testing.assert_close(PAMR(kind, steps=3)(image, mask), expected.float(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_image_averages_alike(kind: str) -> None:
    """All colours agree: the mean of the neighbours, but for PAR's term of position."""
    image, mask = torch.full((1, 3, 9, 9), 40, dtype=torch.uint8), uniform(3, 1, 1, 9, 9)
    result = PAMR(kind, steps=1)(image, mask)
    if kind == "pamr":
        torch.testing.assert_close(result, neighbours(mask).mean(2))
    torch.testing.assert_close(result, straightforward(image.double(), mask, kind, steps=1))


@pytest.mark.parametrize(("kind", "total"), [("pamr", 1.0), ("par", 1.01**4)])
def test_probabilities_keep_their_sum(kind: str, total: float) -> None:
    image, mask = 255 * uniform(4, 1, 3, 20, 30), uniform(5, 1, 3, 20, 30).softmax(1)
    sums = PAMR(kind, steps=4)(image, mask).sum(1)
    torch.testing.assert_close(sums, torch.full_like(sums, total))


def test_no_steps_change_nothing() -> None:
    mask = uniform(6, 1, 2, 8, 8)
    assert torch.equal(PAMR(steps=0)(255 * uniform(7, 1, 3, 8, 8), mask), mask)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_flow_to_the_probabilities(kind: str) -> None:
    image, mask = 255 * uniform(8, 1, 3, 3, 4), uniform(9, 1, 2, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda given: PAMR(kind, steps=2)(image, given), mask)


def test_half_precision_is_computed_in_single(device: str) -> None:
    image, mask = 255 * uniform(10, 1, 3, 8, 9).to(device), uniform(11, 1, 2, 8, 9).to(device)
    half = PAMR()(image.to(torch.uint8), mask.half())
    torch.testing.assert_close(half, PAMR()(image.to(torch.uint8), mask.half().float()))
    assert half.dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"kind": "crf"}, "kind: expected 'pamr' or 'par', got 'crf'"), ({"steps": -1}, "steps: expected .*, got -1")],
)
def test_bad_parameters_are_told(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PAMR(**arguments)  # type: ignore[arg-type]
