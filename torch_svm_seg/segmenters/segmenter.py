"""The base of all segmentation networks: their training, and logits at the image's size.

Pretrained layers keep BatchNorm on its running statistics in training, as DeepLab does: batches are small.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from torch_svm_seg.backbones.backbone import Backbone
from torch_svm_seg.data.constants import VOID
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.tensors import resize
from torch_svm_seg.training.distributed import mean_over_processes
from torch_svm_seg.training.trainable import Trainable

# Factor on the learning rate of new layers in DeepLab.
_NEW_LAYER_RATE = 10.0


class Segmenter(Trainable):
    """A network that scores each class at each pixel.

    Args:
        pretrained: Part that was trained before on other data; those of its parameters are trained that require a
            gradient.
        num_classes: Number of classes, background included.
        fill: Colour to pad images with, (3, 1, 1), which the network sees as zero.

    Shape:
        Images (B, 3, H, W), RGB from 0 to 255. Result (B, num_classes, H, W), the logits.

    Examples:
        >>> import torch
        >>> class Colours(Segmenter):
        ...     def __init__(self):
        ...         layer = nn.Conv2d(3, 2, 1)
        ...         super().__init__(layer, num_classes=2, fill=torch.zeros(3, 1, 1))
        ...         self.layer = layer
        ...
        ...     def coarse_logits(self, images):
        ...         return self.layer(images[..., ::4, ::4])
        >>> Colours()(torch.zeros(1, 3, 64, 96)).shape
        torch.Size([1, 2, 64, 96])
    """

    loss_names = ("segmentation",)
    largest_gradient = None
    fill: Tensor

    def __init__(self, pretrained: nn.Module, num_classes: int, fill: Tensor) -> None:
        super().__init__()
        if not 2 <= num_classes <= VOID:
            raise ValueError(f"num_classes: expected 2 to {VOID}, got {num_classes}")
        self._pretrained = [pretrained]  # in a list: the part is registered where it belongs
        self.num_classes = num_classes
        self.register_buffer("fill", fill.clone())

    @property
    def pretrained_parameters(self) -> list[nn.Parameter]:
        """The pretrained parameters that are trained."""
        return [parameter for parameter in self._pretrained[0].parameters() if parameter.requires_grad]

    @property
    def new_parameters(self) -> list[nn.Parameter]:
        """The parameters that are not pretrained."""
        pretrained = {id(parameter) for parameter in self._pretrained[0].parameters()}
        return [p for p in self.parameters() if id(p) not in pretrained and p.requires_grad]

    def parameter_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """Return the pretrained parameters, and the new ones, which learn ten times as fast."""
        return [(self.pretrained_parameters, 1.0), (self.new_parameters, _NEW_LAYER_RATE)]

    @property
    def uses_batch_statistics(self) -> bool:
        """Whether a BatchNorm layer outside of the pretrained part normalises by the batch in training."""
        inside = set(self._pretrained[0].modules())
        return any(isinstance(module, _BatchNorm) and module not in inside for module in self.modules())

    def check_stages(self, names: Sequence[str]) -> Backbone:
        """Return the pretrained part.

        Raises:
            InputError: It does not have the stages of these names.
        """
        backbone = self._pretrained[0]
        if not isinstance(backbone, Backbone):
            raise InputError(f"{type(self).__name__}: its pretrained part has no stages to take features of")
        if unknown := [name for name in names if name not in backbone.stage_names]:
            raise InputError(f"stage {unknown[0]}: expected one of {', '.join(backbone.stage_names)}")
        return backbone

    def stages(self, images: Tensor, names: Sequence[str]) -> list[Tensor]:
        """Return feature maps of the pretrained part, (B, C, h, w) each.

        Args:
            images: RGB images from 0 to 255, (B, 3, H, W).
            names: Names of the stages, such as ``"F4"``.

        Raises:
            InputError: The pretrained part has no such stage.
        """
        return list(self.check_stages(names).stages(images, names).values())

    def coarse_logits(self, images: Tensor) -> Tensor:
        """Return the logits (B, num_classes, h, w) at the network's own resolution.

        Args:
            images: RGB images from 0 to 255, (B, 3, H, W).
        """
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits at each pixel."""
        return resize(self.coarse_logits(images).float(), images.shape[-2:])

    def losses(self, images: Tensor, masks: Tensor, weights: Tensor | None = None) -> dict[str, Tensor]:
        """Return the cross entropy, the weighted mean over the labelled pixels of the batch.

        Args:
            images: RGB images from 0 to 255, (B, 3, H, W).
            masks: Class ids, int64 (B, H, W); 255 is no label.
            weights: Weight of each label, from 0 to 1, (B, H, W); by default 1.
        """
        labelled = (masks != VOID).float()
        weights = labelled if weights is None else labelled * weights
        # On several processes the mean is over all of their pixels, not a mean of means.
        total = mean_over_processes(weights.sum()).clamp_min(1).to(images.device)
        loss = (F.cross_entropy(self(images), masks, ignore_index=VOID, reduction="none") * weights).sum() / total
        return {"segmentation": loss}

    def train(self, mode: bool = True) -> "Segmenter":
        """Switch to training, except the pretrained part's BatchNorm, or to evaluation."""
        super().train(mode)
        for module in self._pretrained[0].modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self
