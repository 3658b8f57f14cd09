"""Position tables of transformers that timm builds for one image size, resampled for any other.

Most transformers of timm adapt to the image on their own. The three families here keep tables for the size that they
were built for: Hiera absolute positions, MViT relative ones along each axis, LeViT one bias for each offset. A function
of each family prepares the network for a size and returns the resampled tables, which replace the network's parameters
for one pass; so the parameters stay as they are, and gradients reach them.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

Tables = dict[str, Tensor]
Resampler = Callable[[Any, tuple[int, int]], Tables]
"""Prepares a network for images of a size (H, W); returns parameters by name, resampled for it."""


def resampler_of(network: nn.Module) -> Resampler | None:
    """Return what fits a network of timm to image sizes; ``None`` where the network needs nothing.

    Examples:
        >>> import timm
        >>> network = timm.create_model("levit_128s", pretrained=False)
        >>> tables = resampler_of(network)(network, (256, 384))
        >>> tables["stages.0.blocks.0.attn.attention_biases"].shape  # 4 heads, 16 x 24 offsets
        torch.Size([4, 384])
    """
    return _RESAMPLERS.get(type(network).__module__.rpartition(".")[2])


def _hiera(network: Any, size: tuple[int, int]) -> Tables:
    """Hiera (Ryali et al., ICML 2023): tokens are sorted by windows, so the sorting depends on the size, too."""
    grid = [side // stride for side, stride in zip(size, network.patch_stride, strict=True)]
    network.tokens_spatial_shape = grid
    network.mask_spatial_shape = [cells // unit for cells, unit in zip(grid, network.mask_unit_size, strict=True)]
    schedule = [network.q_stride] * (len(network.stage_ends) - 1)
    network.unroll = type(network.unroll)(size, network.patch_stride, schedule)
    network.reroll = type(network.reroll)(size, network.patch_stride, schedule, network.stage_ends, network.q_pool)
    network.train(network.training)  # the new modules, too
    if network.pos_embed_win is not None:
        return {}  # these positions follow the grid on their own
    native = math.isqrt(network.pos_embed.shape[1])
    positions = network.pos_embed.mT.unflatten(2, (native, native))
    return {"pos_embed": resample(positions, grid).flatten(2).mT}


def _mvit(network: nn.Module, size: tuple[int, int]) -> Tables:
    """MViTv2 (Li et al., CVPR 2022): a table has an entry for each distance along an axis, from -(n - 1) to n - 1."""
    native: Any = network.patch_embed
    finest = max(len(table) for name, table in network.named_parameters() if name.endswith("rel_pos_h"))
    stride = native.proj.stride[0]  # of the finest grid
    tables = {}
    for axis, side in zip(("h", "w"), size, strict=True):
        for name, table in network.named_parameters():
            if name.endswith(f"rel_pos_{axis}"):
                cells = side // stride * (len(table) + 1) // (finest + 1)
                tables[name] = F.interpolate(table.T[None], 2 * cells - 1, mode="linear")[0].T
    return tables


def _levit(network: nn.Module, size: tuple[int, int]) -> Tables:
    """LeViT (Graham et al., ICCV 2021): a table has an entry for each pair of absolute row and column offsets."""
    attentions: dict[str, Any] = {
        name: module for name, module in network.named_modules() if hasattr(module, "attention_biases")
    }
    natives = {name: math.isqrt(module.attention_biases.shape[1]) for name, module in attentions.items()}
    # 14, 7 and 4 cells along the side of the image that timm builds for, at strides of 16, 32 and 64.
    strides = {native: 16 * 2**depth for depth, native in enumerate(sorted(set(natives.values()), reverse=True))}
    tables = {}
    for name, module in attentions.items():
        native, biases = natives[name], module.attention_biases
        grid = [-(-side // strides[native]) for side in size]
        for part in module.modules():
            if hasattr(part, "resolution"):
                part.resolution = tuple(grid)
        module.attention_bias_idxs = module._compute_attention_bias_idxs(device=biases.device)
        module.attention_bias_cache = {}
        offsets = biases.unflatten(1, (native, native))[None]
        # Offset 0 stays offset 0, and the largest one the largest.
        tables[f"{name}.attention_biases"] = F.interpolate(offsets, grid, mode="bilinear", align_corners=True)[
            0
        ].flatten(1)
    return tables


def resample(positions: Tensor, grid: Sequence[int]) -> Tensor:
    """Return positions (1, C, n, m) on another grid, as timm resamples those of plain transformers.

    Examples:
        >>> import torch
        >>> resample(torch.rand(1, 64, 14, 14), (24, 32)).shape
        torch.Size([1, 64, 24, 32])
    """
    if list(positions.shape[2:]) == list(grid):
        return positions
    return F.interpolate(positions, list(grid), mode="bicubic", antialias=True)


_RESAMPLERS: dict[str, Resampler] = {"hiera": _hiera, "mvitv2": _mvit, "levit": _levit}
