"""New labels for the images of a batch while a network trains: each image's own SVM, on the network's own features."""

import torch
from torch import Tensor

from torch_svm_seg.data.constants import VOID
from torch_svm_seg.expansion.expander import SVMExpander
from torch_svm_seg.expansion.sampling import confident_labels
from torch_svm_seg.segmenters.segmenter import Segmenter
from torch_svm_seg.svm.svm import SVM


class OnlineLabels:
    """Labels of every N-th batch by one SVM per image, trained on the pixels that the network is surest of.

    The network's probabilities, among the classes that the image's mask has, label all pixels; of each class the same
    share, those where its probability leads the most, train the SVM on the network's current features. A class that
    would vanish keeps its labels in the mask. Labels follow from the network, the images, their masks and the seed
    alone, so a training that resumes sees the same, and each process of several labels its own images.

    Args:
        network: The network that trains, whose pretrained part has the stages.
        every: N; the batches between keep their masks.
        after: Number of steps before the first such batch, in which the network learns from the masks.
        svm: Classifier to fit to each image.
        features: Stages of the network's pretrained part, fused if there are several.
        samples_per_class: Pixels drawn from each class of an image.
        share: Share of each class's pixels that may train, > 0 to 1.
        seed: Seed of the sampled pixels.

    Raises:
        InputError: The network has no such stages.

    Examples:
        >>> from torch_svm_seg.segmenters import build_segmenter
        >>> network = build_segmenter("lite:efficientnet_lite0", num_classes=3, weights="random")
        >>> labels = OnlineLabels(network, every=2, after=100, samples_per_class=50)
        >>> images, masks = torch.rand(2, 3, 64, 64) * 255, torch.randint(0, 3, (2, 64, 64))
        >>> torch.equal(labels(99, images, [masks])[0], masks), labels(101, images, [masks])[0].shape
        (True, torch.Size([2, 64, 64]))
    """

    def __init__(
        self,
        network: Segmenter,
        every: int = 1,
        after: int = 0,
        svm: SVM | None = None,
        features: tuple[str, ...] = ("F4",),
        samples_per_class: int = 500,
        share: float = 0.7,
        seed: int = 0,
    ) -> None:
        network.check_stages(features)
        self.network, self.every, self.after, self.features, self.share = network, every, after, features, share
        self.expander = SVMExpander(svm, samples_per_class, network.num_classes, seed)

    def __call__(self, step: int, images: Tensor, labels: list[Tensor]) -> list[Tensor]:
        """Return the labels of a batch to train on, see :class:`~torch_svm_seg.training.trainer.Training`.

        Args:
            step: Number of steps done.
            images: RGB images from 0 to 255, (B, 3, H, W).
            labels: Masks, and their weights if there are any, which belong to the masks alone.
        """
        if step < self.after or (step + 1 - self.after) % self.every:
            return labels
        masks = self.label(images, labels[0])
        return [masks, *(torch.ones_like(weights) for weights in labels[1:])]

    @torch.no_grad()
    def label(self, images: Tensor, masks: Tensor) -> Tensor:
        """Label images by the network as it is.

        Args:
            images: RGB images from 0 to 255, (B, 3, H, W).
            masks: Class ids, int64 (B, H, W); 255 is no label, which stays so. They tell which classes an image has.

        Returns:
            Class ids (B, H, W). An image without a label, or all of one class to the network, keeps its mask.
        """
        training = self.network.training
        self.network.eval()
        activation = _among(self.network(images).softmax(1), masks)
        features = self.network.stages(images, self.features)
        self.network.train(training)
        regions = torch.where(masks == VOID, VOID, activation.argmax(1))
        several = [index for index, region in enumerate(regions) if len(region[region != VOID].unique()) > 1]
        # Of a network that has diverged, the loss will tell.
        if not several or not all(bool(stage.isfinite().all()) for stage in features):
            return masks
        labels = confident_labels(activation[several], self.share, regions[several])
        found = self.expander([stage[several] for stage in features], labels).masks
        relabelled = masks.clone()
        for index, mask in zip(several, found, strict=True):
            relabelled[index] = _without_losses(mask, masks[index])
        return relabelled


def _without_losses(labels: Tensor, mask: Tensor) -> Tensor:
    """Return labels (H, W) with those of the mask wherever its class would vanish, and 255 where the mask is so."""
    kept = torch.isin(mask, labels[mask != VOID])
    return torch.where((mask == VOID) | ~kept, mask, labels)


def _among(probabilities: Tensor, masks: Tensor) -> Tensor:
    """Return the probabilities (B, K, H, W) among the classes of each mask and the background; -inf for the others."""
    number = probabilities.shape[1]
    counts = torch.stack([torch.bincount(mask.flatten(), minlength=VOID + 1)[:number] for mask in masks])
    present = counts > 0
    present[:, 0] = True
    return probabilities.masked_fill(~present[:, :, None, None], -torch.inf)
