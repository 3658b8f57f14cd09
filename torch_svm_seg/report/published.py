"""Published figures on PASCAL VOC 2012, none measured by this project, and the plot of a report's steps beside them.

Pseudo masks are scored on ``train``, segmentation networks on ``val`` and ``test``, always over all 21 classes. Figures
that are not known from the authors' paper or code, or from a comparison that quotes them, are left out rather than read
off a diagram.
"""

import math
from dataclasses import dataclass

from torch_svm_seg.report.content import Report, percent
from torch_svm_seg.report.dot_plot import CROSS, DIAMOND, DISC, DotPlot, DotRow, MarkKind


@dataclass(frozen=True)
class PublishedMethod:
    """A method's mIoU in percent; None where it is not known.

    Attributes:
        name: Name by its authors.
        source: Authors, venue and year.
        masks: mIoU of its pseudo masks, on ``train``.
        val: mIoU of the segmentation network trained on them, on ``val``.
        test: The same on ``test``.
        fully_supervised: Whether it is trained on ground truth, the bound for the others.
        remark: Difference from the others.

    Examples:
        >>> PUBLISHED[0].name, PUBLISHED[0].figures
        ('IRN', 'masks 66.5, val 63.5, test 64.8')
    """

    name: str
    source: str
    masks: float | None = None
    val: float | None = None
    test: float | None = None
    fully_supervised: bool = False
    remark: str = ""

    @property
    def origin(self) -> str:
        """Source and remark."""
        return f"{self.source} ({self.remark})" if self.remark else self.source

    @property
    def figures(self) -> str:
        """The known figures in words."""
        figures = {"masks": self.masks, "val": self.val, "test": self.test}
        return ", ".join(f"{name} {value}" for name, value in figures.items() if value is not None)


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
    PublishedMethod("CLIP-ES", "Lin et al., CVPR 2023", masks=75.0, remark="with CLIP and a dense CRF"),
    PublishedMethod("ToCo", "Ru et al., CVPR 2023", val=71.1, test=72.2, remark="ViT-B"),
    PublishedMethod("MARS", "Jo et al., ICCV 2023", val=77.7, test=77.2),
    PublishedMethod("SeCo", "Yang et al., CVPR 2024", val=74.0, test=73.9, remark="ViT-B"),
    PublishedMethod("WeCLIP", "Zhang et al., CVPR 2024", val=76.4, test=77.2, remark="with CLIP"),
    PublishedMethod("DHR", "Jo et al., ECCV 2024", val=79.8, remark="ResNet-101"),
    PublishedMethod("ExCEL", "Yang et al., CVPR 2025", val=78.4, test=78.5, remark="with CLIP"),
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

_OURS = MarkKind("ours", DIAMOND)
_MASKS = MarkKind("masks", DISC, "30%")
_VAL = MarkKind("hollow segmentation", DISC, "70%")
_TEST = MarkKind("segmentation", DISC, "70%")
_BOUND = MarkKind("hollow segmentation", CROSS, "70%")
_LEGEND = {
    "measured here": _OURS,
    "pseudo masks, VOC train": _MASKS,
    "segmentation, VOC val": _VAL,
    "segmentation, VOC test": _TEST,
    "fully supervised, VOC val or test": _BOUND,
}


def published_plot(report: Report) -> DotPlot:
    """Return Figs. 2 and 8 of the paper, turned so that names can be read: the steps beside published methods."""
    scored = max(step.score.images for step in report.steps)
    here = f"Measured here: {report.described}, {scored} images, mean over the classes present"
    there = "Published, not measured here: PASCAL VOC 2012, mean over 21 classes"
    ours = [_our_row(step.name, step.score.miou) for step in report.steps]
    others = [DotRow(method.name, method.origin, _marks(method), method.figures) for method in PUBLISHED]
    return DotPlot(_LEGEND, {here: ours, there: others})


def _our_row(name: str, miou: float) -> DotRow:
    return DotRow(name, "", [] if math.isnan(miou) else [(_OURS, 100 * miou)], percent(miou))


def _marks(method: PublishedMethod) -> list[tuple[MarkKind, float]]:
    # The hollow marks of val above the filled ones of test: both are seen where they overlap.
    figures = [(_MASKS, method.masks), (_TEST, method.test), (_VAL, method.val)]
    return [(_BOUND if method.fully_supervised else kind, value) for kind, value in figures if value is not None]
