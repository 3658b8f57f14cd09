"""The expander inside an ordinary training loop: a few labelled pixels become pseudo labels, image by image, online.

python -m examples.embed
"""

import torch
from torch import nn
from torch.nn import functional as F

from torch_svm_seg import SVMExpander
from torch_svm_seg.backbones.builder import load_backbone
from torch_svm_seg.data.embedded import embedded_sample
from torch_svm_seg.evaluation.metrics import SegmentationScore


def main(steps: int = 30, clicks: int = 20) -> tuple[float, float]:
    """Train a segmentation head; returns its first and last loss."""
    torch.manual_seed(0)
    backbone, expander = load_backbone("efficientnet_lite0"), SVMExpander(samples_per_class=clicks)
    head = nn.Conv2d(backbone.channels["F4"], 21, 1)
    optimizer, losses = torch.optim.Adam(head.parameters(), lr=1e-2), []
    loader = [(photo.image[None], photo.mask[None]) for photo in embedded_sample()] * steps
    for images, labels in loader:
        with torch.no_grad():
            stages = backbone.stages(images, ["F1", "F3", "F4"])
            pseudo_masks = expander([stages["F1"], stages["F3"], stages["F4"]], labels).masks  # of 20 pixels a class
        scores = F.interpolate(head(stages["F4"]), labels.shape[1:], mode="bilinear")
        losses.append(F.cross_entropy(scores, pseudo_masks))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    for name, masks in (("pseudo labels", pseudo_masks), ("trained head", scores.argmax(1))):
        print(f"{name}: mIoU {100 * SegmentationScore(21)(masks, labels).miou:.1f}")
    return losses[0].item(), losses[-1].item()


if __name__ == "__main__":
    main()
