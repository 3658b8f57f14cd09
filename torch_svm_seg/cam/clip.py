"""Maps of classes from CLIP, which is told their names and never trained on the images: CLIP-ES.

Lin et al., CVPR 2023, of whose parts these are two: Grad-CAM (section 3.2) of the *softmax* over the sentences for the
classes present and for the background, so that what speaks for another class counts against this one; and the
class-aware affinity of the attention (section 3.3), by which a map spreads within the boxes around its most active
regions. CLIP saw pairs of images and texts, so its maps stand on more than image-level labels.

A plain transformer of open_clip is needed, with its weights in a file; nothing is ever downloaded.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torch_svm_seg.backbones.backbone import StageReader
from torch_svm_seg.backbones.positions import resample
from torch_svm_seg.backbones.weights import load_weights, refuse_hub
from torch_svm_seg.cam.classifier import merge_views, views
from torch_svm_seg.cam.prompts import Prompts
from torch_svm_seg.data.errors import InputError, import_optional
from torch_svm_seg.data.io import PathLike
from torch_svm_seg.refine.affinity_walk import boxes_above
from torch_svm_seg.refine.attention import attention_affinity, spread_by
from torch_svm_seg.tensors import resize

# The last blocks, whose attention is averaged (section 3.3).
_ATTENTION_BLOCKS = 8
# Of the images that OpenAI's and nearly all of open_clip's weights were trained on.
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
# Beside the weights in the state dicts of OpenAI's own files.
_OPENAI = ("input_resolution", "context_length", "vocab_size")

Tokenize = Callable[[list[str]], Tensor]
"""Turns sentences into numbers of tokens, (sentences, context length)."""


class CLIPMaps(nn.Module):
    """Activation maps of classes that CLIP knows by their names.

    Args:
        model: A ``CLIP`` of open_clip whose image side is a plain transformer; its parameters are frozen here.
        tokenize: Its tokenizer.
        class_names: Names of the classes, the background not among them.
        prompts: Sentences for classes and background.
        box_threshold: Activation from 0 to 1 whose regions' boxes a map spreads in; CLIP-ES's is 0.4, on COCO 0.7.

    Attributes:
        num_classes: Number of classes.
        has_background: Whether :meth:`activation_maps` starts with a map of the background: no.

    Raises:
        InputError: The threshold is out of its range, or all words for the background are names of classes.

    Examples:
        >>> maps = load_clip("ViT-B-16", "ViT-B-16.pt", ["cat", "dog"])  # doctest: +SKIP
        >>> maps.activation_maps(torch.zeros(3, 64, 96), torch.tensor([True, False])).shape  # doctest: +SKIP
        torch.Size([1, 4, 6])
    """

    has_background = False
    texts: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: nn.Module,
        tokenize: Tokenize,
        class_names: Sequence[str],
        prompts: Prompts,
        box_threshold: float = 0.4,
    ) -> None:
        super().__init__()
        if not 0 <= box_threshold <= 1:
            raise InputError(f"box_threshold: expected 0 to 1, got {box_threshold}")
        self.model: Any = model.requires_grad_(False).eval()
        self.num_classes, self.box_threshold = len(class_names), box_threshold
        words = [*class_names, *prompts.background_beside(class_names)]
        texts = torch.stack([self._embed(tokenize(prompts.of(word))) for word in words])
        self.register_buffer("texts", texts)
        self.register_buffer("mean", 255 * torch.tensor(_MEAN).view(3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(_STD).view(3, 1, 1))

    def activation_maps(self, image: Tensor, present: Tensor, flip: bool = True) -> Tensor:
        """Return the activation of the classes present in one image, at one scale.

        Args:
            image: RGB image from 0 to 255, (3, H, W).
            present: Classes present, bool (num_classes,).
            flip: Whether to average with the activation of the mirrored image, mirrored back.

        Returns:
            Activation from 0 to 1, (classes present, h, w), a value for each patch.
        """
        maps, attention = self.explain(views(image, flip), present)
        regions = boxes_above(maps, self.box_threshold)
        spread = spread_by(attention_affinity(attention), maps * regions)
        return merge_views(_over_maximum(spread))[0]

    def explain(self, images: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Return Grad-CAM of the classes present, and the attention between patches.

        Args:
            images: RGB images from 0 to 255, (B, 3, H, W), which all show the same classes.
            present: These classes, bool (num_classes,).

        Returns:
            Activation (B, classes present, h, w), each map over its maximum; attention (B, h w, h w), the mean over
            heads and the last eight blocks.
        """
        before, attention, grid = self._read(images)
        visual = self.model.visual
        last = visual.transformer.resblocks[-1]
        with torch.enable_grad():
            with StageReader(last, {"tokens": "ln_1"}, stop=False) as read:
                tokens = last(before.requires_grad_())
            scores = self._scores(visual.ln_post(tokens)[:, 1:].mean(1) @ visual.proj, present)
            maps = [_grad_cam(score, read["tokens"]) for score in scores[:, : int(present.sum())].unbind(1)]
        return _over_maximum(torch.stack(maps, 1).unflatten(2, grid)), attention

    @torch.no_grad()
    def _embed(self, tokens: Tensor) -> Tensor:
        """Return the embedding of a word's sentences, of length 1."""
        return F.normalize(self.model.encode_text(tokens, normalize=True).mean(0), dim=0)

    @torch.no_grad()
    def _read(self, images: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Return the tokens before the last block, the mean attention between patches, and the patches' grid."""
        visual = self.model.visual
        height, width = (-(-side // patch) for side, patch in zip(images.shape[2:], visual.patch_size, strict=True))
        size = (height * visual.patch_size[0], width * visual.patch_size[1])
        inputs = resize((images.to(self.mean) - self.mean) / self.std, size)
        blocks = visual.transformer.resblocks
        numbers = range(len(blocks))[-_ATTENTION_BLOCKS:]
        points = {f"{number}": f"transformer.resblocks.{number}.ln_1" for number in numbers}
        points["before"] = f"transformer.resblocks.{len(blocks) - 2}"
        with StageReader(visual, points) as read:
            positions = {"positional_embedding": _positions(visual, (height, width))}
            torch.func.functional_call(visual, positions, (inputs,))
        weights = [blocks[number].attn(*[read[f"{number}"]] * 3)[1] for number in numbers]
        return read["before"], torch.stack(weights).mean(0)[:, 1:, 1:], (height, width)

    def _scores(self, embeddings: Tensor, present: Tensor) -> Tensor:
        """Return the probabilities (B, classes present + background) of images' embeddings (B, D)."""
        texts = torch.cat([self.texts[: self.num_classes][present], self.texts[self.num_classes :]])
        scale: Tensor = self.model.logit_scale.exp()
        return (scale * F.normalize(embeddings, dim=1) @ texts.T).softmax(1)


def load_clip(
    name: str, weights: PathLike, class_names: Sequence[str], prompts: Prompts | None = None, box_threshold: float = 0.4
) -> CLIPMaps:
    """Load a CLIP of open_clip with the weights of a file, and embed the sentences for its classes.

    Args:
        name: A model of open_clip whose image side is a plain transformer, such as ``ViT-B-16``.
        weights: State dict or checkpoint under the names of open_clip and OpenAI.
        class_names: Names of the classes, the background not among them.
        prompts: Sentences for classes and background; CLIP-ES's by default.
        box_threshold: See :class:`CLIPMaps`.

    Raises:
        InputError: open_clip is not installed, has no such model, or one of another kind; or the file cannot be read
            or is not the model's.

    Examples:
        >>> load_clip("ViT-B-16", "ViT-B-16.pt", ["cat", "dog"]).num_classes  # doctest: +SKIP
        2
    """
    open_clip = import_optional("open_clip", "it reads CLIP; pip install open_clip_torch")
    refuse_hub(name)
    config = open_clip.get_model_config(name)
    if config is None:
        raise InputError(f"CLIP {name}: open_clip has no model of that name; see open_clip.list_models()")
    if not _is_plain(config):
        raise InputError(f"CLIP {name}: expected a plain transformer with open_clip's own tokenizer, such as ViT-B-16")
    model = open_clip.CLIP(**config)

    def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if _OPENAI[0] in state and not config.get("quick_gelu"):
            raise InputError(f"{weights}: weights of OpenAI, which are of {name}-quickgelu; {name} would misread them")
        return {key: value for key, value in state.items() if key not in _OPENAI}

    report = load_weights(model, weights, rename)
    if not report.complete:
        raise InputError(f"{weights}: not the weights of CLIP {name}: {report}")
    return CLIPMaps(model, open_clip.get_tokenizer(name), class_names, prompts or Prompts(), box_threshold)


def _is_plain(config: Mapping[str, Any]) -> bool:
    """Whether a model has a plain transformer on the image side, and a tokenizer that comes with open_clip."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    others = (vision.get("timm_model_name"), vision.get("attentional_pool"), config.get("custom_text"))
    return isinstance(vision.get("layers"), int) and not any(
        (*others, text.get("hf_model_name"), text.get("hf_tokenizer_name"))
    )


def _positions(visual: Any, grid: tuple[int, int]) -> Tensor:
    """Return the positions of the class token and of patches on a grid, (1 + h w, C)."""
    own: Tensor = visual.positional_embedding
    patches = own[1:].T.unflatten(1, visual.grid_size)[None]
    return torch.cat([own[:1], resample(patches, grid)[0].flatten(1).T])


def _grad_cam(score: Tensor, tokens: Tensor) -> Tensor:
    """Return Grad-CAM (B, N) of scores (B,) at the tokens (B, 1 + N, C) that they depend on, but the class's token."""
    (gradient,) = torch.autograd.grad(score.sum(), tokens, retain_graph=True)
    weights = gradient[:, 1:].mean(1, keepdim=True)
    return (weights * tokens.detach()[:, 1:]).sum(2).relu()


def _over_maximum(maps: Tensor) -> Tensor:
    """Divide maps (B, K, h, w) each by its maximum, which is tiny where the softmax is sure of another class."""
    return maps / maps.amax((2, 3), keepdim=True).clamp_min(torch.finfo(maps.dtype).tiny)
