"""The paper's Figs. 2 and 8, turned so that names can be read: the ladder beside what others published."""

from torch_svm_seg.report.content import Report
from torch_svm_seg.report.dot_plot import CROSS, DIAMOND, DISC, DotRow, MarkKind, dot_plot, legend
from torch_svm_seg.report.elements import percent
from torch_svm_seg.report.markup import Markup, tag
from torch_svm_seg.report.published import PUBLISHED, PublishedMethod

OURS = MarkKind("ours", DIAMOND)
MASKS = MarkKind("masks", DISC, "30%")
VAL = MarkKind("hollow segmentation", DISC, "70%")
TEST = MarkKind("segmentation", DISC, "70%")
BOUND = MarkKind("hollow segmentation", CROSS, "70%")


def published_plot(report: Report) -> Markup:
    """Gives the section of a report on PASCAL VOC's classes."""
    ours = [DotRow(rung.name, "", [(OURS, 100 * rung.score.miou)], percent(rung.score.miou)) for rung in report.rungs]
    others = [DotRow(method.name, _origin(method), _marks(method), _figures(method)) for method in PUBLISHED]
    scored = max(rung.score.images for rung in report.rungs)
    here = f"Measured here: {report.described}, {scored} images, mean over the classes present"
    there = "Published, not measured here: PASCAL VOC 2012, mean over 21 classes"
    kinds = {
        "measured here": OURS,
        "pseudo masks, VOC train": MASKS,
        "segmentation, VOC val": VAL,
        "segmentation, VOC test": TEST,
        "fully supervised, VOC val or test": BOUND,
    }
    return tag(
        "section",
        tag("h2", "Beside published methods", id="published"),
        tag(
            "p",
            "After Figs. 2 and 8 of Lyu, Beauseroy and Baussard (ICPRAM 2024). Published methods are trained and "
            "scored on other images than these: compare what steps gain, not levels. What is not known from the "
            "authors, or from a comparison that quotes them, is left out.",
        ),
        legend(kinds),
        dot_plot({here: ours, there: others}),
    )


def _origin(method: PublishedMethod) -> str:
    return f"{method.source} ({method.remark})" if method.remark else method.source


def _marks(method: PublishedMethod) -> list[tuple[MarkKind, float]]:
    # The hollow marks of val above the filled ones of test: both are seen where they overlap.
    figures = [(MASKS, method.masks), (TEST, method.test), (VAL, method.val)]
    return [(BOUND if method.fully_supervised else kind, value) for kind, value in figures if value is not None]


def _figures(method: PublishedMethod) -> str:
    figures = {"masks": method.masks, "val": method.val, "test": method.test}
    return ", ".join(f"{name} {value}" for name, value in figures.items() if value is not None)
