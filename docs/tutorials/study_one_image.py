# # Study one image
#
# Which features separate the classes of an image? This is the question of the paper's Table 1: every image trains its
# own SVM on pixels of known class, and the SVM labels all pixels. The score is an upper bound of what the features
# allow.
#
# The image comes with a package, and so do the backbone's ImageNet weights: nothing is downloaded.

import torch

from torch_svm_seg import SVMExpander, load_backbone
from torch_svm_seg.data.embedded import embedded_sample
from torch_svm_seg.evaluation.metrics import SegmentationScore

dataset = embedded_sample()
item = dataset[0]
images, labels = item.image[None], item.mask[None]  # (1, 3, H, W), RGB from 0 to 255; (1, H, W), 255 is void

backbone = load_backbone("efficientnet_lite0")
with torch.no_grad():
    stages = backbone.stages(images, backbone.stage_names)
print({name: tuple(features.shape) for name, features in stages.items()})

# `img` is the image itself; `F1` to `F5` are the stages of the network, from fine and shallow to coarse and deep.
#
# ## One SVM per stage
#
# An `SVMExpander` samples pixels of each class, reads their features from the coarse maps by bilinear interpolation,
# fits one SVM per class against the rest, and scores every pixel. No dense feature map of the whole image is ever made.

expander = SVMExpander(samples_per_class=300)
scores = {}
for name, features in stages.items():
    masks = expander(features, labels).masks
    score = SegmentationScore(num_classes=21)
    score.update(masks, labels)
    scores[name] = score.compute().miou
    print(f"{name}: mIoU {100 * scores[name]:.1f} %")

# Colours alone do not tell classes apart; the deepest stage knows the classes but not where exactly they end. The best
# compromise lies between both.
#
# ## Several stages in one SVM
#
# A list of maps is fused: every stage contributes the same variance, whatever its number of channels.

expansion = expander([stages["F1"], stages["F3"], stages["F4"]], labels)
score = SegmentationScore(num_classes=21)
score.update(expansion.masks, labels)
scores["F1+F3+F4"] = score.compute().miou
print(f"F1+F3+F4: mIoU {100 * scores['F1+F3+F4']:.1f} %")

# The result holds more than the masks:

print(expansion.scores.shape)  # (1, K, H, W); -inf for classes that the image does not have
print(expansion.sample.classes.shape)  # the sampled pixels' classes, -1 is padding

# ## Labels of some images, masks of others
#
# Slices, frames and tiles look alike: one SVM fitted to the labels of some labels all. Here another image is the mirror
# image. `expand.py --fit-on LIST` does so for a folder.

fused = ["F1", "F3", "F4"]
expander.fit([stages[name] for name in fused], labels)
with torch.no_grad():
    mirrored = backbone.stages(images.flip(3), fused)
masks = expander.predict([mirrored[name] for name in fused], labels.shape[1:]).masks
score = SegmentationScore(num_classes=21)
score.update(masks, labels.flip(2))
scores["mirror image"] = score.compute().miou
print(f"mirror image: mIoU {100 * scores['mirror image']:.1f} %")

# ## The same from the command line
#
# ```
# python expand.py                                      # this image
# python expand.py --root DIR --out runs/voc            # all of VOC 2012 train
# python evaluate.py --root DIR --predictions runs/voc  # beside the paper's Table 1
# ```
#
# [Choosing features, kernel and C](../choose.md) has the measurements on many images.
