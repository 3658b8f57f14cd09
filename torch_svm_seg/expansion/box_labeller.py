"""The expansion of boxes: rounds of SVMs, as GrabCut (Rother et al., SIGGRAPH 2004) has rounds of mixtures."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from torch_svm_seg.expansion.calibration import calibrated
from torch_svm_seg.expansion.expander import Expansion, LabelledMaps, SVMExpander
from torch_svm_seg.expansion.labelling import KnownImages, Labelling, label, seeds_of
from torch_svm_seg.svm.arguments import check_count


class BoxLabeller(nn.Module):
    """Labels the pixels in boxes by SVMs, each trained on the masks of the one before it.

    The first SVM learns the boxes as if they were filled: those of their pixels that look like what is outside of all
    boxes become background, and the next one learns without them. No class gets pixels outside of its boxes. A class
    that would lose all its pixels keeps its boxes.

    Args:
        expander: Trains and applies the SVMs.
        rounds: SVMs to train at most; fewer if masks stop changing.

    Examples:
        >>> images, features = torch.zeros(1, 3, 8, 8), torch.rand(1, 4, 4, 4)
        >>> activation = torch.zeros(1, 2, 8, 8)
        >>> activation[0, 1] = -torch.inf
        >>> activation[0, 1, 2:6, 2:6] = 1  # a box of class 1
        >>> BoxLabeller(SVMExpander(samples_per_class=10))(images, features, activation).masks.shape
        torch.Size([1, 8, 8])
    """

    def __init__(self, expander: SVMExpander, rounds: int = 3) -> None:
        super().__init__()
        check_count("rounds", rounds)
        self.expander, self.rounds = expander, rounds

    def forward(self, images: Tensor, features: Tensor | Sequence[Tensor], activation: Tensor) -> Labelling:
        """Label the pixels of a batch of images of one size.

        Args:
            images: RGB 0..255, (B, 3, H, W).
            features: (B, C, h, w), floating point, on any grid; or several such maps, to be fused.
            activation: Of the classes by id, background included, (B, K, H, W); -inf where a class cannot be. Its
                largest is the label that the first SVM learns.
        """
        return self.label_batches([KnownImages(images, features, activation)])[0]

    def label_batches(self, batches: Sequence[KnownImages]) -> list[Labelling]:
        """Label the pixels of images of several sizes, whose SVMs are fitted at once; see :meth:`forward`."""
        filled = [seeds_of(batch.known) for batch in batches]
        labels, labellings = filled, []
        for _ in range(self.rounds):
            maps = [LabelledMaps(batch.features, own) for batch, own in zip(batches, labels, strict=True)]
            expansions = self.expander.expand_batches(maps)
            parts = zip(expansions, batches, filled, strict=True)
            labellings = [_in_boxes(expansion, batch.known, boxes) for expansion, batch, boxes in parts]
            masks = [labelling.masks for labelling in labellings]
            if all(map(torch.equal, masks, labels)):
                break
            labels = masks
        return labellings

    def training_labels(self, images: Tensor, activation: Tensor) -> Tensor:
        """Return the labels that the first SVM learns, class ids (B, H, W): the boxes, filled."""
        return seeds_of(activation)


def _in_boxes(expansion: Expansion, activation: Tensor, filled: Tensor) -> Labelling:
    """Return the labels of an expansion where classes can be, but of a class that lost all pixels its boxes."""
    planes = expansion.scores.new_full(activation.shape, -torch.inf)
    planes[:, : expansion.scores.shape[1]] = expansion.scores[:, : activation.shape[1]]
    possible = activation > -torch.inf
    return label(_as_shares(calibrated(planes, expansion.sample) * possible), filled)


def _as_shares(probabilities: Tensor) -> Tensor:
    """Return probabilities (B, K, H, W) divided by their sum; the background's is 1 where all are 0."""
    total = probabilities.sum(1, keepdim=True)
    rest = torch.zeros_like(probabilities)
    rest[:, 0] = 1
    return torch.where(total > 0, probabilities / total.clamp_min(torch.finfo(total.dtype).tiny), rest)
