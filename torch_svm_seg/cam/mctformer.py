"""MCTformer: a plain transformer with one class token per class (Xu et al., CVPR 2022), for weights of timm.

The tokens of the classes go through all blocks beside those of the patches, and the mean of each is its class's score.
So what a class token looks at is where its class is. Maps are, as in the paper's second version, the product of that
attention, summed over the last blocks, and of a classifier's maps on the patch tokens; the attention between the
patches spreads them. All attention is the mean over the heads.

Two deliberate choices beside the authors' code. It has class tokens in place of the network's own; here that one and
its registers stay, so that patches see what they were trained with, and class tokens start at its value, each with a
small random offset. And it spreads by the attention as it is, here by CLIP-ES's symmetric affinity of it: ground that
looks at an object, as in a network that was trained briefly, would else take the object's activation.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torch_svm_seg.backbones.backbone import Backbone, StageReader
from torch_svm_seg.cam.classifier import Classifier, merge_views, views
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.refine.attention import attention_affinity, spread_by

# The paper's choice of the last blocks, whose attention tells classes apart; the first ones see edges.
_FUSED_BLOCKS = 3
_OFFSET = 0.02


class MCTformer(Classifier):
    """A classifier with one class token per class, whose attention shows where the class is.

    Args:
        backbone: A plain vision transformer of timm with a class token; all of its blocks train.
        num_classes: Number of classes, background not counted.
        seed: Seed of the new layers' weights.

    Raises:
        InputError: The backbone is another kind of network.

    Examples:
        >>> from torch_svm_seg.backbones.builder import load_backbone
        >>> network = MCTformer(load_backbone("timm:test_vit", "random"), num_classes=20)
        >>> images = torch.zeros(2, 3, 64, 96)
        >>> network(images).shape, network.class_maps(images).shape
        (torch.Size([2, 20]), torch.Size([2, 20, 4, 6]))
    """

    loss_names = ("classification", "patches")

    def __init__(self, backbone: Backbone, num_classes: int, seed: int = 0) -> None:
        _check_plain(backbone.network)
        super().__init__(backbone, num_classes, seed)
        shape = (num_classes, backbone.channels[self._deepest])
        offsets = torch.randn(shape, generator=torch.Generator().manual_seed(seed + 1))
        self.class_tokens = nn.Parameter(_OFFSET * offsets)

    def class_maps(self, images: Tensor) -> Tensor:
        """Return the score of each class at each patch, (B, num_classes, h, w); arguments as in the base class."""
        return self._scores(images)[1]

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of the classes (B, num_classes): the mean of the class tokens' and the patches'."""
        logits, maps = self._scores(images)
        return (logits + maps.mean((2, 3))) / 2

    def losses(self, images: Tensor, valid: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the loss of the class tokens and that of the patches; arguments as in the base class."""
        logits, maps = self._scores(images)
        parts = (logits, maps.mean((2, 3)))
        terms = [F.multilabel_soft_margin_loss(part.float(), labels.float()) for part in parts]
        return dict(zip(self.loss_names, terms, strict=True))

    def activation_maps(self, image: Tensor, present: Tensor, flip: bool = True) -> Tensor:
        """Return the activation of the classes present in one image at one scale; see the base class."""
        network: Any = self.backbone.network
        depth = len(network.blocks)
        points = {f"{part}{i}": f"blocks.{i}.attn.{part}_norm" for i in range(depth) for part in "qk"}
        with StageReader(network, points, stop=False) as read:
            class_maps = self.class_maps(views(image, flip))
        focus, affinity = self._attention(read, depth)
        maps = class_maps.relu() * focus.unflatten(2, class_maps.shape[2:])
        return merge_views(spread_by(attention_affinity(affinity), maps))[0, present]

    def _scores(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of the class tokens (B, num_classes), and the class maps of the patches."""
        network: Any = self.backbone.network
        with StageReader(network, {"tokens": "norm_pre"}) as read:
            self.backbone.stages(images, [self._deepest])
        embedded = read["tokens"]
        tokens = torch.cat([embedded[:, :1] + self.class_tokens, embedded], 1)
        for block in network.blocks:
            tokens = block(tokens)
        stride = self.backbone.strides[self._deepest]
        grid = [side // stride for side in self.backbone.input_size(images.shape[2:])]
        patches = tokens[:, -grid[0] * grid[1] :]
        maps: Tensor = self.head(patches.mT.unflatten(2, grid))
        return tokens[:, : self.num_classes].mean(2), maps

    def _attention(self, read: Mapping[str, Tensor], depth: int) -> tuple[Tensor, Tensor]:
        """Return what class tokens look at, (B, K, N), summed over the last blocks, and patches, (B, N, N), over all.

        Args:
            read: Queries and keys of each block, (B, heads, tokens, d).
            depth: Number of blocks.
        """
        network: Any = self.backbone.network
        first = self.num_classes + network.num_prefix_tokens
        focus = affinity = torch.zeros(())
        for number in range(depth):
            scale = network.blocks[number].attn.scale
            weights = (read[f"q{number}"] * scale @ read[f"k{number}"].mT).softmax(3).mean(1)
            affinity = affinity + weights[:, first:, first:]
            if number >= depth - _FUSED_BLOCKS:
                focus = focus + weights[:, : self.num_classes, first:]
        return focus, affinity


def _check_plain(network: Any) -> None:
    """Raise InputError unless a network is timm's plain vision transformer with a class token."""
    kind = type(network).__name__
    if kind != "VisionTransformer" or network.cls_token is None or not hasattr(network.blocks[0].attn, "q_norm"):
        raise InputError(
            f"backbone: MCTformer needs a plain vision transformer of timm with a class token, such as "
            f"timm:deit_small_patch16_224, got {kind}"
        )
