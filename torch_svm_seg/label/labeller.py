"""Masks as quickly as one draws: features are computed once per image, the SVM is fitted after every stroke."""

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import NamedTuple

import torch
from torch import Tensor

from torch_svm_seg.backbones.backbone import Backbone
from torch_svm_seg.data.constants import VOID
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.expansion.expander import SVMExpander

CACHE_BYTES = 2**29
"""Most bytes of features that are kept: of 280 images of 500x375 with EfficientNet-Lite0, of 340 with a ViT-S/14."""


class Labelled(NamedTuple):
    """The mask of an image.

    Attributes:
        mask: Class ids, (H, W).
        margin: By how much the best score exceeds the second best, (H, W); infinite where there is one class alone.
    """

    mask: Tensor
    margin: Tensor


class FeatureCache:
    """Features of a data set's images, computed once and kept while there is room.

    Args:
        dataset: The images.
        backbone: Gives the features; on ``device``.
        stages: Names of its stages.
        device: Where to compute.
        most: Most bytes to keep.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        backbone: Backbone,
        stages: Sequence[str],
        device: torch.device,
        most: int = CACHE_BYTES,
    ) -> None:
        self._dataset, self._backbone, self._stages, self._device, self._most = dataset, backbone, stages, device, most
        self._kept: OrderedDict[int, list[Tensor]] = OrderedDict()
        self._lock, self._computing = Lock(), Lock()

    def __contains__(self, index: int) -> bool:
        return index in self._kept

    def maps(self, index: int) -> list[Tensor]:
        """Return the feature maps (1, C, h, w) of an image.

        Raises:
            InputError: The image cannot be read.
        """
        found = self._find(index)
        if found is None:
            with self._computing:  # one at a time: two would only take the cores from each other
                found = self._find(index) or self._keep(index, self._compute(index))
        return found

    @torch.inference_mode()
    def _compute(self, index: int) -> list[Tensor]:
        images = self._dataset.image(index)[None].to(self._device)
        stages = self._backbone.stages(images, self._stages)
        return [stages[name].float() for name in self._stages]

    def _find(self, index: int) -> list[Tensor] | None:
        with self._lock:
            if index in self._kept:
                self._kept.move_to_end(index)
            return self._kept.get(index)

    def _keep(self, index: int, maps: list[Tensor]) -> list[Tensor]:
        with self._lock:
            self._kept[index] = maps
            while len(self._kept) > 1 and sum(map(_bytes, self._kept.values())) > self._most:
                self._kept.popitem(last=False)
        return maps


class InteractiveLabeller:
    """Fits an image's SVM on its labelled pixels and labels all others.

    Args:
        features: Features of the images.
        expander: Fits and applies the SVM.

    Examples:
        >>> labeller = InteractiveLabeller(features, SVMExpander(SVM(kernel="linear")))  # doctest: +SKIP
        >>> labeller(0, labels).mask.shape  # doctest: +SKIP
        torch.Size([375, 500])
    """

    def __init__(self, features: FeatureCache, expander: SVMExpander) -> None:
        self.features, self.expander = features, expander

    @torch.inference_mode()
    def __call__(self, index: int, labels: Tensor) -> Labelled | None:
        """Label an image.

        Args:
            index: The image.
            labels: Class ids (H, W), 255 where there is no label.

        Returns:
            Its mask; None if no pixel is labelled.
        """
        if bool((labels == VOID).all()):
            return None
        maps = self.features.maps(index)
        expansion = self.expander(maps, labels[None].to(maps[0].device))
        best = expansion.scores[0].topk(min(2, expansion.scores.shape[1]), dim=0).values
        margin = best[0] - best[1] if len(best) == 2 else torch.full_like(best[0], torch.inf)
        return Labelled(expansion.masks[0].cpu(), margin.cpu())


def _bytes(maps: Sequence[Tensor]) -> int:
    return sum(values.numel() * values.element_size() for values in maps)
