"""Refinements, one after the other."""

from collections.abc import Sequence

from torch import Tensor, nn


def refine(steps: Sequence[nn.Module], images: Tensor, probabilities: Tensor) -> Tensor:
    """Refine probabilities of which only those of the classes present take part.

    Args:
        steps: Modules that refine probabilities (B, K, H, W) by images (B, 3, H, W): ``DenseCRF``, ``PAMR``, ...
        images: RGB 0..255, (B, 3, H, W).
        probabilities: Of classes by id, (B, K, H, W); 0 at all pixels of an image for a class that it does not have.

    Returns:
        (B, K, H, W); still 0 for absent classes, which the steps saw only where another image of the batch has them.
    """
    present = probabilities.amax((2, 3), keepdim=True) > 0
    used = present.flatten(1).any(0).nonzero()[:, 0]
    refined = probabilities[:, used]
    for step in steps:
        refined = step(images, refined) * present[:, used]
        refined = refined / refined.sum(1, keepdim=True)  # those of PAR sum to 1.01^steps
    return probabilities.new_zeros(probabilities.shape).index_copy(1, used, refined.to(probabilities))
