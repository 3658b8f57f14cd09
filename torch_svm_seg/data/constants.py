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
"""The classes of PASCAL VOC in its spelling; the index in the tuple is the class id."""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".ppm", ".tif", ".tiff", ".webp", ".npy")
"""Suffixes of the files that are taken for images, in lower case; those of files may be in any case."""

MASK_SUFFIXES = (".png", ".bmp", ".pgm", ".ppm", ".tif", ".tiff")
"""Suffixes of the files that are taken for masks; JPEG and WebP blur class ids, GIF renumbers them."""

VOID = 255
"""The id of pixels without a label, such as the borders of VOC's objects: never trained on, never scored."""

NO_REGION = -1
"""Number of the region of pixels that lie in none."""
