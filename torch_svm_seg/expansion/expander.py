"""The expansion: each image trains its own pixel classifier, which re-labels all of its pixels."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from torch_svm_seg.data.constants import VOID
from torch_svm_seg.expansion.arguments import check_labelled, check_labels, check_maps
from torch_svm_seg.expansion.calibration import LARGEST_SLOPE
from torch_svm_seg.expansion.interpolation import feature_maps
from torch_svm_seg.expansion.joint_fit import FittedBatch, TrainingBatch, alike, fit_together
from torch_svm_seg.expansion.labelled_pixels import LabelledPixels, joined
from torch_svm_seg.expansion.normalization import equalize_maps, z_score
from torch_svm_seg.expansion.pixel_scores import PixelScorer, score_pixels
from torch_svm_seg.expansion.sampling import PixelSample, sample_pixels
from torch_svm_seg.svm.arguments import check_count, check_seed
from torch_svm_seg.svm.slopes import likeliest_slopes
from torch_svm_seg.svm.svm import SVM
from torch_svm_seg.tensors import full_precision

_FITTED = ("mean", "rate", "slope", "channels")


class Expansion(NamedTuple):
    """The scores and masks of all pixels of a batch of images.

    Attributes:
        scores: One-vs-rest decision values, (B, K, H, W); -inf for a class that an image does not have.
        masks: Class ids, (B, H, W), long.
        sample: The pixels that trained the SVMs.

    Examples:
        >>> features, labels = torch.rand(1, 8, 12, 16), torch.randint(0, 3, (1, 48, 64))
        >>> expansion = SVMExpander(samples_per_class=100)(features, labels)
        >>> torch.equal(expansion.masks, expansion.scores.argmax(1))
        True
    """

    scores: Tensor
    masks: Tensor
    sample: PixelSample


class LabelledMaps(NamedTuple):
    """What is known about images of one size; see :meth:`SVMExpander.forward`.

    Attributes:
        features: (B, C, h, w), floating point; or several such maps.
        labels: Class ids (B, H, W), 255 where there is none.
        weights: Weight of each label, (B, H, W); None where all weigh 1.
    """

    features: Tensor | Sequence[Tensor]
    labels: Tensor
    weights: Tensor | None = None


class SVMExpander(nn.Module):
    """Fits one SVM per image on sampled labelled pixels and scores every pixel with it (the paper's section 3).

    Features are z-scored: for each image and channel, by the mean and the standard deviation over the features' own
    grid, before they are interpolated to the image's size (both are linear, so only the statistics could differ).
    The dense interpolated features of a whole image are never made. Several feature maps, each on a grid of its own,
    are fused: one SVM learns from all of them, and each weighs alike (``torch_svm_seg.expansion.normalization``).

    Args:
        svm: Settings of the classifier to fit to each image, which is a new one; by default ``SVM()``. With its
            ``gradient``, the scores' gradient with respect to the features runs through the fit too, and not only
            through the features that are scored.
        samples_per_class: Pixels drawn from each class of an image, n in the paper.
        num_classes: Number of score planes K; by default 1 + the largest class id in the labels.
        seed: Seed of the sampled pixels.
        every_pixel: Score every pixel exactly, instead of interpolating scores where neighbouring pixels agree.
        normalize: Z-score the features, and let several maps weigh alike. Without, they are taken as they are, such as
            those of a learned projection.

    Attributes (after ``fit``):
        mean, rate: What features are moved by, and multiplied by then, one number per channel.
        slope: Factor that makes logits of the scores, the one by which the trained pixels are the most likely, (1,).
        channels: Number of channels of each map.

    Examples:
        >>> features, labels = torch.rand(2, 8, 12, 16), torch.randint(0, 3, (2, 48, 64))
        >>> scores, masks, _ = SVMExpander(SVM(C=0.5), samples_per_class=100)(features, labels)
        >>> tuple(scores.shape), tuple(masks.shape)
        ((2, 3, 48, 64), (2, 48, 64))
    """

    mean: Tensor
    rate: Tensor
    slope: Tensor
    channels: Tensor

    def __init__(
        self,
        svm: SVM | None = None,
        samples_per_class: int = 2500,
        num_classes: int | None = None,
        seed: int = 0,
        every_pixel: bool = False,
        normalize: bool = True,
    ) -> None:
        super().__init__()
        if not isinstance(svm, SVM | None):
            raise ValueError(f"svm: expected an SVM, got {svm!r}")
        check_count("samples_per_class", samples_per_class)
        if num_classes is not None:
            check_count("num_classes", num_classes)
        check_seed(seed)
        self.svm = SVM() if svm is None else svm.unfitted()
        self.samples_per_class, self.num_classes = samples_per_class, num_classes
        self.seed, self.every_pixel, self.normalize = seed, every_pixel, normalize
        for name in _FITTED:
            self.register_buffer(name, None)

    def forward(self, features: Tensor | Sequence[Tensor], labels: Tensor, weights: Tensor | None = None) -> Expansion:
        """Expand the labels of a batch of images of one size, each by an SVM of its own.

        Nothing is kept: threads may share an expander.

        Args:
            features: (B, C, h, w), floating point, on any grid; or several such maps, to be fused.
            labels: Class ids (B, H, W), integer; 255 is void and trains nothing.
            weights: Weight >= 0 of each label, (B, H, W); 0 is as good as void.

        Raises:
            ValueError: Naming the argument, where shapes do not fit, ids reach ``num_classes``, features are not
                finite, or an image has no labelled pixel.
        """
        return self.expand_batches([LabelledMaps(features, labels, weights)])[0]

    def expand_batches(self, batches: Sequence[LabelledMaps]) -> list[Expansion]:
        """Expand the labels of images of several sizes; the SVMs of all images are fitted at once.

        On a GPU a fit of many images takes hardly longer than that of one.

        Args:
            batches: Images of one size each, at least one, with maps of the same channels. All are computed in the
                highest precision of any.

        Raises:
            ValueError: There are none, or their channels differ; or see :meth:`forward`.

        Examples:
            >>> sizes = [(1, 48, 64), (2, 30, 40)]
            >>> batches = [LabelledMaps(torch.rand(b, 8, 12, 16), torch.randint(0, 3, (b, h, w))) for b, h, w in sizes]
            >>> [tuple(found.masks.shape) for found in SVMExpander(samples_per_class=100).expand_batches(batches)]
            [(1, 48, 64), (2, 30, 40)]
        """
        if not batches:
            raise ValueError("batches: expected at least one, got none")
        with full_precision(batches[0].labels.device):
            ready = alike([self._training_batch(batch) for batch in batches])
            fitted = fit_together(self.svm.unfitted(), ready)
            return [
                Expansion(*self._score(svm, batch.maps, batch.size), batch.sample)
                for svm, batch in zip(fitted, ready, strict=True)
            ]

    def fit(self, features: Tensor | Sequence[Tensor], labels: Tensor, weights: Tensor | None = None) -> "SVMExpander":
        """Fit one SVM to the labelled pixels of all images, to :meth:`predict` to others; it is part of the state.

        Args:
            features: See :meth:`forward`.
            labels: See :meth:`forward`.
            weights: See :meth:`forward`.

        Examples:
            >>> expander = SVMExpander(SVM(kernel="linear"), samples_per_class=100)
            >>> expander = expander.fit(torch.rand(2, 8, 12, 16), torch.randint(0, 3, (2, 48, 64)))
            >>> expander.predict(torch.rand(5, 8, 12, 16), (30, 40)).masks.shape
            torch.Size([5, 30, 40])
        """
        return self.fit_pixels([self.pixels(features, labels, weights)])

    @torch.no_grad()
    def pixels(
        self, features: Tensor | Sequence[Tensor], labels: Tensor, weights: Tensor | None = None
    ) -> LabelledPixels:
        """Return the pixels of images of one size that would train their SVMs, for :meth:`fit_pixels`.

        Args:
            features: See :meth:`forward`.
            labels: See :meth:`forward`.
            weights: See :meth:`forward`.
        """
        maps, labels = self._checked(features, labels, weights)
        with full_precision(labels.device):
            sample, sample_weight = self._sample(labels, weights)
            weight = torch.ones_like(sample.classes, dtype=maps[0].dtype) if sample_weight is None else sample_weight
            return LabelledPixels.of(maps, sample, weight, (labels.shape[1], labels.shape[2]))

    @torch.no_grad()
    def fit_pixels(self, images: Sequence[LabelledPixels]) -> "SVMExpander":
        """Fit one SVM to the labelled pixels of images of any sizes, to :meth:`predict` to others.

        Features are z-scored by the mean and the standard deviation over the cells of all these images together, here
        and in :meth:`predict`.

        Args:
            images: What :meth:`pixels` returned.

        Raises:
            ValueError: There are none, or their channels differ.

        Examples:
            >>> expander = SVMExpander(SVM(kernel="linear"), samples_per_class=100)
            >>> large = expander.pixels(torch.rand(1, 8, 12, 16), torch.randint(0, 3, (1, 48, 64)))
            >>> small = expander.pixels(torch.rand(1, 8, 6, 6), torch.randint(0, 3, (1, 24, 24)))
            >>> expander.fit_pixels([large, small]).predict(torch.rand(1, 8, 9, 9), (36, 36)).scores.shape
            torch.Size([1, 3, 36, 36])
        """
        pixels = joined(images)
        mean, rate = pixels.normalization()
        self.mean, self.rate = (mean, rate) if self.normalize else (torch.zeros_like(mean), torch.ones_like(rate))
        self.channels = torch.tensor(pixels.channels, device=mean.device)
        x = (pixels.x - self.mean) * self.rate
        scores = self.svm.fit(x, pixels.classes, pixels.weights).decision_function(x)
        numbers = torch.searchsorted(self.svm.classes_, pixels.classes)
        self.slope = likeliest_slopes(scores.mT[None], numbers[None], LARGEST_SLOPE)
        return self

    def predict(self, features: Tensor | Sequence[Tensor], size: tuple[int, int]) -> Expansion:
        """Label all pixels of images by the SVM of :meth:`fit`; features are normalised as they were there.

        Args:
            features: (B, C, h, w), floating point, on any grid; or several such maps, as in ``fit``.
            size: Size (H, W) of the images.

        Returns:
            Scores and masks, in the precision of the fit; the sample is empty.

        Raises:
            RuntimeError: The SVM is not fitted.
            ValueError: The features are not as above, or a map is not of as many channels as in ``fit``.
        """
        if self._buffers["mean"] is None:
            raise RuntimeError("predict: call fit first")
        maps = [one.to(self.mean.dtype) for one in self._maps(features)]
        channels, expected = [one.shape[1] for one in maps], self.channels.tolist()
        if channels != expected:
            raise ValueError(f"features: expected maps of {expected} channels as in fit, got {channels}")
        none = torch.zeros(len(maps[0]), 0, dtype=torch.long, device=maps[0].device)
        parts = zip(maps, self.mean.split(channels), self.rate.split(channels), strict=True)
        with full_precision(maps[0].device):
            maps = [(one - mean.view(-1, 1, 1)) * rate.view(-1, 1, 1) for one, mean, rate in parts]
            fitted = FittedBatch(self.svm.decision, self.svm.classes_)
            return Expansion(*self._score(fitted, maps, size), PixelSample(none, none))

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *arguments: Any) -> None:
        """Make room for the normalisation of a fit before it is loaded."""
        if all(prefix + name in state_dict for name in _FITTED):
            for name in _FITTED:
                setattr(self, name, torch.empty_like(state_dict[prefix + name]))
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def _checked(
        self, features: Tensor | Sequence[Tensor], labels: Tensor, weights: Tensor | None
    ) -> tuple[list[Tensor], Tensor]:
        """Return the maps and the labels, 255 where of no weight."""
        if not labels.dtype.is_floating_point:
            labels = labels.long()  # small types could not be compared with the void id
        maps = self._maps(features)
        check_labels(labels, weights, len(maps[0]), self.num_classes)
        if weights is not None:
            labels = torch.where(weights > 0, labels, VOID)
            check_labelled(labels)
        return maps, labels

    def _maps(self, features: Tensor | Sequence[Tensor]) -> list[Tensor]:
        """Return the maps in one precision, single or double."""
        maps = feature_maps(features)
        check_maps(maps)
        dtype = torch.float64 if any(one.dtype == torch.float64 for one in maps) else torch.float32
        return [one.to(dtype) for one in maps]

    def _sample(self, labels: Tensor, weights: Tensor | None) -> tuple[PixelSample, Tensor | None]:
        """Return the pixels that train, and their weights."""
        sample = sample_pixels(labels, self.samples_per_class, self.seed)
        return sample, None if weights is None else weights.flatten(1).gather(1, sample.positions)

    def _training_batch(self, batch: LabelledMaps) -> TrainingBatch:
        """Return the normalised maps and the pixels that train."""
        maps, labels = self._checked(*batch)
        maps = equalize_maps([z_score(one) for one in maps]) if self.normalize else maps
        return TrainingBatch(maps, *self._sample(labels, batch.weights), (labels.shape[1], labels.shape[2]))

    def _score(self, svm: FittedBatch, maps: list[Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return the scores, one plane per class id, and the masks."""
        scores = score_pixels(PixelScorer(svm.decision, maps, size), self.every_pixel)
        number = self.num_classes or int(svm.classes[-1]) + 1
        planes = scores.new_full((scores.shape[0], number, *scores.shape[2:]), -torch.inf)
        return planes.index_copy(1, svm.classes, scores), svm.classes[scores.argmax(1)]
