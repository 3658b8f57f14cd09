"""Training a pixel network on masks that are mostly right."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR
from tqdm import trange

from torch_svm_seg.pixel_classifier.classifier import PixelNetwork
from torch_svm_seg.pixel_classifier.fitting import GridSamples
from torch_svm_seg.tensors import deviation, rounding

# Logit of a class that an image does not have; -inf times its target 0 would be no number.
_ABSENT = -1e4


def train_network(
    network: PixelNetwork,
    images: Sequence[GridSamples],
    steps: int = 1500,
    batch_size: int = 4096,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.05,
    seed: int = 0,
    progress: bool = False,
) -> None:
    """Train a network on the samples of images, among each image's own classes.

    The loss of a cell is the cross entropy of its prior and the softmax over the classes that its image has. So the
    network learns to tell a person from the dog beside it and from the ground, which is what it is asked later; it need
    not know whether there is a person at all, which the image's labels say.

    Args:
        network: Its weights are replaced; what they were does not matter.
        images: Samples of each image.
        steps: Updates of the network, by AdamW.
        batch_size: Cells of each, drawn with replacement; no more than there are.
        learning_rate: The largest one, in a third of the steps; before, it grows, and after, it falls to 0.
        weight_decay: Weight decay.
        seed: Seed of the weights, the batches and the dropout.
        progress: Show a progress bar on a terminal.

    Raises:
        ValueError: There are no samples at all.

    Examples:
        >>> from torch_svm_seg.backbones.builder import load_backbone
        >>> network = PixelNetwork(load_backbone("resnet18", "random"), ["F4"], num_classes=3, hidden=8)
        >>> train_network(network, [GridSamples(torch.rand(9, 256).half(), torch.rand(9, 2).half(), (0, 2))], steps=2)
    """
    if not images:
        raise ValueError("images: expected samples of at least one image, got none")
    features = torch.cat([samples.features for samples in images])
    targets = torch.cat([_targets(samples, network.num_classes) for samples in images])
    devices = [network.device] if network.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        for layer in network.layers:
            if isinstance(layer, torch.nn.Linear):
                layer.reset_parameters()
        _normalize(network, features)
        optimizer = AdamW(network.layers.parameters(), learning_rate, weight_decay=weight_decay)
        schedule = OneCycleLR(optimizer, learning_rate, steps)
        network.layers.train()
        for _ in trange(steps, desc="training", unit="step", disable=None if progress else True):
            chosen = torch.randint(len(features), (min(batch_size, len(features)),))
            optimizer.zero_grad()
            _loss(network, features[chosen], targets[chosen]).backward()
            optimizer.step()
            schedule.step()
        network.layers.eval()


def _targets(samples: GridSamples, num_classes: int) -> Tensor:
    """Return the prior of all classes, half precision, (n, num_classes); -1 for those that the image does not have."""
    targets = samples.prior.new_full((len(samples.prior), num_classes), -1)
    targets[:, list(samples.classes)] = samples.prior
    return targets


def _normalize(network: PixelNetwork, features: Tensor) -> None:
    """Have features normalised by the mean and the deviation of the samples; constant channels are 0."""
    mean, squares = features.sum(0, dtype=torch.float64) / len(features), torch.zeros(features.shape[1]).double()
    for part in features.split(2**16):
        squares += (part.double() - mean).square().sum(0)
    network.mean.copy_(mean)
    # Logits are computed in single precision.
    network.rate.copy_(1 / deviation(squares / len(features), rounding(features.abs().amax(0).double(), torch.float32)))


def _loss(network: PixelNetwork, features: Tensor, targets: Tensor) -> Tensor:
    features, targets = features.to(network.device).float(), targets.to(network.device).float()
    logits = network.logits(features, range(network.num_classes)).masked_fill(targets < 0, _ABSENT)
    return F.cross_entropy(logits, targets.clamp_min(0))
