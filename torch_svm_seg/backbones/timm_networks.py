"""Networks of timm: built, given weights, and found out where their maps are."""

import importlib
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torch_svm_seg.backbones.backbone import Backbone, Stage, StageReader
from torch_svm_seg.backbones.transformers import STAGES, TransformerBackbone, find_maps, overlap_patches
from torch_svm_seg.backbones.weights import RANDOM, load_or_warn, one_line
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import PathLike

PREFIX = "timm:"
"""Start of the names of timm's networks."""

_STAGE_OF_STRIDE = dict(zip((2, 4, 8, 16, 32), STAGES, strict=True))

# Side in pixels, at most, of the image on which a network's maps are looked for; some are built for 1024.
_HOOKED_SIZE = 256

# What lets plain transformers, and those with windows, take images of other sizes than they were built for.
_ANY_SIZE: tuple[dict[str, bool], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})

# Names of the patch embedding: timm's, DINO's and EVA's; CLIP's.
_PATCHES = ("patch_embed.proj.weight", "visual.conv1.weight")

# Names of a block's first tensor: timm's, DINO's and EVA's; CLIP's.
_BLOCK = re.compile(r"(?:visual\.)?(?:trunk\.)?(?:blocks|transformer\.resblocks)\.(\d+)\.")


def load_timm_backbone(
    name: str, weights: PathLike | None, scale: float = 1.0, patch_stride: int | None = None
) -> Backbone:
    """Load a network of timm; see :func:`~torch_svm_seg.backbones.builder.load_backbone`.

    Convolutional networks are read through hooks at the modules that timm lists; all others by
    ``forward_intermediates``.
    """
    network = _create(name, weights is None)
    if weights is not None and weights != RANDOM:
        load_or_warn(network, weights, lambda state: _renamed(name, weights, network, state))
    if patch_stride is not None:
        _overlap(name, network, patch_stride)
    config: Any = network.eval().pretrained_cfg
    mean, std = ([255 * value for value in config[key]] for key in ("mean", "std"))
    # No convolutional network is built for one size.
    hooked, complete = ({}, False) if config.get("fixed_input_size") else _hooked_stages(network, config["input_size"])
    if complete:
        return Backbone(network, hooked, mean, std, scale)
    try:
        return TransformerBackbone(network, *find_maps(network), mean, std, scale)
    except ValueError as error:
        if hooked:
            return Backbone(network, hooked, mean, std, scale)
        raise InputError(f"{name}: gives no feature maps: {error}"[:300]) from error


def _overlap(name: str, network: nn.Module, stride: int) -> None:
    try:
        overlap_patches(network, stride)
    except ValueError as error:
        raise InputError(f"{name}: {error}") from error


def _create(name: str, pretrained: bool) -> nn.Module:
    """Build a network of timm that takes images of any size, if it can."""
    try:
        timm = importlib.import_module("timm")
    except ImportError as error:
        raise InputError(f"{name}: {one_line(error)}; run: pip install timm") from error
    architecture = name.removeprefix(PREFIX)
    if not timm.is_model(architecture):
        raise InputError(f"{name}: timm {timm.__version__} has no network of that name; see timm.list_models()")
    reason: Exception = TypeError()
    for options in _ANY_SIZE:
        try:
            network: nn.Module = timm.create_model(architecture, pretrained=pretrained, **options)
            return network
        except TypeError as error:  # the network has no such option
            reason = error
        except Exception as error:  # no network, no such tag; the hub's client has errors of its own
            reason = error
            break
    raise InputError(
        f"{name}: timm cannot load it ({one_line(reason)}); if its weights cannot be downloaded, pass --weights FILE"
    ) from reason


def _renamed(name: str, file: PathLike, network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turn the names of a file into timm's: those of DINO, DINOv2, DINOv3, CLIP, and others that timm converts."""
    state = _without_prefix(state)
    _check_patches(name, file, network, state)
    _check_depth(name, file, network, state)
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return dict(state)
    try:
        converted: dict[str, Tensor] = convert(dict(state), network)
        return converted
    except Exception as error:  # made for the files of one network, it fails at others in its own ways
        raise InputError(f"{file}: a checkpoint of another network than {name} ({one_line(error)})"[:300]) from error


def _without_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take off what stands before the patch embedding in all names, such as ``module.backbone.`` of DINO."""
    anchor = next((found for found in state for patches in _PATCHES if found.endswith(patches)), "")
    prefix = anchor[: min(anchor.find(patches) for patches in _PATCHES if patches in anchor)] if anchor else ""
    if not prefix or prefix.startswith("visual."):  # timm knows open_clip's
        return dict(state)
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _check_patches(name: str, file: PathLike, network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Refuse weights of another patch size, which timm would resample without a word."""
    own = getattr(getattr(network, "patch_embed", None), "proj", None)
    found = next((value for key, value in state.items() if key.endswith(_PATCHES) and value.ndim == 4), None)
    if isinstance(own, nn.Conv2d) and found is not None and found.shape[2:] != own.weight.shape[2:]:
        sizes = ["x".join(map(str, weight.shape[2:])) for weight in (found, own.weight)]
        raise InputError(f"{file}: weights of patches of {sizes[0]} pixels, but {name} has {sizes[1]}")


def _check_depth(name: str, file: PathLike, network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Refuse weights of another number of blocks, of which most would fit."""
    own, found = _depth(network.state_dict()), _depth(state)
    if found and own and found != own:
        raise InputError(f"{file}: weights of {found} blocks, but {name} has {own}")


def _depth(state: Mapping[str, Tensor]) -> int:
    """Count the blocks of a plain transformer under the names of timm and DINO, or of CLIP; 0 for other networks."""
    return len({found.group(1) for name in state if (found := _BLOCK.match(name))})


def _hooked_stages(network: nn.Module, input_size: Sequence[int]) -> tuple[dict[str, Stage], bool]:
    """Find the modules of a network of timm that put out maps: for each stride, the last one.

    What ``feature_info`` lists can also be tokens, maps with channels last, tuples, or a module that does not exist
    or is never run. So the network is run once, on an image of a moderate size.

    Returns:
        The stages, and whether the deepest one listed is among them.
    """
    existing = {path for path, _ in network.named_modules()}
    information: Any = getattr(network, "feature_info", ())
    listed = [Stage(entry["module"], entry["num_chs"], entry["reduction"]) for entry in information]
    listed = [stage for stage in listed if stage.module in existing and stage.stride in _STAGE_OF_STRIDE]
    size = [min(side, _HOOKED_SIZE) for side in input_size[1:]]
    with torch.no_grad(), StageReader(network, {s.module: s.module for s in listed}) as outputs:
        network(torch.zeros(1, 3, *size))
    found = [stage for stage in listed if _is_map(outputs.get(stage.module), stage, size)]
    complete = bool(found) and found[-1].module == information[-1]["module"]
    return {_STAGE_OF_STRIDE[stage.stride]: stage for stage in found}, complete


def _is_map(output: object, stage: Stage, size: Sequence[int]) -> bool:
    """Tell whether a module put out the map of its stage for one image of a size (H, W)."""
    cells = [-(-side // stage.stride) for side in size]
    return isinstance(output, Tensor) and list(output.shape) == [1, stage.channels, *cells]
