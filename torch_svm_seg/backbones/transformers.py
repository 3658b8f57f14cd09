"""Transformers of timm at their stages, for images of any size.

A stage's map covers the image exactly: images are resized to sides that the network divides into whole cells, so a cell
of an (h, w) map stands for the h-th and w-th part of the image, whatever the patch size. Features are read by timm's
``forward_intermediates``, without the final norm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from torch_svm_seg.backbones.backbone import Backbone, Stage
from torch_svm_seg.backbones.positions import Tables, resampler_of

STAGES = ("F1", "F2", "F3", "F4", "F5")
"""Names by depth; the deepest map is always F5."""


@dataclass(frozen=True)
class InputRule:
    """The image sizes that a network takes.

    Attributes:
        multiple: Sides are multiples of it, in pixels.
        fixed: The only size (H, W), where a network has tables of positions that fit nothing else.

    Examples:
        >>> InputRule(14).size(375, 500)
        (378, 504)
    """

    multiple: int
    fixed: tuple[int, int] | None = None

    def size(self, height: float, width: float) -> tuple[int, int]:
        """Return the size that the network takes for one wanted, rounded up."""
        return self.fixed or (self._rounded(height), self._rounded(width))

    def _rounded(self, side: float) -> int:
        return max(1, -int(-side // self.multiple)) * self.multiple


class TransformerBackbone(Backbone):
    """A network of timm with ``forward_intermediates``: a plain or hierarchical transformer, or one of its kin.

    Its stages are named by depth: up to five maps are F5 and those before it; of more, as in a plain transformer, F1 to
    F5 are equally spaced blocks and F5 is the last.

    Args:
        network: The network.
        rule: The image sizes that it takes.
        maps: Its maps, in the order of ``forward_intermediates``.
        mean: Of each channel, see :class:`~torch_svm_seg.backbones.backbone.Backbone`.
        std: Of each channel.
        scale: Of the images before the network sees them.

    Examples:
        >>> import timm
        >>> network = timm.create_model("test_vit", pretrained=False, dynamic_img_size=True).eval()
        >>> backbone = TransformerBackbone(network, *find_maps(network), mean=(127.5,) * 3, std=(127.5,) * 3)
        >>> backbone.stages(torch.zeros(1, 3, 90, 130), ["F5"])["F5"].shape  # patches of 16x16 pixels
        torch.Size([1, 64, 6, 9])
    """

    def __init__(
        self,
        network: nn.Module,
        rule: InputRule,
        maps: Sequence[Stage],
        mean: Sequence[float],
        std: Sequence[float],
        scale: float = 1.0,
    ) -> None:
        indices = _spaced(len(maps))
        names = STAGES[len(STAGES) - len(indices) :]
        super().__init__(network, {n: maps[i] for n, i in zip(names, indices, strict=True)}, mean, std, scale)
        self.rule = rule
        self._indices = dict(zip(names, indices, strict=True))

    def input_size(self, size: Sequence[int]) -> tuple[int, int]:
        """Return the size (H, W) at which the network sees an image of a size: whole cells, rounded up."""
        return self.rule.size(*(side * self.scale for side in size))

    def forward(self, images: Tensor) -> Tensor:
        """Return the class scores of images, RGB 0..255 of shape (B, 3, H, W)."""
        inputs = self._input(images)
        scores: Tensor = torch.func.functional_call(self.network, _tables(self.network, inputs), (inputs,))
        return scores

    def _read(self, inputs: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        wanted = sorted({self._indices[name] for name in names})
        maps = dict(zip(wanted, read_maps(self.network, inputs, wanted), strict=True))
        return {name: maps[self._indices[name]] for name in names}


def read_maps(network: nn.Module, inputs: Tensor, indices: Sequence[int] | None = None) -> list[Tensor]:
    """Return some of a network's maps, (B, C, h, w) each; nothing deeper than the deepest is computed.

    Args:
        network: A network of timm with ``forward_intermediates``.
        inputs: Normalised images (B, 3, H, W), of a size that the network takes.
        indices: Of the maps, ascending; all by default.

    Examples:
        >>> import timm
        >>> network = timm.create_model("test_vit", pretrained=False).eval()
        >>> [tuple(found.shape) for found in read_maps(network, torch.zeros(1, 3, 160, 160), [1, 5])]
        [(1, 64, 10, 10), (1, 64, 10, 10)]
    """
    tables = {f"network.{name}": table for name, table in _tables(network, inputs).items()}
    maps: list[Tensor] = torch.func.functional_call(_Intermediates(network), tables, (inputs, indices))
    return maps


def find_maps(network: nn.Module) -> tuple[InputRule, list[Stage]]:
    """Find the image sizes that a network takes and the maps that it gives, by running it.

    Tried are: any size, in multiples of the deepest stride; multiples of the size that it was built for, as windows of
    a fixed share of the image need; and that size alone, to which images are then resized.

    Args:
        network: A network of timm, in evaluation mode.

    Raises:
        ValueError: It gives no maps at any size; the message has the reason.

    Examples:
        >>> import timm
        >>> rule, maps = find_maps(timm.create_model("swiftformer_xs", pretrained=False).eval())
        >>> rule.multiple, [found.stride for found in maps]
        (32, [4, 8, 16, 32])
    """
    config: Any = network
    if not hasattr(network, "forward_intermediates"):
        raise ValueError("timm has no forward_intermediates for it")
    height, width = config.pretrained_cfg["input_size"][1:]
    stride = max(entry["reduction"] for entry in config.feature_info)
    trials = [(InputRule(stride), (2 * stride, 3 * stride))]
    if height == width:
        trials.append((InputRule(height), (height, 2 * height)))
    trials.append((InputRule(1, (height, width)), (height, width)))
    reason: Exception = ValueError()
    for rule, size in trials:
        try:
            return rule, _stages(network, size)
        except Exception as error:  # networks fail in their own ways at sizes that they do not take
            reason = error
    raise ValueError(" ".join(str(reason).split()) or type(reason).__name__) from reason


def overlap_patches(network: nn.Module, stride: int) -> None:
    """Let the patches of a plain transformer overlap, for a finer grid from the same weights.

    The patch embedding is applied at every ``stride`` pixels (Amir et al., Deep ViT features as dense visual
    descriptors, 2021), on an image that repeats its border, so that each of the (H / stride) x (W / stride) cells is
    the middle of its patch. Attention takes (patch / stride)^4 times the work.

    Args:
        network: A plain transformer of timm; its patch embedding is changed.
        stride: Distance of the patches, in pixels.

    Raises:
        ValueError: The network has no patches, or the stride leaves cells that are not in the middle of their patches.

    Examples:
        >>> import timm
        >>> network = timm.create_model("test_vit", pretrained=False, dynamic_img_size=True).eval()
        >>> overlap_patches(network, stride=8)
        >>> read_maps(network, torch.zeros(1, 3, 160, 160), [5])[0].shape
        torch.Size([1, 64, 20, 20])
    """
    embedding: Any = getattr(network, "patch_embed", None)
    projection = getattr(embedding, "proj", None)
    if not isinstance(projection, nn.Conv2d) or projection.kernel_size != projection.stride:
        raise ValueError("patch_stride: expected a plain transformer, got a network without patches of one size")
    patch, entries = projection.kernel_size[0], network.feature_info
    if any(entry["reduction"] != patch for entry in entries):  # type: ignore[union-attr]
        raise ValueError("patch_stride: expected a plain transformer, got a hierarchical one")
    if not 1 <= stride <= patch or (patch - stride) % 2:
        raise ValueError(f"patch_stride: expected 1 to {patch}, and even like the patch of {patch}, got {stride}")
    padding = (patch - stride) // 2
    projection.stride = (stride, stride)
    projection.padding = (padding, padding)
    projection.padding_mode = "replicate"
    projection._reversed_padding_repeated_twice = [padding] * 4
    embedding.patch_size = (stride, stride)
    for entry in entries:  # type: ignore[union-attr]
        entry["reduction"] = stride


class _Intermediates(nn.Module):
    """A network whose maps are its output, so that its parameters can be replaced for one pass."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor, indices: Sequence[int] | None) -> list[Tensor]:
        options: dict[str, Any] = {"stop_early": True, "intermediates_only": True}
        maps: list[Tensor] = self.network.forward_intermediates(
            inputs, indices=None if indices is None else list(indices), **options
        )
        return maps


