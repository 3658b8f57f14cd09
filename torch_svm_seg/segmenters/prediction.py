"""Class probabilities of an image by a segmentation network, and maps of the classes that it is labelled with."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as transforms  # type: ignore[import-untyped]

from torch_svm_seg.cam.activation import STRIDE, ActivationMaps
from torch_svm_seg.cam.classifier import merge_views, views
from torch_svm_seg.segmenters.segmenter import Segmenter
from torch_svm_seg.tensors import resize


@torch.no_grad()
def class_probabilities(
    network: Segmenter, image: Tensor, scales: Sequence[float] = (1.0,), flip: bool = False
) -> Tensor:
    """Return the class probabilities of an image, the mean at several scales of the image and its mirror image.

    Args:
        network: A network in evaluation mode; it runs on its own device.
        image: RGB image from 0 to 255, (3, H, W).
        scales: Factors on the image's size.
        flip: Whether to use the mirror image too.

    Returns:
        Probabilities, float32 (num_classes, H, W), on the network's device.

    Raises:
        ValueError: There is no scale, or one that is not positive.

    Examples:
        >>> from torch_svm_seg.segmenters import build_segmenter
        >>> network = build_segmenter("lite:efficientnet_lite0", num_classes=21, weights="random")
        >>> class_probabilities(network, torch.zeros(3, 64, 96), scales=[0.75, 1]).shape
        torch.Size([21, 64, 96])
    """
    if not scales or not min(scales) > 0:
        raise ValueError(f"scales: expected positive numbers, got {list(scales)}")
    size, image = image.shape[-2:], image.to(network.fill)
    total = torch.zeros(network.num_classes, *size, device=image.device)
    for scale in scales:
        scaled = transforms.resize(image, [max(1, round(side * scale)) for side in size], antialias=True)
        logits = network(views(scaled, flip)).float()
        total += merge_views(resize(logits, size).softmax(1))[0]
    return total / len(scales)


def probability_maps(
    network: Segmenter,
    image: Tensor,
    present: Sequence[int],
    scales: Sequence[float] = (1.0,),
    flip: bool = True,
) -> ActivationMaps:
    """Return a network's class probabilities, among the classes present and the background, as activation maps.

    So a network that was trained on pseudo masks provides the seeds of the next ones.

    Args:
        network: A network in evaluation mode; it runs on its own device.
        image: RGB image from 0 to 255, (3, H, W).
        present: Ids of the classes in the image, from 1 up.
        scales: Factors on the image's size.
        flip: Whether to use the mirror image too.

    Returns:
        Maps of a quarter of the image's size, float32 on the network's device, with a background of their own.

    Raises:
        ValueError: No class is present, or one that the network does not know, or a scale is not positive.

    Examples:
        >>> from torch_svm_seg.segmenters import build_segmenter
        >>> network = build_segmenter("lite:efficientnet_lite0", num_classes=21, weights="random")
        >>> probability_maps(network, torch.zeros(3, 64, 96), present=[8, 15]).maps.shape
        torch.Size([2, 16, 24])
    """
    classes = tuple(sorted(set(present)))
    if not classes or classes[0] < 1 or classes[-1] >= network.num_classes:
        raise ValueError(f"present: expected class ids from 1 to {network.num_classes - 1}, got {list(present)}")
    probabilities = class_probabilities(network, image, scales, flip)[[0, *classes]]
    total = probabilities.sum(0).clamp_min(torch.finfo(probabilities.dtype).tiny)
    height, width = image.shape[-2:]
    maps = F.adaptive_avg_pool2d(probabilities / total, (math.ceil(height / STRIDE), math.ceil(width / STRIDE)))
    return ActivationMaps(classes, maps[1:], (height, width), maps[0])
