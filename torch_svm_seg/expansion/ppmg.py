"""The pseudo masks of PMM, the closest published expansion that needs one image alone, for comparison."""

import torch
from torch import Tensor, nn

from torch_svm_seg.expansion.labelling import Labelling
from torch_svm_seg.refine import DenseCRF
from torch_svm_seg.refine.probabilities import label_probabilities

_ACTIVE = 0.05  # activation that counts for the variation of a map
_SMOOTHING = 0.3
_EXPONENT = 24
_THRESHOLD = 0.5


class PPMG(nn.Module):
    """Proportional pseudo-mask generation with coefficient of variation smoothing (Li et al., ICCV 2021).

    Each class's map is smoothed by its coefficient of variation, ``map ** (1 - 0.3 * deviation / mean)``, and fitted to
    the image by a dense CRF against the background ``(1 - map) ** 24``. Where the masks of several classes meet, the
    one whose smoothed map is larger relative to its sum in its mask wins.

    Examples:
        >>> activation = torch.rand(1, 21, 32, 48)
        >>> PPMG()(torch.zeros(1, 3, 32, 48), activation).masks.shape
        torch.Size([1, 32, 48])
    """

    def __init__(self) -> None:
        super().__init__()
        self.crf = DenseCRF.preset("pmm")

    def forward(self, images: Tensor, activation: Tensor) -> Labelling:
        """Label the pixels of a batch of images of one size.

        Args:
            images: RGB images from 0 to 255, (B, 3, H, W).
            activation: Activation of the classes by id, (B, K, H, W); -inf for a class that an image does not have. The
                background's is not used: the method has its own rule for it.
        """
        masks = torch.stack([self._mask(*pair) for pair in zip(images, activation, strict=True)])
        present = (activation > -torch.inf).flatten(2).any(2)
        present[:, 0] = True
        return Labelling(masks, label_probabilities(masks, activation.shape[1], present=present))

    def _mask(self, image: Tensor, activation: Tensor) -> Tensor:
        """Return the class ids (H, W) of one image."""
        present = [id for id in range(1, len(activation)) if bool((activation[id] > -torch.inf).any())]
        importance = torch.zeros_like(activation)
        for id in present:
            smoothed = smooth(activation[id])
            binary = torch.stack([(1 - smoothed) ** _EXPONENT, smoothed])
            mask = self.crf(image[None], binary[None])[0, 1] > _THRESHOLD
            importance[id] = mask * smoothed / (1 + (mask * smoothed).sum())
        return importance.argmax(0)


def smooth(map: Tensor) -> Tensor:
    """Return a class's activation (H, W), 0 to 1, raised by its coefficient of variation where it is more than 0.05.

    Examples:
        >>> smooth(torch.tensor([[0.04, 0.2, 0.6]]))
        tensor([[0.0648, 0.2546, 0.6478]])
    """
    active = map[map > _ACTIVE]
    if not len(active):
        return map.clamp(0, 1)
    variation = active.std(correction=0) / active.mean()
    return map.clamp(0, 1) ** (1 - _SMOOTHING * variation)
