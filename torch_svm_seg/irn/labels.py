"""Labels that a boundary can be learned from: sure ones only, the same under two opinions of the background."""

import torch
from torch import Tensor

from torch_svm_seg.labelling import present_classes
from torch_svm_seg.refine import DenseCRF
from torch_svm_seg.refine.labels import label_probabilities
from torch_svm_seg.sampling import VOID


@torch.no_grad()
def sure_labels(image: Tensor, activation: Tensor, factor: float = 0.5, crf: DenseCRF | None = None) -> Tensor:
    """Labels pixels by activation, and leaves out those whose label depends on how strong the background is.

    Each pixel goes to the strongest class, once with the background as it is and once with a weaker one; a dense CRF
    refines both labellings, with a confidence of 0.7 in each label. Where they agree, the pixel is sure. SIPE's recipe
    is its own background and half of it; IRN's is a constant of 0.30 and one of 0.05, a factor of 1/6. (There, pixels
    that the two labellings give to different objects keep the first one's; here they are not sure.)

    Args:
        image: RGB 0..255 of shape (B, 3, H, W).
        activation: of the classes present, background first, at least 0: maps, or probabilities of any classifier,
            (B, K, H, W).
        factor: of the weaker background, from 0 to 1.
        crf: refines labels; by default ``DenseCRF.preset("irn")``.

    Returns:
        Channels of the activation (B, H, W), int64, 255 where not sure.

    Raises:
        ValueError: naming the argument, where shapes do not match or values are not as above.
    """
    if not 0 <= factor <= 1:
        raise ValueError(f"factor: expected 0 to 1, got {factor}")
    crf = crf or DenseCRF.preset("irn")
    weaker = activation.clone()
    weaker[:, 0] *= factor
    first, second = (_refined(image, maps.argmax(1), maps.shape[1], crf) for maps in (activation, weaker))
    return torch.where(first == second, first, VOID)


def label_by_activation(image: Tensor, activation: Tensor, factor: float = 0.5) -> Tensor:
    """Labels an image by the activation of all classes.

    Args:
        image: RGB 0..255 of shape (3, H, W).
        activation: by class id, background included, at least 0, (K, H, W); -inf for absent classes.
        factor: as of :func:`sure_labels`.

    Returns:
        Class ids (H, W), int64, 255 where not sure.
    """
    present = present_classes(activation)
    channels = sure_labels(image[None], activation[present][None], factor)[0]
    return torch.where(channels == VOID, VOID, present[channels.clamp_max(len(present) - 1)])


def _refined(image: Tensor, labels: Tensor, number: int, crf: DenseCRF) -> Tensor:
    marginals: Tensor = crf(image, label_probabilities(labels, number))
    return marginals.argmax(1)
