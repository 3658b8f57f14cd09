"""Names and numbers that all data sets share."""

VOC_CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
"""The classes of PASCAL VOC in its spelling; the place in the tuple is the class id."""

_LOWER_CASE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")

IMAGE_SUFFIXES = _LOWER_CASE_SUFFIXES + tuple(suffix.upper() for suffix in _LOWER_CASE_SUFFIXES)
"""Suffixes of the files that :func:`folder` takes for images."""

VOID = 255
"""The id of pixels without a label, such as the borders of VOC's objects: never trained on, never scored."""
