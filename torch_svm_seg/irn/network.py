"""IRNet: where class boundaries are, and where each pixel's object is centred (Ahn et al., CVPR 2019).

Two branches of 1x1 convolutions read the stages of a frozen backbone; both come out at a quarter of the image's size.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torch_svm_seg.backbones.backbone import Backbone
from torch_svm_seg.irn.losses import pair_losses
from torch_svm_seg.irn.paths import Paths
from torch_svm_seg.tensors import full_precision, resize, seeded
from torch_svm_seg.training.trainable import Trainable

STRIDE = 4
"""Side of the image square that a cell of the output stands for, in pixels."""

_BOUNDARY_CHANNELS = 32
_SHALLOW_CHANNELS, _DEEP_CHANNELS = {2: 64, 4: 128}, 256
_MERGED_STRIDE = 8


class IRNet(Trainable):
    """The network.

    The boundary branch reduces each stage to 32 channels, joins them and makes one of them. The displacement branch
    joins the deep stages first, then the shallow ones, with 64 channels from stride 2, 128 from stride 4 and 256 from
    deeper stages. The stage of stride 2 is max-pooled to stride 4, as the ResNet does behind it.

    Args:
        backbone: gives the features; it is frozen, and stays in evaluation mode.
        seed: of the branches' weights.
        radius: pairs of cells nearer than this train the branches.

    Attributes:
        displacement_mean: what :meth:`forward` takes off the displacement in evaluation, (2,); the training's end sets
            it to the mean over all images, since the losses see differences only.

    >>> from torch_svm_seg.backbones.builder import load_backbone
    >>> boundary, displacement = IRNet(load_backbone("resnet18", "random"))(torch.zeros(1, 3, 64, 96))
    >>> boundary.shape, displacement.shape
    (torch.Size([1, 16, 24]), torch.Size([1, 2, 16, 24]))
    """

    loss_names = ("affinity", "displacement")
    largest_gradient = None
    displacement_mean: Tensor

    def __init__(self, backbone: Backbone, seed: int = 0, radius: int = 10) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        self.paths = Paths(radius)
        strides = {name: backbone.strides[name] for name in backbone.stage_names[1:]}
        self._shallow = [name for name, stride in strides.items() if stride < _MERGED_STRIDE]
        self._deep = [name for name in strides if name not in self._shallow]
        if not self._deep:
            raise ValueError(f"backbone: expected a stage of stride {_MERGED_STRIDE} or more, got {strides}")
        channels = backbone.channels
        # The weights come from PyTorch's generator, and leave it as it was.
        with seeded(seed):
            self.boundary_layers = nn.ModuleDict({n: _layer(channels[n], _BOUNDARY_CHANNELS, 4) for n in strides})
            self.boundary_head = nn.Conv2d(_BOUNDARY_CHANNELS * len(strides), 1, 1)
            widths = {name: _SHALLOW_CHANNELS.get(stride, _DEEP_CHANNELS) for name, stride in strides.items()}
            self.displacement_layers = nn.ModuleDict({n: _layer(channels[n], w, _groups(w)) for n, w in widths.items()})
            deep, shallow = (sum(widths[name] for name in names) for names in (self._deep, self._shallow))
            self.deep_layer = _layer(deep, _DEEP_CHANNELS, _groups(_DEEP_CHANNELS))
            self.merged_layer = _layer(shallow + _DEEP_CHANNELS, _DEEP_CHANNELS, _groups(_DEEP_CHANNELS))
            self.displacement_head = nn.Conv2d(_DEEP_CHANNELS, 2, 1, bias=False)
        self.register_buffer("displacement_mean", torch.zeros(2))

    def train(self, mode: bool = True) -> "IRNet":
        """Switches the branches to training or evaluation."""
        super().train(mode)
        self.backbone.eval()
        return self

    def parameter_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """Gives what is trained, with a factor on its learning rate: 1 for boundaries, 10 for displacements."""
        boundary = [*self.boundary_layers.parameters(), *self.boundary_head.parameters()]
        of_boundary = {id(parameter) for parameter in boundary}
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return [(boundary, 1.0), ([parameter for parameter in trained if id(parameter) not in of_boundary], 10.0)]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Gives boundaries and displacements.

        Args:
            images: RGB 0..255 of shape (B, 3, H, W).

        Returns:
            The strength of the class boundary from 0 to 1, (B, h, w), h = ceil(H / 4), w = ceil(W / 4); and the way to
            the object's centre in cells, rows down and columns right, (B, 2, h, w).
        """
        grid = _grid(images)
        stages = self._stages(self._padded(images))
        displacement = _cut(self._displacement(stages), grid)
        if not self.training:
            displacement = displacement - self.displacement_mean[:, None, None]
        return _cut(self._boundary_logits(stages), grid).sigmoid(), displacement

    def boundary(self, images: Tensor) -> Tensor:
        """Gives the class boundary alone, from the mean of the logits of images and mirror images; as above."""
        padded = self._padded(images)
        # One after the other: the backbone's shallow layers are the largest thing in memory.
        own, mirrored = (self._boundary_logits(self._stages(view)) for view in (padded, padded.flip(-1)))
        return _cut((own + mirrored.flip(-1)) / 2, _grid(images)).sigmoid()

    def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Gives the terms whose sum is trained on.

        Args:
            images: RGB 0..255 of shape (B, 3, H, W).
            labels: class ids (B, ceil(H / 4), ceil(W / 4)), 255 where not sure.
        """
        boundary, displacement = self(images)
        with full_precision(images.device):
            return pair_losses(boundary.float(), displacement.float(), labels, self.paths)._asdict()

    def _padded(self, images: Tensor) -> Tensor:
        """Repeats the last row and column up to a multiple of the deepest stride, so that all grids end together."""
        deepest = max(self.backbone.strides.values())
        below, right = (-side % deepest for side in images.shape[-2:])
        return F.pad(images.float(), (0, right, 0, below), mode="replicate")

    @torch.no_grad()
    def _stages(self, images: Tensor) -> dict[str, Tensor]:
        stages = self.backbone.stages(images, self._shallow + self._deep)
        for name, features in stages.items():
            if self.backbone.strides[name] < STRIDE:
                stages[name] = F.max_pool2d(features, 3, STRIDE // self.backbone.strides[name], 1)
        return stages

    def _boundary_logits(self, stages: dict[str, Tensor]) -> Tensor:
        size = self._size(stages, STRIDE)
        parts = [resize(layer(stages[name]), size) for name, layer in self.boundary_layers.items()]
        logits: Tensor = self.boundary_head(torch.cat([part.relu() for part in parts], 1))
        return logits[:, 0]

    def _displacement(self, stages: dict[str, Tensor]) -> Tensor:
        size, merged_size = (self._size(stages, stride) for stride in (STRIDE, _MERGED_STRIDE))
        parts = {name: layer(stages[name]) for name, layer in self.displacement_layers.items()}
        deep = torch.cat([resize(parts[name], merged_size).relu() for name in self._deep], 1)
        shallow = [resize(parts[name], size).relu() for name in self._shallow]
        merged = torch.cat([*shallow, resize(self.deep_layer(deep), size).relu()], 1)
        result: Tensor = self.displacement_head(self.merged_layer(merged).relu())
        return result

    def _size(self, stages: dict[str, Tensor], stride: int) -> list[int]:
        """Height and width of the grid of a stride."""
        name = self._deep[-1]
        return [side * self.backbone.strides[name] // stride for side in stages[name].shape[-2:]]


def _layer(inputs: int, outputs: int, groups: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.GroupNorm(groups, outputs))


def _groups(channels: int) -> int:
    return 8 if channels == 64 else 16


def _grid(images: Tensor) -> tuple[int, int]:
    return math.ceil(images.shape[-2] / STRIDE), math.ceil(images.shape[-1] / STRIDE)


def _cut(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    return maps[..., : grid[0], : grid[1]]
