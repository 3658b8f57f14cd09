"""The report's images: where the masks are best, typical and worst, with all steps side by side."""

import math
from functools import partial

from torch import Tensor

from torch_svm_seg.data.constants import VOID
from torch_svm_seg.data.io import read_mask
from torch_svm_seg.report import pictures
from torch_svm_seg.report.content import Report
from torch_svm_seg.report.elements import chip, percent
from torch_svm_seg.report.markup import Markup, join, tag
from torch_svm_seg.report.pictures import Picture
from torch_svm_seg.report.settings import run_record

MOST_COLUMNS = 7  # images side by side


def gallery(report: Report) -> Markup:
    """Gives the best, median and worst images of the chosen step."""
    chosen = pictures.choose(report.chosen.score.per_image, report.shown)
    places = {id: place for place, id in enumerate(report.dataset.ids)}
    parts: list[Markup] = [
        tag(
            "p",
            "Images on which ",
            tag("b", report.chosen.name),
            " does best, as the median, and worst, by the mean IoU of the image alone over the classes in its "
            "ground truth. Each mask has its own below. White: unlabelled.",
        )
    ]
    for kind, ids in chosen.items():
        if ids:
            parts.append(tag("h3", kind.capitalize()))
            parts += [_example(report, id, places[id]) for id in ids]
    return join(*parts)


def _example(report: Report, id: str, place: int) -> Markup:
    image, truth = report.dataset.image(place), report.dataset.mask(place)
    shown = _pictures(report, id, image, truth)
    present = [number for number in truth.unique().tolist() if number != VOID]
    legend = [tag("li", chip(number), report.dataset.class_names[number]) for number in present]
    score = report.chosen.score.per_image[id]
    columns = math.ceil(len(shown) / math.ceil(len(shown) / MOST_COLUMNS))  # rows of one length
    return tag(
        "article",
        tag("h4", id, " ", tag("span", f"mIoU {percent(score)}", class_="small")),
        tag("ul", *legend, class_="legend"),
        tag("div", *(_figure(id, picture) for picture in shown), class_="images", style=f"--columns:{columns}"),
    )


def _pictures(report: Report, id: str, image: Tensor, truth: Tensor) -> list[Picture]:
    """What is known about an image, from left to right."""
    names = report.dataset.class_names
    shown = [pictures.item(image), pictures.mask("ground truth", lambda: truth, names)]
    if report.read_cams is not None:
        size = (image.shape[1], image.shape[2])
        shown.append(pictures.activation("CAM", image, partial(report.read_cams, id, size), names))
    settings = run_record(report.chosen.folder)[1].get("settings")
    if samples := pictures.study_samples(image, truth, settings if isinstance(settings, dict) else {}):
        shown.append(samples)
    for rung in report.rungs:
        read = partial(read_mask, rung.folder / f"{id}.png")
        shown.append(pictures.mask(rung.name, read, names, rung.score.per_image.get(id)))
    return shown


def _figure(id: str, picture: Picture) -> Markup:
    score = "" if picture.miou is None else tag("span", percent(picture.miou), class_="figures")
    caption = tag("figcaption", tag("span", picture.title), score)
    if picture.uri is None:
        return tag("figure", tag("div", picture.alt, class_="none"), caption)
    width, height = picture.size
    alt = f"{picture.title} of {id}: {picture.alt}"
    return tag("figure", tag("img", src=picture.uri, alt=alt, width=width, height=height), caption)
