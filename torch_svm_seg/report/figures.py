"""The gallery's figures: images, masks, activation and samples, small enough for a page that holds them itself."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from torch_svm_seg.cam.activation import ActivationMaps
from torch_svm_seg.data.constants import VOID
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.evaluation.panels import colours, draw_samples, shown_size
from torch_svm_seg.expansion.sampling import sample_pixels

JPEG_QUALITY = 82


@dataclass(frozen=True)
class Figure:
    """An image on the page, or the reason why there is none.

    Attributes:
        title: Title, such as a folder's name.
        alt: Content in words.
        uri: A ``data:`` address that holds the image, or None.
        size: Width and height in pixels.
        miou: Score of a predicted mask, from 0 to 1.

    Examples:
        >>> Figure("F4", alt="no mask of F4").uri is None
        True
    """

    title: str
    alt: str
    uri: str | None = None
    size: tuple[int, int] = (0, 0)
    miou: float | None = None


def class_colour(class_id: int) -> str:
    """Return the colour of a class for the style sheet.

    Examples:
        >>> class_colour(8)
        'rgb(64,0,0)'
    """
    return f"rgb({','.join(map(str, colours(torch.tensor([[class_id]]))[0, 0].tolist()))})"


def image_figure(image: Tensor) -> Figure:
    """Return an image, uint8 (3, H, W), as JPEG.

    Examples:
        >>> image_figure(torch.zeros(3, 375, 500, dtype=torch.uint8)).size
        (320, 240)
    """
    return _jpeg("image", "the image", _small(image))


def mask_figure(
    title: str, read: Callable[[], Tensor], class_names: Sequence[str], miou: float | None = None
) -> Figure:
    """Return a mask in the colours of PASCAL VOC, 255 in white, as PNG.

    Args:
        title: Title of the figure.
        read: Function that returns the class ids (H, W), or raises InputError.
        class_names: Name of each class id.
        miou: Score of the mask, if known.

    Examples:
        >>> mask_figure("seed", lambda: torch.tensor([[0, 0, 0, 1]]), ["background", "cat"]).alt
        'background 75%, cat 25%'
    """
    try:
        ids = read()
        present, positions = np.unique(ids.numpy(), return_inverse=True)
        _check_ids(present, class_names)
    except InputError as error:
        return Figure(title, str(error))
    # A palette of the classes present alone: PNG then packs several pixels into a byte.
    small = Image.fromarray(positions.reshape(ids.shape).astype(np.uint8))
    small.putpalette(colours(torch.from_numpy(present)[None]).flatten().tolist())
    small = small.resize(shown_size(*ids.shape), Image.Resampling.NEAREST)
    stream = io.BytesIO()
    small.save(stream, "png", optimize=True)
    return Figure(title, _described(ids, present, class_names), _uri("png", stream), small.size, miou)


def activation_figure(
    title: str, image: Tensor, read: Callable[[], ActivationMaps], class_names: Sequence[str]
) -> Figure:
    """Return class activation maps over the greyed image: at each pixel the strongest class, as strong as it is.

    Args:
        title: Title of the figure.
        image: The image, uint8 (3, H, W).
        read: Function that returns the maps, or raises InputError.
        class_names: Name of each class id.

    Examples:
        >>> image, maps = torch.zeros(3, 8, 8, dtype=torch.uint8), ActivationMaps((1,), torch.ones(1, 2, 2), (8, 8))
        >>> activation_figure("CAM", image, lambda: maps, ["background", "cat"]).alt
        'class activation of cat'
    """
    try:
        maps = read().resized()
    except InputError as error:
        return Figure(title, str(error))
    strongest = maps.maps.max(0)
    strength = strongest.values.clamp(0, 1)[..., None].numpy()
    palette = colours(torch.tensor([maps.classes]))[0]
    # VOC's colours are dark: over an image that is grey and light they can be seen.
    grey = 255 - 0.5 * (255 - image.float().mean(0)[..., None].numpy())
    blended = grey * (1 - strength) + palette[strongest.indices.numpy()] * strength
    names = ", ".join(class_names[id] for id in maps.classes)
    return _jpeg(title, f"class activation of {names}", _small(torch.from_numpy(blended).permute(2, 0, 1).byte()))


def samples_figure(image: Tensor, truth: Tensor, settings: Mapping[str, Any]) -> Figure | None:
    """Return the pixels that trained the SVM of a run with samples from the ground truth; None for other runs.

    Args:
        image: The image, uint8 (3, H, W).
        truth: Its ground truth, (H, W).
        settings: Settings of the run, as ``expand.py`` records them.

    Examples:
        >>> image, truth = torch.zeros(3, 8, 8, dtype=torch.uint8), torch.zeros(8, 8, dtype=torch.long)
        >>> settings = {"supervision": "ground-truth", "samples_per_class": 9, "seed": 0}
        >>> samples_figure(image, truth, settings).alt
        '9 sampled pixels, labelled by the ground truth'
    """
    if settings.get("supervision") != "ground-truth":
        return None
    try:
        sample = sample_pixels(truth[None], settings["samples_per_class"], settings["seed"])
    except (KeyError, TypeError, ValueError, RuntimeError):  # not what expand.py writes
        return None
    labels = sample.as_labels(*truth.shape)[0]
    alt = f"{int((labels != VOID).sum())} sampled pixels, labelled by the ground truth"
    return _jpeg("sampled pixels", alt, draw_samples(image, labels))


def _check_ids(present: NDArray[Any], class_names: Sequence[str]) -> None:
    strange = [id for id in present.tolist() if id != VOID and not 0 <= id < len(class_names)]
    if strange:
        raise InputError(f"unknown class id {strange[0]}")


def _described(ids: Tensor, present: NDArray[Any], class_names: Sequence[str]) -> str:
    shares = [(int((ids == id).sum()) / ids.numel(), id) for id in present.tolist()]
    named = [f"{'unlabelled' if id == VOID else class_names[id]} {share:.0%}" for share, id in shares]
    return ", ".join(named)


def _small(image: Tensor) -> Image.Image:
    whole = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    return whole.resize(shown_size(*image.shape[1:]), Image.Resampling.LANCZOS)


def _jpeg(title: str, alt: str, image: Image.Image) -> Figure:
    stream = io.BytesIO()
    image.save(stream, "jpeg", quality=JPEG_QUALITY, optimize=True)
    return Figure(title, alt, _uri("jpeg", stream), image.size)


def _uri(kind: str, stream: io.BytesIO) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
