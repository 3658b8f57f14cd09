"""The expansion from uncertain labels: seeds of image-level supervision (the paper's section 3, Figure 5a)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from torch_svm_seg.expander import Expansion, SVMExpander
from torch_svm_seg.sampling import confident_labels


class SelfTraining(nn.Module):
    """Trains each image's SVM on the confident pixels of a seed, then on those of its own scores, and so on.

    The paper leaves open which of a seed's pixels train. Here it is a share of each class's region, those whose
    activation leads the most (:func:`~torch_svm_seg.sampling.confident_labels`). A class that has a region in the
    seed and loses it is given its seed back.

    Args:
        expander: Trains and applies the SVMs.
        share: Of each region's pixels that is trained on.
        rounds: SVMs to train at most; fewer if masks stop changing.

    Example:
        >>> features, activation = torch.rand(1, 8, 12, 16), torch.rand(1, 3, 48, 64)
        >>> SelfTraining(SVMExpander(samples_per_class=100))(features, activation).masks.shape
        torch.Size([1, 48, 64])
    """

    def __init__(self, expander: SVMExpander, share: float = 0.5, rounds: int = 1) -> None:
        super().__init__()
        if not 0 < share <= 1:
            raise ValueError(f"share: expected more than 0 and at most 1, got {share}")
        if rounds < 1:
            raise ValueError(f"rounds: expected at least 1, got {rounds}")
        self.expander, self.share, self.rounds = expander, share, rounds

    def forward(self, features: Tensor | Sequence[Tensor], activation: Tensor) -> Expansion:
        """Expand the seeds of a batch of images of one size.

        Args:
            features: (B, C, h, w), floating point, on any grid; or several such maps, to be fused.
            activation: Of the classes by id, background included, (B, K, H, W); -inf for a class that an image does not
                have, which no pixel then gets.

        Raises:
            ValueError: As of ``SVMExpander`` and ``confident_labels``.
        """
        seeds, scores, masks = activation.argmax(1), activation, None
        for _ in range(self.rounds):
            expansion: Expansion = self.expander(features, confident_labels(scores, self.share))
            restored = _restore_lost(expansion.masks, seeds)
            if masks is not None and torch.equal(restored, masks):
                break
            masks, scores = restored, expansion.scores
        assert masks is not None
        return expansion._replace(masks=masks)


def _restore_lost(masks: Tensor, seeds: Tensor) -> Tensor:
    """Give the classes that a seed (B, H, W) has and its mask has not their seed back."""
    masks = masks.clone()
    for mask, seed in zip(masks, seeds, strict=True):
        lost = torch.isin(seed, mask, invert=True)
        mask[lost] = seed[lost]
    return masks
