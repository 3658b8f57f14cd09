"""What all segmentation networks have in common: how they are trained, and logits at the image's size.

Pretrained layers keep BatchNorm on its running statistics in training, as DeepLab does: batches are small.
"""

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from torch_svm_seg.data.constants import VOID
from torch_svm_seg.tensors import resize
from torch_svm_seg.training.distributed import mean_over_processes
from torch_svm_seg.training.trainable import Trainable

# Of DeepLab.
_NEW_LAYER_RATE = 10.0


class Segmenter(Trainable):
    """A network that gives a score to each class at each pixel.

    Args:
        pretrained: the part that was trained before on other data; its parameters' ``requires_grad`` tells what of it
            is trained.
        num_classes: number of classes, background included.
        fill: colour to pad images with, (3, 1, 1): what the network sees as zero.
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
        """What of the pretrained part is trained."""
        return [parameter for parameter in self._pretrained[0].parameters() if parameter.requires_grad]

    @property
    def new_parameters(self) -> list[nn.Parameter]:
        """What is not pretrained."""
        pretrained = {id(parameter) for parameter in self._pretrained[0].parameters()}
        return [p for p in self.parameters() if id(p) not in pretrained and p.requires_grad]

    def parameter_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """Gives the pretrained parameters, and the new ones, which learn ten times as fast."""
        return [(self.pretrained_parameters, 1.0), (self.new_parameters, _NEW_LAYER_RATE)]

    @property
    def uses_batch_statistics(self) -> bool:
        """Whether a BatchNorm layer outside of the pretrained part normalises by the batch in training."""
        inside = set(self._pretrained[0].modules())
        return any(isinstance(module, _BatchNorm) and module not in inside for module in self.modules())

    def coarse_logits(self, images: Tensor) -> Tensor:
        """Gives the classes' logits (B, num_classes, h, w) at the network's own resolution.

        Args:
            images: RGB 0..255 of shape (B, 3, H, W).
        """
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Gives the classes' logits at each pixel, (B, num_classes, H, W), of images RGB 0..255 (B, 3, H, W)."""
        return resize(self.coarse_logits(images).float(), images.shape[-2:])

    def losses(self, images: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """Gives the cross entropy, the mean over the labelled pixels of the batch.

        Args:
            images: RGB 0..255 of shape (B, 3, H, W).
            masks: class ids, int64 of shape (B, H, W); 255 is no label.
        """
        # On several processes the mean is over all of their pixels, not a mean of means.
        labelled = mean_over_processes((masks != VOID).sum().float()).clamp_min(1).to(images.device)
        loss = F.cross_entropy(self(images), masks, ignore_index=VOID, reduction="sum") / labelled
        return {"segmentation": loss}

    def train(self, mode: bool = True) -> "Segmenter":
        """Switches to training, except the pretrained part's BatchNorm, or to evaluation."""
        super().train(mode)
        for module in self._pretrained[0].modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self
