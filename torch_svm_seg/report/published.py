"""What others published on PASCAL VOC 2012: nothing in this file was measured by this project.

Pseudo masks are scored on ``train``, segmentation networks on ``val`` and ``test``, always over all 21 classes. What is
not known from the authors' paper or code, or from a comparison that quotes it, is left out rather than read off a
diagram.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedMethod:
    """A method's mIoU in percent; None where it is not known.

    Attributes:
        name: what the authors call it.
        source: authors, venue and year.
        masks: of its pseudo masks, on ``train``.
        val: of the segmentation network trained on them, on ``val``.
        test: the same on ``test``.
        fully_supervised: trained on ground truth, the bound for the others.
        remark: what sets it apart from the others.
    """

    name: str
    source: str
    masks: float | None = None
    val: float | None = None
    test: float | None = None
    fully_supervised: bool = False
    remark: str = ""


PUBLISHED = (
    PublishedMethod("IRN", "Ahn et al., CVPR 2019", masks=66.5, val=63.5, test=64.8, remark="ResNet-50"),
    PublishedMethod("CONTA", "Zhang et al., NeurIPS 2020", val=66.1, test=66.7, remark="on SEAM"),
    PublishedMethod("AdvCAM", "Lee et al., CVPR 2021", masks=68.0, val=68.1, test=68.0, remark="random walk"),
    PublishedMethod("EPS", "Lee et al., CVPR 2021", val=71.0, test=71.8, remark="with saliency maps"),
    PublishedMethod("PMM", "Li et al., ICCV 2021", val=70.0, test=70.5, remark="Res2Net-101"),
    PublishedMethod("RIB", "Lee et al., NeurIPS 2021", val=68.3, test=68.6),
    PublishedMethod("SIPE", "Chen et al., CVPR 2022", val=68.8, test=69.7),
    PublishedMethod("CLIMS", "Xie et al., CVPR 2022", masks=70.5, val=69.3, test=68.7, remark="with CLIP"),
    PublishedMethod("PPL", "Li et al., TMM 2022", test=69.6),
    PublishedMethod("MARS", "Jo et al., ICCV 2023", val=77.7, test=77.2),
    PublishedMethod(
        "Image-specific SVM, F1",
        "Lyu et al., ICPRAM 2024",
        masks=96.67,
        remark="upper bound",
    ),
    PublishedMethod("DeepLabV2", "Chen et al., TPAMI 2018", val=77.7, test=79.7, fully_supervised=True),
    PublishedMethod("SegNeXt", "Guo et al., NeurIPS 2022", test=90.6, fully_supervised=True),
)
"""Methods of the paper's Figs. 2 and 8 whose figures are known, and some beside them."""
