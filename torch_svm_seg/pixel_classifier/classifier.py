"""Classifiers of pixels, shared by all images, and the class activation maps that they improve."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torch_svm_seg.backbones.backbone import Backbone
from torch_svm_seg.backbones.builder import RANDOM, load_backbone
from torch_svm_seg.backbones.several import TwoBackbones
from torch_svm_seg.cam.activation import ActivationMaps
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import PathLike
from torch_svm_seg.expansion.normalization import fused_stages
from torch_svm_seg.svm.least_squares import LinearScores
from torch_svm_seg.tensors import full_precision, resize
from torch_svm_seg.training.checkpoints import check_classes, load_network, read_checkpoint

METHOD = "pixels"
"""Name of the method in checkpoints."""

SLOPE = 8.0
"""Factor from scores, which estimate 0 or 1, to the logits of the classes."""

_TINY = 1e-9
_DROPOUT = 0.3


class PixelModel(nn.Module):
    """What other images know: the logits of classes by a backbone's features, and the posterior of maps by them.

    Args:
        backbone: Gives the features.
        stages: Its stages to use; the grid is that of the finest.
        num_classes: Number of classes, background included.
    """

    def __init__(self, backbone: Backbone, stages: Sequence[str], num_classes: int) -> None:
        super().__init__()
        self.backbone, self.stages = backbone.requires_grad_(False), tuple(stages)
        self.channels, self.num_classes = sum(backbone.channels[stage] for stage in self.stages), num_classes

    def extra_repr(self) -> str:
        """Return the parameters for the module's representation."""
        return f"stages={self.stages}, num_classes={self.num_classes}"

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.backbone.mean.device

    def logits(self, features: Tensor, classes: Sequence[int]) -> Tensor:
        """Return the logits of some classes, (..., n), from features (..., D)."""
        raise NotImplementedError

    @torch.no_grad()
    def features(self, image: Tensor) -> Tensor:
        """Return the joined features (h, w, D) of an image (3, H, W) on the grid of the finest stage."""
        stages = self.backbone.stages(image[None].to(self.device), self.stages)
        return join_maps([stages[stage] for stage in self.stages])[0].permute(1, 2, 0)

    @torch.no_grad()
    def forward(
        self, image: Tensor, activation: Tensor, classes: Sequence[int], full_size: bool = False
    ) -> ActivationMaps:
        """Return the posterior of an image's classes as maps, with a background of their own.

        Args:
            image: RGB image from 0 to 255, (3, H, W).
            activation: Activation of the classes, at least 0, (n, H, W). As probabilities, it is the prior.
            classes: Their ids, the background's 0 first.
            full_size: Return maps of the image's size, for an activation with sharp borders such as a mask's; by
                default they are on the features' grid.
        """
        features = self.features(image)
        logits, size = self.logits(features, classes), (features.shape[0], features.shape[1])
        if full_size:
            size = (image.shape[1], image.shape[2])
            logits = resize(logits.permute(2, 0, 1)[None], size)[0].permute(1, 2, 0)
        maps = posterior_of(logits, prior_on_grid(activation, size).to(logits.device)).permute(2, 0, 1)
        return ActivationMaps(tuple(classes[1:]), maps[1:], (image.shape[1], image.shape[2]), maps[0])


class PixelClassifier(PixelModel):
    """A linear classifier on a backbone's features that was fitted to the confident pixels of many images.

    Args:
        backbone: See :class:`PixelModel`, as for the others.
        stages: Stages to use.
        num_classes: Number of classes.

    Examples:
        >>> from torch_svm_seg.backbones.builder import load_backbone
        >>> classifier = PixelClassifier(load_backbone("resnet18", "random"), ["F4"], num_classes=21)
        >>> maps = classifier(torch.zeros(3, 64, 96), torch.rand(2, 64, 96), classes=[0, 8])
        >>> maps.classes, maps.maps.shape
        ((8,), torch.Size([1, 4, 6]))
    """

    weight: Tensor
    intercept: Tensor

    def __init__(self, backbone: Backbone, stages: Sequence[str], num_classes: int) -> None:
        super().__init__(backbone, stages, num_classes)
        self.register_buffer("weight", torch.zeros(self.channels, num_classes))
        self.register_buffer("intercept", torch.zeros(num_classes))

    def set(self, scores: LinearScores) -> None:
        """Take over a decision function."""
        self.weight.copy_(scores.weight)
        self.intercept.copy_(scores.intercept)

    def logits(self, features: Tensor, classes: Sequence[int]) -> Tensor:
        """Return the logits of some classes, (..., n), from features (..., D)."""
        own = list(classes)
        with full_precision(features.device):
            return SLOPE * LinearScores(self.weight[:, own], self.intercept[own])(features)