def _tables(network: nn.Module, inputs: Tensor) -> Tables:
    """Prepare a network for the size of its input; return its positions for that."""
    resampler = resampler_of(network)
    return resampler(network, (inputs.shape[2], inputs.shape[3])) if resampler else {}


@torch.no_grad()
def _stages(network: nn.Module, size: tuple[int, int]) -> list[Stage]:
    """Run a network at a size; return its maps, which must divide the size into whole cells."""
    information: list[Mapping[str, Any]] = list(network.feature_info)  # type: ignore[arg-type]
    maps = read_maps(network, torch.zeros(1, 3, *size))
    if len(maps) != len(information):
        raise ValueError(f"{len(maps)} maps for {len(information)} stages")
    return [
        Stage(entry["module"], found.shape[1], _stride(found, size))
        for entry, found in zip(information, maps, strict=True)
    ]


def _stride(found: Tensor, size: tuple[int, int]) -> int:
    """Return the stride of a map (1, C, h, w)."""
    stride = size[0] // found.shape[2] if found.ndim == 4 and 0 not in found.shape else 0
    if stride < 1 or [stride * cells for cells in found.shape[2:]] != list(size):
        raise ValueError(f"a map of shape {tuple(found.shape)} for an image of {size[1]}x{size[0]}")
    return stride


def _spaced(number: int) -> list[int]:
    """Return up to five indices below a number, equally spaced and ending with the last."""
    count = min(number, len(STAGES))
    return [round(step * number / count) - 1 for step in range(1, count + 1)]
