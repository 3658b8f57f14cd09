"""Mean-field inference in a fully connected conditional random field."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from torch_svm_seg.refine.filters import ExactFilter, LatticeFilter, PositionFilter
from torch_svm_seg.refine.probabilities import checked
from torch_svm_seg.svm.arguments import check_count, check_positive
from torch_svm_seg.tensors import full_precision

# Probabilities are at least this in the unary term, as in pydensecrf's `unary_from_softmax`.
SMALLEST = 1e-5
# In standard deviations: a tile with a margin as wide has the labels of the whole image (benchmarks/tiles.py).
REACH = 3


class Parameters(NamedTuple):
    """Published parameters of a :class:`DenseCRF`.

    Examples:
        >>> PRESETS["psa"].colour_sigma
        13
    """

    spatial_sigma: float
    spatial_weight: float
    bilateral_sigma: float
    colour_sigma: float
    bilateral_weight: float


PRESETS = {
    "irn": Parameters(3, 3, 50, 5, 10),  # with hard labels of confidence 0.7
    "psa": Parameters(3, 3, 80, 13, 10),
    "pmm": Parameters(3, 10, 80, 13, 10),  # one class against the background
    "deeplab": Parameters(1, 3, 67, 3, 4),
    "afa": Parameters(3, 3, 64, 5, 4),
}


class DenseCRF(nn.Module):
    r"""Marginals of a dense CRF by mean field (Kraehenbuehl and Koltun 2011), with the conventions of pydensecrf.

    With p the given probabilities and q = softmax(log p) at first, each step is

        q <- softmax(log p + spatial_weight * (G q) + bilateral_weight * (H q)),

    where G and H are Gaussian filters over all pixels of the image (``torch_svm_seg.refine.filters``): G by position, H
    by position and colour.

    Args:
        spatial_sigma: Standard deviation of G, in pixels, > 0.
        spatial_weight: Weight of agreement along G: a number for equal labels (Potts), or a tensor (K, K) for all pairs
            of labels, the receiving one first.
        bilateral_sigma: Standard deviation of H by position, in pixels, > 0.
        colour_sigma: Standard deviation of H by colour, in units of 0 to 255, > 0.
        bilateral_weight: Weight of agreement along H, as ``spatial_weight``.
        steps: Number of steps, >= 0.
        exact: Whether to compute H from all pairs of pixels instead of a permutohedral lattice, in time and memory
            quadratic in the pixels: for checks on small images.

    The defaults are PSA's; other published sets are those of :meth:`preset`. The weights are parameters that need no
    gradient until ``requires_grad_()`` asks for one. The result is differentiable with respect to the probabilities and
    the weights, not to the images.

    Shape:
        Images (B, 3, H, W), RGB from 0 to 255, of any type; probabilities (B, K, H, W), >= 0, values over 1 count as 1;
        valid (B, H, W), bool. Result (B, K, H, W), summing to 1 over K, in single precision, or in double where the
        probabilities are.

    Examples:
        >>> images = torch.zeros(1, 3, 1, 4)
        >>> images[..., 2:] = 255
        >>> probabilities = torch.tensor([[0.9, 0.4, 0.1, 0.4]]).view(1, 1, 1, 4)
        >>> marginals = DenseCRF(spatial_weight=0)(images, torch.cat([probabilities, 1 - probabilities], 1))
        >>> marginals.argmax(1).flatten().tolist()
        [0, 0, 1, 1]
    """

    def __init__(
        self,
        spatial_sigma: float = 3,
        spatial_weight: float | Tensor = 3,
        bilateral_sigma: float = 80,
        colour_sigma: float = 13,
        bilateral_weight: float | Tensor = 10,
        steps: int = 10,
        exact: bool = False,
    ) -> None:
        super().__init__()
        sigmas = {"spatial_sigma": spatial_sigma, "bilateral_sigma": bilateral_sigma, "colour_sigma": colour_sigma}
        for name, sigma in sigmas.items():
            check_positive(name, sigma)
        check_count("steps", steps, at_least=0)
        self.spatial_sigma, self.bilateral_sigma, self.colour_sigma = spatial_sigma, bilateral_sigma, colour_sigma
        self.spatial_weight, self.bilateral_weight = _parameter(spatial_weight), _parameter(bilateral_weight)
        self.steps, self.exact = steps, exact

    @classmethod
    def preset(cls, name: str) -> "DenseCRF":
        """Return a CRF with published parameters: "irn", "psa", "pmm", "deeplab" or "afa".

        Raises:
            ValueError: There is no such name.
        """
        if name not in PRESETS:
            raise ValueError(f"name: expected one of {tuple(PRESETS)}, got {name!r}")
        return cls(**PRESETS[name]._asdict())

    @property
    def reach(self) -> int:
        """Distance in pixels beyond which pixels have next to no influence on each other."""
        return math.ceil(REACH * max(self.spatial_sigma, self.bilateral_sigma))

    def extra_repr(self) -> str:
        """Return the parameters for the module's representation."""
        return (
            f"spatial_sigma={self.spatial_sigma}, bilateral_sigma={self.bilateral_sigma}, "
            f"colour_sigma={self.colour_sigma}, steps={self.steps}"
        )

    def forward(self, images: Tensor, probabilities: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the marginals of a batch of images.

        Args:
            images: See the class.
            probabilities: See the class.
            valid: False where an image is padding, which takes no part: images of different sizes are padded to one.
                There the result is the normalised probabilities.

        Raises:
            ValueError: Shapes do not match, values are out of range, or the bilateral sigmas are too small.
        """
        images, probabilities = checked(images, probabilities)
        classes = probabilities.shape[1]
        for name, weight in self.named_parameters():
            if weight.shape not in ((), (classes, classes)):
                raise ValueError(f"{name}: expected a number or {(classes, classes)}, got {tuple(weight.shape)}")
        present = _checked_valid(valid, probabilities)[:, None].to(probabilities)
        # On a CPU, one image after the other stays closer to the caches.
        together = 1 if images.device.type == "cpu" else len(images)
        parts = zip(*(tensor.split(together) for tensor in (images, probabilities, present)), strict=True)
        with full_precision(images.device):
            return torch.cat([self._infer(*part) for part in parts])

    def _infer(self, images: Tensor, probabilities: Tensor, weight: Tensor) -> Tensor:
        spatial = PositionFilter(self.spatial_sigma, weight)
        bilateral = self._bilateral_filter(images, weight)
        unary = probabilities.clamp(SMALLEST, 1).log()
        marginals = unary.softmax(1)
        for _ in range(self.steps):
            near = _reward(self.spatial_weight, spatial(marginals))
            rows = bilateral(marginals.permute(0, 2, 3, 1).flatten(0, 2).contiguous())
            alike = _reward(self.bilateral_weight, rows.unflatten(0, weight[:, 0].shape).permute(0, 3, 1, 2))
            marginals = (unary + near + alike).softmax(1)
        return marginals

    def _bilateral_filter(self, images: Tensor, weight: Tensor) -> ExactFilter | LatticeFilter:
        number, row, column = torch.ones_like(weight[:, 0]).nonzero(as_tuple=True)
        position = torch.stack([column, row]).to(images) / self.bilateral_sigma
        colour = images.transpose(0, 1).flatten(1) / self.colour_sigma
        kind: type[ExactFilter | LatticeFilter] = ExactFilter if self.exact else LatticeFilter
        try:
            return kind(torch.cat([position, colour]), number, weight.flatten())
        except ValueError as error:
            given = f"{self.bilateral_sigma} and {self.colour_sigma}"
            raise ValueError(f"bilateral_sigma, colour_sigma: too small, got {given} ({error})") from error


def _checked_valid(valid: Tensor | None, probabilities: Tensor) -> Tensor:
    expected = probabilities[:, 0].shape
    if valid is None:
        return torch.ones(expected, dtype=torch.bool, device=probabilities.device)
    if valid.shape != expected or valid.dtype != torch.bool:
        raise ValueError(f"valid: expected bool {tuple(expected)}, got {valid.dtype} {tuple(valid.shape)}")
    return valid


def _parameter(weight: float | Tensor) -> nn.Parameter:
    return nn.Parameter(torch.as_tensor(weight, dtype=torch.get_default_dtype()).clone(), requires_grad=False)


def _reward(weight: Tensor, messages: Tensor) -> Tensor:
    """Return messages (B, K, H, W) times their weight for each label."""
    weight = weight.to(messages)
    return weight * messages if weight.dim() == 0 else torch.einsum("lk,bkhw->blhw", weight, messages)