class PixelNetwork(PixelModel):
    """A network of two hidden layers on a backbone's features, which tells an image's own classes apart.

    Args:
        backbone: See :class:`PixelModel`, as for the others.
        stages: Stages to use.
        num_classes: Number of classes.
        hidden: Units of each hidden layer.

    Examples:
        >>> from torch_svm_seg.backbones.builder import load_backbone
        >>> network = PixelNetwork(load_backbone("resnet18", "random"), ["F4"], num_classes=21, hidden=32)
        >>> network(torch.zeros(3, 64, 96), torch.rand(2, 64, 96), classes=[0, 8]).maps.shape
        torch.Size([1, 4, 6])
    """

    mean: Tensor  # of the features, (D,)
    rate: Tensor  # one by their standard deviation, (D,)

    def __init__(self, backbone: Backbone, stages: Sequence[str], num_classes: int, hidden: int) -> None:
        super().__init__(backbone, stages, num_classes)
        self.register_buffer("mean", torch.zeros(self.channels))
        self.register_buffer("rate", torch.ones(self.channels))
        parts: list[nn.Module] = []
        for inputs in (self.channels, hidden):
            parts += [nn.Linear(inputs, hidden), nn.GELU(), nn.Dropout(_DROPOUT)]
        self.layers = nn.Sequential(*parts, nn.Linear(hidden, num_classes))

    def logits(self, features: Tensor, classes: Sequence[int]) -> Tensor:
        """Return the logits of some classes, (..., n), from features (..., D)."""
        with full_precision(features.device):
            logits: Tensor = self.layers((features - self.mean) * self.rate)
        return logits[..., list(classes)]


def join_maps(maps: Sequence[Tensor]) -> Tensor:
    """Return feature maps (B, C, h, w) as one of all their channels, single precision, on the grid of the finest.

    Examples:
        >>> join_maps([torch.rand(1, 8, 6, 4), torch.rand(1, 16, 3, 2)]).shape
        torch.Size([1, 24, 6, 4])
    """
    size = max((one.shape[2:] for one in maps), key=lambda grid: grid[0] * grid[1])
    return torch.cat([resize(one, size) for one in maps], 1).float()


def posterior_of(logits: Tensor, prior: Tensor) -> Tensor:
    """Return the probability of classes, (..., n), from their logits and their prior.

    A class whose prior is 0 has probability 0, and where no class has any, all are 0.

    Examples:
        >>> posterior_of(torch.tensor([0.0, 0.0, 9.0]), torch.tensor([0.75, 0.25, 0.0])).tolist()
        [0.75, 0.25, 0.0]
    """
    return normalize(logits.masked_fill(prior <= 0, -torch.inf).softmax(-1).nan_to_num(0) * prior)


def load_pixel_classifier(path: PathLike, class_names: Sequence[str] | None = None) -> PixelModel:
    """Load a pixel classifier from its checkpoint, in evaluation mode on the CPU.

    Args:
        path: Checkpoint of ``train.py pixels``.
        class_names: The classes it must be of, background first; by default any.

    Raises:
        InputError: The file cannot be read, is no checkpoint of a pixel classifier, is of other classes, or the weights
            do not fit the backbones that it names.

    Examples:
        >>> load_pixel_classifier("runs/pixels/checkpoint.pt").stages  # doctest: +SKIP
        ('F5', 'second.F5')
    """
    checkpoint = read_checkpoint(path)
    settings = checkpoint.settings
    if settings.get("method") != METHOD:
        raise InputError(f"{path}: not a checkpoint of train.py pixels (its method is {settings.get('method')})")
    check_classes(path, checkpoint, class_names)
    names = [name for name in (settings["backbone"], settings.get("second_backbone")) if name]
    networks = [load_backbone(name, RANDOM) for name in names]
    backbone = networks[0] if len(networks) == 1 else TwoBackbones(*networks)
    stages, number, hidden = fused_stages(settings["features"]), len(checkpoint.class_names), settings.get("hidden", 0)
    classifier: PixelModel = (
        PixelNetwork(backbone, stages, number, hidden) if hidden else PixelClassifier(backbone, stages, number)
    )
    return load_network(path, checkpoint, classifier, " and ".join(names))


def prior_on_grid(activation: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the activation of classes as probabilities on a grid.

    Args:
        activation: Activation of the classes, (n, H, W).
        size: Height and width of the grid.

    Returns:
        Probabilities (h, w, n); all are 0 in a cell without activation.

    Examples:
        >>> activation = torch.tensor([1.0, 3.0])[:, None, None].expand(2, 4, 4)
        >>> prior_on_grid(activation, (2, 2))[0, 0].tolist()
        [0.25, 0.75]
    """
    return normalize(F.adaptive_avg_pool2d(activation.clamp_min(0)[None], size)[0].permute(1, 2, 0).float())


def normalize(values: Tensor) -> Tensor:
    """Divide values (..., K), at least 0, by their sums; zeros stay zeros.

    Examples:
        >>> normalize(torch.tensor([[1.0, 3.0], [0.0, 0.0]])).tolist()
        [[0.25, 0.75], [0.0, 0.0]]
    """
    return values / values.sum(-1, keepdim=True).clamp_min(_TINY)
