"""IRNet: the boundaries between classes (Ahn et al., CVPR 2019).

A branch of 1x1 convolutions reads the stages of a frozen backbone; its output has a quarter of the image's size. The
second branch of the publication, which finds the centres of objects, serves to tell objects of one class apart; no
semantic mask depends on it, and it is left out.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torch_svm_seg.backbones.backbone import Backbone
from torch_svm_seg.irn.losses import affinity_loss
from torch_svm_seg.irn.paths import Paths
from torch_svm_seg.tensors import full_precision, resize, seeded
from torch_svm_seg.training.trainable import Trainable

STRIDE = 4
"""Side of the image square that a cell of the output stands for, in pixels."""

_CHANNELS, _GROUPS = 32, 4

# Of the branch that finds centres of objects, in checkpoints of version 0.1.
_FORMER_LAYERS = ("displacement_", "deep_layer.", "merged_layer.")


class IRNet(Trainable):
    """A network that finds the boundaries between classes.

    Each stage is reduced to 32 channels and resized to stride 4; a 1x1 convolution of all of them gives the boundary.
    The stage of stride 2 is max-pooled to stride 4, as the ResNet does behind it.

    Args:
        backbone: Network that gives the features; it is frozen and stays in evaluation mode.
        seed: Seed of the branch's weights.
        radius: Pairs of cells nearer than this train the branch, in cells.

    Shape:
        Images (B, 3, H, W), RGB from 0 to 255. Result (B, ceil(H / 4), ceil(W / 4)), the strength of the class boundary
        from 0 to 1.

    Examples:
        >>> from torch_svm_seg.backbones.builder import load_backbone
        >>> IRNet(load_backbone("resnet18", "random"))(torch.zeros(1, 3, 64, 96)).shape
        torch.Size([1, 16, 24])
    """

    loss_names = ("affinity",)
    largest_gradient = None

    def __init__(self, backbone: Backbone, seed: int = 0, radius: int = 10) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        self.paths = Paths(radius)
        channels = {name: backbone.channels[name] for name in backbone.stage_names[1:]}
        # The weights come from PyTorch's generator, and leave it as it was.
        with seeded(seed):
            self.boundary_layers = nn.ModuleDict({name: _layer(number) for name, number in channels.items()})
            self.boundary_head = nn.Conv2d(_CHANNELS * len(channels), 1, 1)
        self.register_load_state_dict_pre_hook(_without_former_layers)  # type: ignore[no-untyped-call]

    def train(self, mode: bool = True) -> "IRNet":
        """Switch the branch to training or evaluation; the backbone stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def parameter_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """Return the branch's parameters, as one group."""
        return [([*self.boundary_layers.parameters(), *self.boundary_head.parameters()], 1.0)]

    def forward(self, images: Tensor) -> Tensor:
        """Return the class boundary."""
        return _cut(self._logits(self._padded(images)), images).sigmoid()

    def boundary(self, images: Tensor) -> Tensor:
        """Return the class boundary by the mean of the logits of images and mirror images, as :meth:`forward`."""
        padded = self._padded(images)
        # One after the other: the backbone's shallow layers are the largest thing in memory.
        own, mirrored = (self._logits(view) for view in (padded, padded.flip(-1)))
        return _cut((own + mirrored.flip(-1)) / 2, images).sigmoid()

    def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the loss.

        Args:
            images: RGB images from 0 to 255, (B, 3, H, W).
            labels: Class ids (B, ceil(H / 4), ceil(W / 4)), 255 where not sure.
        """
        boundary = self(images)
        with full_precision(images.device):
            return {"affinity": affinity_loss(boundary.float(), labels, self.paths)}

    def _padded(self, images: Tensor) -> Tensor:
        """Repeat the last row and column up to a multiple of all strides, so that all grids end together."""
        multiple = math.lcm(STRIDE, *self.backbone.strides.values())
        below, right = (-side % multiple for side in images.shape[-2:])
        return F.pad(images.float(), (0, right, 0, below), mode="replicate")

    def _logits(self, padded: Tensor) -> Tensor:
        size = [side // STRIDE for side in padded.shape[-2:]]
        stages = self._stages(padded)
        parts = [resize(layer(stages[name]), size) for name, layer in self.boundary_layers.items()]
        logits: Tensor = self.boundary_head(torch.cat([part.relu() for part in parts], 1))
        return logits[:, 0]

    @torch.no_grad()
    def _stages(self, images: Tensor) -> dict[str, Tensor]:
        stages = self.backbone.stages(images, list(self.boundary_layers))
        for name, features in stages.items():
            if self.backbone.strides[name] < STRIDE:
                stages[name] = F.max_pool2d(features, 3, STRIDE // self.backbone.strides[name], 1)
        return stages


def _layer(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, _CHANNELS, 1, bias=False), nn.GroupNorm(_GROUPS, _CHANNELS))


def _cut(maps: Tensor, images: Tensor) -> Tensor:
    """Return the cells (B, h, w) that lie inside the images, without padding."""
    height, width = (math.ceil(side / STRIDE) for side in images.shape[-2:])
    return maps[..., :height, :width]


def _without_former_layers(module: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
    for name in [name for name in state if name.removeprefix(prefix).startswith(_FORMER_LAYERS)]:
        del state[name]
