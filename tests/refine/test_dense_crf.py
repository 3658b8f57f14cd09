"""The dense CRF against pydensecrf, against a plain reading of the formulas, and its properties."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from pydensecrf.densecrf import DenseCRF2D
from pydensecrf.utils import unary_from_labels, unary_from_softmax
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from torch_svm_seg.data.embedded import embedded_sample
from torch_svm_seg.data.voc import voc2012
from torch_svm_seg.refine import PAMR, DenseCRF
from torch_svm_seg.refine.dense_crf import PRESETS
from torch_svm_seg.refine.probabilities import label_probabilities


def noisy(seed: int, images: int, classes: int, height: int, width: int) -> Tensor:
    """Probabilities of large blobs under noise, float32 (B, K, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    blobs = torch.randn(images, classes, height // 12 + 2, width // 12 + 2, generator=generator)
    noise = torch.randn(images, classes, height, width, generator=generator)
    return (2 * F.interpolate(blobs, (height, width), mode="bilinear") + 0.5 * noise).softmax(1)


def colours(seed: int, images: int, height: int, width: int) -> Tensor:
    """Two-coloured images with noise, float32 (B, 3, H, W)."""
    random = torch.rand(images, 3, height, width, generator=torch.Generator().manual_seed(seed))
    return 40 * random + 120 * (torch.arange(width) > width // 2)


def pydensecrf(image: Tensor, unary: np.ndarray, parameters: dict[str, object]) -> Tensor:
    """Marginals (1, K, H, W) of an image (3, H, W), uint8, for a unary (K, H W)."""
    height, width = image.shape[1:]
    crf = DenseCRF2D(width, height, len(unary))
    crf.setUnaryEnergy(np.ascontiguousarray(unary))
    crf.addPairwiseGaussian(sxy=parameters["spatial_sigma"], compat=parameters["spatial_weight"])
    crf.addPairwiseBilateral(
        sxy=parameters["bilateral_sigma"],
        srgb=parameters["colour_sigma"],
        rgbim=np.ascontiguousarray(image.permute(1, 2, 0).numpy()),
        compat=parameters["bilateral_weight"],
    )
    return torch.from_numpy(np.array(crf.inference(10))).view(1, -1, height, width)


def reference(image: Tensor, probabilities: Tensor, name: str) -> Tensor:
    return pydensecrf(image[0].cpu(), unary_from_softmax(probabilities[0].cpu().numpy()), PRESETS[name]._asdict())


def difference(ours: Tensor, theirs: Tensor) -> tuple[float, float]:
    """Share of equal labels, and mean absolute difference of the marginals."""
    agreement = (ours.argmax(1) == theirs.argmax(1)).float().mean()
    return float(agreement), float((ours - theirs).abs().mean())


# Against others


@pytest.mark.parametrize("name", PRESETS)
def test_it_agrees_with_pydensecrf(name: str, device: str) -> None:
    image = embedded_sample()[0].image[None, :, 50:230, 100:340]
    probabilities = noisy(0, 1, 3, *image.shape[2:])
    ours = DenseCRF.preset(name).to(device)(image.to(device), probabilities.to(device)).cpu()
    agreement, error = difference(ours, reference(image, probabilities, name))
    assert agreement >= 0.99
    assert error <= 0.01
    # A CRF does something.
    assert difference(probabilities, ours)[0] < 0.9


def test_it_agrees_with_pydensecrf_on_images(voc_root: Path) -> None:
    """With every preset, on parts of 20 images."""
    dataset = voc2012(voc_root, "train").subset(range(20))
    for name in PRESETS:
        found = []
        for place in range(20):
            image = dataset[place].image[None, :, 100:210, 120:260]
            probabilities = noisy(place, 1, 3, *image.shape[2:])
            ours = DenseCRF.preset(name)(image, probabilities)
            found.append(difference(ours, reference(image, probabilities, name)))
        agreement, error = torch.tensor(found).mean(0).tolist()
        assert agreement >= 0.99, name
        assert error <= 0.01, name


@pytest.mark.parametrize("name", PRESETS)
def test_it_is_as_close_to_all_pairs_as_pydensecrf(name: str) -> None:
    """Where the approximations differ; on small copies of parts of an image."""
    item = embedded_sample()[0].image[None].float()
    ours, theirs = 0.0, 0.0
    for place in range(4):
        part = item[..., :, 100 * place : 100 * place + 200]
        image = F.interpolate(part, (40, 36), mode="area").round().to(torch.uint8)
        probabilities = noisy(place, 1, 3, 40, 36)
        exact = DenseCRF(**PRESETS[name]._asdict(), exact=True)(image, probabilities)
        ours += difference(DenseCRF.preset(name)(image, probabilities), exact)[1]
        theirs += difference(reference(image, probabilities, name), exact)[1]
    assert ours <= 1.02 * theirs


def test_matrices_of_weights_agree_with_pydensecrf() -> None:
    """It adds energies where we reward, and only takes symmetric ones."""
    image, probabilities = colours(1, 1, 40, 50).to(torch.uint8), noisy(1, 1, 3, 40, 50)
    weights = torch.tensor([[4.0, 1.0, 0.0], [1.0, 3.0, -1.0], [0.0, -1.0, 5.0]])
    crf = DenseCRF(spatial_weight=0.5 * weights, bilateral_weight=weights)
    parameters = PRESETS["psa"]._asdict() | {
        "spatial_weight": -0.5 * weights.numpy(),
        "bilateral_weight": -weights.numpy(),
    }
    theirs = pydensecrf(image[0], unary_from_softmax(probabilities[0].numpy()), parameters)
    agreement, error = difference(crf(image, probabilities), theirs)
    assert agreement >= 0.99 and error <= 0.01
    assert difference(DenseCRF(spatial_weight=2, bilateral_weight=4)(image, probabilities), theirs)[1] > 0.02


def test_exact_inference_reads_as_the_formula() -> None:
    """All pairs, written with loops over the steps only, and one-sided rewards."""
    image, probabilities = colours(2, 1, 5, 6).double(), noisy(2, 1, 3, 5, 6).double()
    near, alike = torch.rand(2, 3, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    crf = DenseCRF(2, 4 * near, 5, 30, 6 * alike, steps=3, exact=True).double()
    crf.spatial_weight.copy_(4 * near), crf.bilateral_weight.copy_(6 * alike)
    row, column = torch.meshgrid(torch.arange(5.0), torch.arange(6.0), indexing="ij")
    place = torch.stack([row, column]).flatten(1).mT.double()
    shade = image[0].flatten(1).mT

    def kernel(squares: Tensor) -> Tensor:
        values = (-squares / 2).exp()
        return values / (values.sum(0) * values.sum(1)[:, None]).sqrt()

    squares = (place[:, None] - place).square().sum(-1)
    spatial, bilateral = kernel(squares / 4), kernel(squares / 25 + (shade[:, None] - shade).square().sum(-1) / 900)
    log_p = probabilities[0].flatten(1).mT.log()
    q = log_p.softmax(1)
    for _ in range(3):
        q = (log_p + 4 * spatial @ q @ near.mT + 6 * bilateral @ q @ alike.mT).softmax(1)
    expected = q.mT.view(1, 3, 5, 6)
    torch.testing.assert_close(crf(image, probabilities), expected, rtol=1e-3, atol=1e-4)


# Properties


def test_images_do_not_depend_on_their_batch(device: str) -> None:
    image, probabilities = colours(3, 3, 30, 40).to(device), noisy(3, 3, 3, 30, 40).to(device)
    crf = DenseCRF().to(device)
    together = crf(image, probabilities)
    weight = torch.ones_like(image[:, :1])
    torch.testing.assert_close(crf._infer(image, probabilities, weight), together)
    for place in range(3):
        alone = crf(image[place : place + 1], probabilities[place : place + 1])
        torch.testing.assert_close(together[place : place + 1], alone)


def test_padding_takes_no_part(device: str) -> None:
    """Images of different sizes, padded with anything."""
    image, probabilities = colours(4, 2, 30, 40).to(device), noisy(4, 2, 3, 30, 40).to(device)
    valid = torch.ones(2, 30, 40, dtype=torch.bool, device=device)
    valid[0, 20:], valid[1, :, 25:] = False, False
    padded = DenseCRF().to(device)(image, probabilities, valid)
    first = DenseCRF().to(device)(image[:1, :, :20], probabilities[:1, :, :20])
    second = DenseCRF().to(device)(image[1:, ..., :25], probabilities[1:, ..., :25])
    torch.testing.assert_close(padded[:1, :, :20], first, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(padded[1:, ..., :25], second, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(padded[0, :, 20:], probabilities[0, :, 20:], rtol=1e-4, atol=2e-5)


def test_permuted_labels_have_permuted_marginals() -> None:
    image, probabilities = colours(5, 1, 30, 40), noisy(5, 1, 4, 30, 40)
    order = [2, 0, 3, 1]
    permuted = DenseCRF()(image, probabilities[:, order])
    torch.testing.assert_close(permuted, DenseCRF()(image, probabilities)[:, order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("arguments", [{"spatial_weight": 0, "bilateral_weight": 0}, {"steps": 0}])
def test_without_weights_or_steps_probabilities_stay(arguments: dict[str, float]) -> None:
    """But for those clipped, and they are normalised."""
    probabilities = torch.tensor([[0.5, 0.3, 0.2], [0.0, 1.0, 0.0], [0.2, 0.2, 0.0]]).mT.reshape(1, 3, 1, 3)
    clipped = probabilities.clamp(1e-5, 1)
    marginals = DenseCRF(**arguments)(colours(6, 1, 1, 3), probabilities)  # type: ignore[arg-type]
    torch.testing.assert_close(marginals, clipped / clipped.sum(1, keepdim=True))


@pytest.mark.parametrize("classes", [1, 2, 7])
@pytest.mark.parametrize("size", [(1, 1), (1, 30), (20, 17)])
def test_marginals_sum_to_one(classes: int, size: tuple[int, int], device: str) -> None:
    image, probabilities = colours(7, 2, *size).to(device), noisy(7, 2, classes, *size).to(device)
    marginals = DenseCRF().to(device)(image, probabilities)
    assert marginals.shape == probabilities.shape
    torch.testing.assert_close(marginals.sum(1), torch.ones_like(marginals[:, 0]))
    if classes == 1:
        assert bool((marginals == 1).all())


def test_a_constant_image_is_smoothed() -> None:
    """With equal weights for all colours, the larger class wins."""
    probabilities = torch.full((1, 2, 20, 20), 0.6)
    probabilities[:, 0, :4] = 0.3
    probabilities[:, 1] = 1 - probabilities[:, 0]
    marginals = DenseCRF()(torch.full((1, 3, 20, 20), 128, dtype=torch.uint8), probabilities)
    assert bool((marginals.argmax(1) == 0).all())


def test_labels_follow_the_colours() -> None:
    image = colours(8, 1, 24, 32)
    truth = (image.mean(1) > 80).long()
    probabilities = torch.where(truth[:, None] == torch.tensor([[[[0]], [[1]]]]).view(1, 2, 1, 1), 0.6, 0.4)
    spoilt = probabilities.clone()
    spoilt[..., 8:14, 12:22] = 0.5
    assert torch.equal(DenseCRF()(image, spoilt).argmax(1), truth)


def test_types_of_images_and_probabilities() -> None:
    image, probabilities = colours(9, 1, 12, 14).round(), noisy(9, 1, 3, 12, 14)
    expected = DenseCRF()(image, probabilities)
    assert torch.equal(DenseCRF()(image.to(torch.uint8), probabilities), expected)
    double = DenseCRF()(image, probabilities.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(DenseCRF()(image, probabilities.half()), expected, rtol=0, atol=1e-2)


def test_it_refines_what_par_returns() -> None:
    """Whose probabilities sum to more than 1."""
    image, probabilities = colours(10, 1, 12, 14), noisy(10, 1, 3, 12, 14)
    marginals = DenseCRF()(image, PAMR("par")(image, probabilities))
    torch.testing.assert_close(marginals.sum(1), torch.ones_like(marginals[:, 0]))


# Gradients


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("matrices", [False, True])
def test_gradients_flow_to_probabilities_and_weights(exact: bool, matrices: bool) -> None:
    image, probabilities = colours(11, 2, 2, 3).double(), noisy(11, 2, 3, 2, 3).double().requires_grad_()
    crf = DenseCRF(steps=2, exact=exact)
    random = torch.rand(2, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    near, alike = (random if matrices else random[:, 0, 0]).clone().requires_grad_().unbind()

    def marginals(given: Tensor, near: Tensor, alike: Tensor) -> Tensor:
        weights = {"spatial_weight": near, "bilateral_weight": alike}
        result: Tensor = functional_call(crf, weights, (image, given))
        return result

    assert torch.autograd.gradcheck(marginals, (probabilities, near.detach().requires_grad_(), alike))


def test_weights_learn_when_asked() -> None:
    image, probabilities = colours(12, 1, 12, 14), noisy(12, 1, 3, 12, 14)
    crf = DenseCRF(steps=2)
    assert not crf(image, probabilities).requires_grad
    crf.requires_grad_()(image, probabilities)[:, 0].sum().backward()
    assert crf.spatial_weight.grad is not None and float(crf.spatial_weight.grad) != 0
    assert crf.bilateral_weight.grad is not None and float(crf.bilateral_weight.grad) != 0


# Hard labels


@pytest.mark.parametrize("confidence", [0.5, 0.7, 0.95])
def test_labels_give_the_unary_of_pydensecrf(confidence: float) -> None:
    """Its label 0 is our 255, and its other ones are one more than ours."""
    labels = torch.tensor([[[0, 1, 2], [255, 2, 255]]])
    theirs = unary_from_labels(((labels + 1) % 256).numpy(), 3, confidence, zero_unsure=True)
    ours = -label_probabilities(labels, 3, confidence).log().flatten(2)[0]
    torch.testing.assert_close(ours, torch.from_numpy(theirs))


def test_labels_of_one_class_are_certain() -> None:
    assert bool((label_probabilities(torch.tensor([[[0, 255]]]).to(torch.uint8), 1) == 1).all())
    present = torch.tensor([[True, False, True, True]])
    expected = torch.tensor([[0.7, 0.0, 0.15, 0.15], [1 / 3, 0.0, 1 / 3, 1 / 3]]).T.view(1, 4, 1, 2)
    torch.testing.assert_close(label_probabilities(torch.tensor([[[0, 255]]]), 4, present=present), expected)


@pytest.mark.parametrize(
    ("labels", "arguments", "message"),
    [
        (torch.zeros(1, 2, 2), {"number": 2}, "labels: expected integers"),
        (
            torch.zeros(2, 2).long(),
            {"number": 2},
            "labels: expected integers \\(B, H, W\\), got torch.int64 \\(2, 2\\)",
        ),
        (torch.tensor([[[0, 3, 255]]]), {"number": 3}, "labels: expected 0 to 2 or 255, got \\[3\\]"),
        (torch.tensor([[[-1]]]), {"number": 3}, "got \\[-1\\]"),
        (torch.zeros(1, 2, 2).long(), {"number": 0}, "number: expected 1 to 255 classes, got 0"),
        (torch.zeros(1, 2, 2).long(), {"number": 2, "confidence": 1.0}, "confidence: expected .*, got 1.0"),
    ],
)
def test_bad_labels_are_told(labels: Tensor, arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        label_probabilities(labels, **arguments)  # type: ignore[arg-type]


# Bad input


@pytest.mark.parametrize("module", [DenseCRF(), PAMR()])
@pytest.mark.parametrize(
    ("image", "probabilities", "message"),
    [
        (torch.zeros(1, 3, 4, 5), torch.ones(1, 2, 4, 6), "images: expected \\(1, 3, 4, 6\\) .*, got \\(1, 3, 4, 5\\)"),
        (torch.zeros(2, 3, 4, 5), torch.ones(1, 2, 4, 5), "images: expected \\(1, 3, 4, 5\\) .*, got \\(2, 3, 4, 5\\)"),
        (torch.zeros(1, 1, 4, 5), torch.ones(1, 2, 4, 5), "images: expected"),
        (torch.zeros(3, 4, 5), torch.ones(2, 4, 5), "probabilities: expected .*, got torch.float32 \\(2, 4, 5\\)"),
        (torch.zeros(1, 3, 4, 5), torch.ones(1, 2, 4, 5).long(), "probabilities: expected floating point"),
        (torch.zeros(1, 3, 4, 5), torch.ones(1, 0, 4, 5), "probabilities: .* \\(1, 0, 4, 5\\)"),
        (torch.zeros(1, 3, 4, 5), torch.full((1, 2, 4, 5), torch.nan), "probabilities: .* got nan or inf"),
        (torch.zeros(1, 3, 4, 5), torch.full((1, 2, 4, 5), torch.inf), "probabilities: .* got nan or inf"),
        (torch.zeros(1, 3, 4, 5), torch.full((1, 2, 4, 5), -0.5), "probabilities: expected values >= 0, got -0.5"),
        (torch.full((1, 3, 4, 5), 256.0), torch.ones(1, 2, 4, 5), "images: expected .* 0 to 255, got .* 256"),
        (torch.full((1, 3, 4, 5), -1.0), torch.ones(1, 2, 4, 5), "images: expected RGB from 0 to 255"),
        (torch.full((1, 3, 4, 5), torch.nan), torch.ones(1, 2, 4, 5), "images: expected RGB from 0 to 255"),
    ],
)
def test_bad_input_is_told(module: torch.nn.Module, image: Tensor, probabilities: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module(image, probabilities)


@pytest.mark.parametrize("module", [DenseCRF(steps=1), PAMR(steps=1)])
def test_an_image_from_0_to_1_is_warned_of(module: torch.nn.Module) -> None:
    image, probabilities = torch.rand(1, 3, 4, 5), torch.full((1, 2, 4, 5), 0.5)
    with pytest.warns(UserWarning, match=r"images: .* scaled to 0\.\.1"):
        module(image, probabilities)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module(255 * image, probabilities)
        module(0 * image, probabilities)


@pytest.mark.parametrize(
    "valid", [torch.ones(1, 4, 6, dtype=torch.bool), torch.ones(1, 4, 5), torch.ones(1, 1, 4, 5, dtype=torch.bool)]
)
def test_bad_masks_of_validity_are_told(valid: Tensor) -> None:
    with pytest.raises(ValueError, match="valid: expected bool \\(1, 4, 5\\), got"):
        DenseCRF()(torch.zeros(1, 3, 4, 5), torch.ones(1, 2, 4, 5), valid)


@pytest.mark.parametrize("sigma", [0, -1.0, torch.inf, torch.nan, "13"])
@pytest.mark.parametrize("name", ["spatial_sigma", "bilateral_sigma", "colour_sigma"])
def test_bad_sigmas_are_told(name: str, sigma: object) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected a finite number > 0, got {sigma!r}"):
        DenseCRF(**{name: sigma})  # type: ignore[arg-type]


@pytest.mark.parametrize("sigma", [1e-2, 1e-6, 1e-30, 1e-300])
@pytest.mark.parametrize("name", ["bilateral_sigma", "colour_sigma"])
def test_sigmas_that_are_too_small_for_a_lattice_are_told(name: str, sigma: float) -> None:
    image, probabilities = 255 * torch.rand(1, 3, 20, 3000), torch.ones(1, 2, 20, 3000)
    with pytest.raises(ValueError, match=rf"bilateral_sigma, colour_sigma: too small, got .*{sigma}.* \(features: "):
        DenseCRF(**{name: sigma})(image, probabilities)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["spatial_weight", "bilateral_weight"])
def test_bad_weights_are_told(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}: expected a number or \(2, 2\), got \(3, 3\)"):
        DenseCRF(**{name: torch.eye(3)})(torch.zeros(1, 3, 4, 5), torch.ones(1, 2, 4, 5))  # type: ignore[arg-type]


def test_bad_steps_and_presets_are_told() -> None:
    with pytest.raises(ValueError, match="steps: expected an integer >= 0, got -1"):
        DenseCRF(steps=-1)
    with pytest.raises(ValueError, match=r"name: expected one of .*deeplab.*, got 'sharp'"):
        DenseCRF.preset("sharp")
