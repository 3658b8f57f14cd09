"""Networks that predict the class of every pixel: the purpose of pseudo masks.

All take RGB images from 0 to 255 and return logits at the image's size. The new layers of DeepLabV2 and of the
light network have no BatchNorm, so several processes train like one; those of torchvision and
segmentation-models-pytorch use the statistics of the batch, on several processes each of its own share.
"""

from torch_svm_seg.segmenters.builder import build_segmenter, load_segmenter
from torch_svm_seg.segmenters.deeplab_v2 import DeepLabV2
from torch_svm_seg.segmenters.lite import LiteSegmenter
from torch_svm_seg.segmenters.packaged import PackagedSegmenter
from torch_svm_seg.segmenters.prediction import class_probabilities, probability_maps
from torch_svm_seg.segmenters.segmenter import Segmenter

__all__ = [
    "DeepLabV2",
    "LiteSegmenter",
    "PackagedSegmenter",
    "Segmenter",
    "build_segmenter",
    "class_probabilities",
    "load_segmenter",
    "probability_maps",
]
