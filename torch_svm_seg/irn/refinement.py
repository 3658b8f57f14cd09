"""Refinement of class probabilities by a random walk that stops at learned class boundaries."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torch_svm_seg.cam.activation import ActivationMaps
from torch_svm_seg.expansion.labelling import present_classes
from torch_svm_seg.irn.network import STRIDE, IRNet
from torch_svm_seg.irn.paths import Paths
from torch_svm_seg.irn.walk import RandomWalk
from torch_svm_seg.refine.probabilities import checked
from torch_svm_seg.svm.arguments import check_count
from torch_svm_seg.tensors import full_precision

_TINY = 1e-12


class IRNRefinement(nn.Module):
    """The random walk of IRN (Ahn et al., CVPR 2019, section 5.1).

    Probabilities to a power, times (1 - boundary), walk over the cells of a quarter of the image's size, and are
    interpolated back and normalised. The background walks like a class, as in SIPE (Chen et al., CVPR 2022), whose
    exponent is 1.5. IRN itself, with an exponent of 1, gives the background a threshold of 0.25 after the walk.

    Args:
        network: Network that finds the boundaries.
        radius: Cells nearer than this are neighbours, in cells.
        power: Power of the affinities, positive.
        steps: Number of steps of the walk, at least 0.
        exponent: Power of the probabilities, positive.
        threshold: Background after the walk, as a share of the largest value that a class has in the image; the
            background's probabilities are ignored then. By default the background walks.

    Shape:
        As :class:`~torch_svm_seg.refine.DenseCRF`: images (B, 3, H, W), RGB from 0 to 255, of any type; probabilities
        (B, K, H, W), >= 0, background first; they need not sum to 1, a pixel counts by their sum. Result
        (B, K, H, W), summing to 1 over K. It is differentiable with respect to the probabilities.

    Examples:
        >>> from torch_svm_seg.backbones.builder import load_backbone
        >>> refinement = IRNRefinement(IRNet(load_backbone("resnet18", "random")))
        >>> refinement(torch.zeros(1, 3, 32, 48), torch.rand(1, 2, 32, 48)).shape
        torch.Size([1, 2, 32, 48])
    """

    def __init__(
        self,
        network: IRNet,
        radius: int = 5,
        power: float = 10,
        steps: int = 256,
        exponent: float = 1.5,
        threshold: float | None = None,
    ) -> None:
        super().__init__()
        check_count("steps", steps, at_least=0)
        for name, value in (("power", power), ("exponent", exponent)):
            if not value > 0:
                raise ValueError(f"{name}: expected a number > 0, got {value}")
        if threshold is not None and not 0 < threshold < 1:
            raise ValueError(f"threshold: expected a number > 0 and < 1, got {threshold}")
        self.network = network
        self.paths, self.power, self.steps = Paths(radius), power, steps
        self.exponent, self.threshold = exponent, threshold

    def extra_repr(self) -> str:
        """Return the parameters for the module's representation."""
        walk = f"radius={self.paths.radius}, power={self.power}, steps={self.steps}"
        return f"{walk}, exponent={self.exponent}, threshold={self.threshold}"

    def forward(self, images: Tensor, probabilities: Tensor) -> Tensor:
        """Return refined probabilities.

        Raises:
            ValueError: Shapes do not match or values are out of range.
        """
        images, probabilities = checked(images, probabilities)
        with torch.no_grad():
            boundary = self.network.boundary(images).to(probabilities)
        with full_precision(images.device):
            walk = RandomWalk(boundary, self.paths, self.power)
            start = _on_cells(probabilities) ** self.exponent * (1 - boundary[:, None])
            walked = walk(start, self.steps).clamp_min(0)  # the polynomials' error may be negative
            result = _on_pixels(walked, probabilities.shape[-2:]) + _TINY
            if self.threshold is not None:
                largest = result[:, 1:].amax((1, 2, 3), keepdim=True)
                result = torch.cat([self.threshold * largest.expand_as(result[:, :1]), result[:, 1:]], 1)
            return result / result.sum(1, keepdim=True)


@torch.no_grad()
def refine_activation(refinement: IRNRefinement, image: Tensor, activation: Tensor) -> ActivationMaps:
    """Refine the activation of all classes in an image.

    Args:
        refinement: Refinement on any device.
        image: RGB image from 0 to 255, (3, H, W).
        activation: Activation by class id, background included, at least 0, (K, H, W); -inf for absent classes.

    Returns:
        Probabilities of the classes present and the background, on the cells of a quarter of the image's size.

    Examples:
        >>> from torch_svm_seg.backbones.builder import load_backbone
        >>> refinement = IRNRefinement(IRNet(load_backbone("resnet18", "random")))
        >>> activation = torch.full((21, 32, 48), -torch.inf)
        >>> activation[[0, 8]] = torch.rand(2, 32, 48)
        >>> maps = refine_activation(refinement, torch.zeros(3, 32, 48), activation)
        >>> maps.classes, maps.maps.shape
        ((8,), torch.Size([1, 8, 12]))
    """
    device = next(refinement.parameters()).device
    present = present_classes(activation)
    refined = _on_cells(refinement(image[None].to(device), activation[present][None].to(device)))[0]
    height, width = image.shape[1:]
    return ActivationMaps(tuple(present[1:].tolist()), refined[1:], (height, width), refined[0])


def _on_cells(values: Tensor) -> Tensor:
    """Return the means over the pixels of each cell, (B, K, ceil(H / 4), ceil(W / 4))."""
    below, right = (-side % STRIDE for side in values.shape[-2:])
    return F.avg_pool2d(F.pad(values, (0, right, 0, below), mode="replicate"), STRIDE)


def _on_pixels(values: Tensor, size: torch.Size) -> Tensor:
    """Return values of cells interpolated to pixels, (B, K, H, W)."""
    height, width = size
    whole = F.interpolate(values, scale_factor=STRIDE, mode="bilinear")
    return whole[..., :height, :width]
