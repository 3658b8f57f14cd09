"""The expansion from uncertain labels: seeds of image-level supervision (the paper's section 3, Figure 5a)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torch_svm_seg.data.constants import VOID
from torch_svm_seg.expansion.calibration import calibrated, held_out
from torch_svm_seg.expansion.expander import Expansion, LabelledMaps, SVMExpander
from torch_svm_seg.expansion.labelling import KnownImages, Labelling, as_probabilities, label, seeds_of
from torch_svm_seg.expansion.sampling import confident_labels
from torch_svm_seg.refine.steps import refine
from torch_svm_seg.svm.arguments import check_count


class _Trained(NamedTuple):
    """The results of trained SVMs: labels, and scores (B, K, H, W)."""

    labelling: Labelling
    scores: Tensor


class SelfTraining(nn.Module):
    """The training of each image's SVM on the most confident pixels of a seed, then of its own labels, and so on.

    The paper trains on the pixels that the activation maps, the seed and shallow features agree on, without giving the
    rule. Here ``agreement`` first fits the seed to the shallowest feature of all, colour: its labels are the regions of
    which a share is trained on, the pixels whose activation speaks most clearly for their region
    (:func:`~torch_svm_seg.expansion.sampling.confident_labels`). A class that has pixels in the seed and would lose
    them keeps its seed, here and in the result.

    Args:
        expander: Expander that fits and applies the SVMs.
        agreement: Refinement of probabilities (B, K, H, W) by images (B, 3, H, W), such as ``refine.DenseCRF``; None
            leaves the regions as they are in the seed.
        share: Share of each region's pixels to train on, > 0 to 1.
        rounds: Number of SVMs to train at most; fewer if masks stop changing.
        prior: Multiply the probabilities of the last SVM by those of the seed, for a seed that knows something which
            the SVM's features do not.

    Examples:
        >>> images, features, activation = torch.zeros(1, 3, 48, 64), torch.rand(1, 8, 12, 16), torch.rand(1, 3, 48, 64)
        >>> SelfTraining(SVMExpander(samples_per_class=100))(images, features, activation).masks.shape
        torch.Size([1, 48, 64])
    """

    def __init__(
        self,
        expander: SVMExpander,
        agreement: nn.Module | None = None,
        share: float = 0.7,
        rounds: int = 1,
        prior: bool = False,
    ) -> None:
        super().__init__()
        if not 0 < share <= 1:
            raise ValueError(f"share: expected more than 0 and at most 1, got {share}")
        check_count("rounds", rounds)
        self.expander, self.agreement, self.share = expander, agreement, share
        self.rounds, self.prior = rounds, prior

    def forward(self, images: Tensor, features: Tensor | Sequence[Tensor], activation: Tensor) -> Labelling:
        """Expand the seeds of a batch of images of one size.

        Args:
            images: RGB 0..255, (B, 3, H, W).
            features: (B, C, h, w), floating point, on any grid; or several such maps, to be fused.
            activation: Activation of the classes by id, background included, (B, K, H, W); -inf for a class
                that an image does not have, which no pixel then gets.

        Raises:
            ValueError: The activation holds nan or +inf; see also ``SVMExpander`` and ``confident_labels``.
        """
        return self.label_batches([KnownImages(images, features, activation)])[0]

    def label_batches(self, batches: Sequence[KnownImages]) -> list[Labelling]:
        """Expand the seeds of images of several sizes, whose SVMs are fitted at once; see :meth:`forward`."""
        if any(not bool((batch.known < torch.inf).all()) for batch in batches):
            raise ValueError("activation: expected numbers, or -inf for absent classes, got nan or inf")
        seeds = [seeds_of(batch.known) for batch in batches]
        found = self._train(batches, [self.training_labels(batch.images, batch.known) for batch in batches], seeds)
        settled = [torch.zeros(len(own), dtype=torch.bool, device=own.device) for own in seeds]
        for _ in range(1, self.rounds):
            labels = [self._surest(*image) for image in zip(batches, found, seeds, strict=True)]
            new = self._train(batches, labels, seeds)
            for done, before, now in zip(settled, found, new, strict=True):
                # An image whose mask has settled keeps it, however long others of its batch go on.
                done |= (now.labelling.masks == before.labelling.masks).flatten(1).all(1)
            if all(bool(done.all()) for done in settled):
                break
            found = [
                _Trained(_unless(done, before.labelling, now.labelling), now.scores)
                for done, before, now in zip(settled, found, new, strict=True)
            ]
        return [self._result(*image) for image in zip(batches, found, seeds, strict=True)]

    def _train(self, batches: Sequence[KnownImages], labels: list[Tensor], seeds: list[Tensor]) -> list[_Trained]:
        """Expand labels, 255 where not confident, by one fit."""
        maps = [LabelledMaps(batch.features, own) for batch, own in zip(batches, labels, strict=True)]
        expansions = self.expander.expand_batches(maps)
        return [
            self._trained(*image)
            for image in zip(expansions, labels, seeds, [batch.known.shape[1] for batch in batches], strict=True)
        ]

    def _trained(self, expansion: Expansion, labels: Tensor, seeds: Tensor, number: int) -> _Trained:
        # The expander's planes end at its own number of classes, or at the last class that trained.
        scores = F.pad(
            expansion.scores[:, :number], (0, 0, 0, 0, 0, max(number - expansion.scores.shape[1], 0)), value=-torch.inf
        )
        sample = held_out(labels, expansion.sample, self.expander.seed)
        return _Trained(label(calibrated(scores, sample), seeds), scores)

    def _surest(self, batch: KnownImages, found: _Trained, seeds: Tensor) -> Tensor:
        """Return the labels that the next SVM learns, 255 where not confident."""
        labelling = found.labelling
        regions = self._regions(batch.images, labelling.probabilities, labelling.masks, seeds)
        return confident_labels(found.scores, self.share, regions)

    def _result(self, batch: KnownImages, found: _Trained, seeds: Tensor) -> Labelling:
        if not self.prior:
            return found.labelling
        product = found.labelling.probabilities * as_probabilities(batch.known)
        return label(as_probabilities(torch.where(batch.known > -torch.inf, product, -torch.inf)), seeds)

    def training_labels(self, images: Tensor, activation: Tensor) -> Tensor:
        """Return the pixels that the first SVM may train on: class ids (B, H, W), and 255 where not confident.

        Args:
            images: RGB 0..255, (B, 3, H, W).
            activation: See :meth:`forward`.
        """
        seeds = seeds_of(activation)
        regions = self._regions(images, as_probabilities(activation), seeds, seeds)
        return confident_labels(activation, self.share, regions)

    def _regions(self, images: Tensor, probabilities: Tensor, masks: Tensor, seeds: Tensor) -> Tensor:
        """Return the class of each pixel as the agreement has it, 255 where the mask has none."""
        if self.agreement is None:
            return masks
        agreed = label(refine([self.agreement], images, probabilities), seeds).masks
        return torch.where(masks == VOID, VOID, agreed)


def _unless(settled: Tensor, labelling: Labelling, found: Labelling) -> Labelling:
    """Return what is found, but for the images that have settled, (B,)."""
    masks = torch.where(settled[:, None, None], labelling.masks, found.masks)
    probabilities = torch.where(settled[:, None, None, None], labelling.probabilities, found.probabilities)
    pairs = zip(settled.tolist(), labelling.restored, found.restored, strict=True)
    return Labelling(masks, probabilities, tuple(before if done else now for done, before, now in pairs))
