"""train.py predict: masks of a trained segmentation network."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch_svm_seg.cli.options.data import DataOptions
from torch_svm_seg.cli.options.maps import check_scales
from torch_svm_seg.cli.options.option import group, option, recorded
from torch_svm_seg.cli.options.refinement import RefinementOptions
from torch_svm_seg.cli.options.run import WriteOptions
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import save_mask
from torch_svm_seg.evaluation.voc_archive import check_voc_archive, write_voc_archive
from torch_svm_seg.pipeline.image_run import ImageRun
from torch_svm_seg.refine import refine
from torch_svm_seg.segmenters import class_probabilities, load_segmenter

HELP = "write a trained segmentation network's masks"
DESCRIPTION = (
    "Write the masks of images to DIR/ID.png, as evaluate.py scores them. Image-level labels are "
    "never used. The same command continues an interrupted run."
)


@dataclass(frozen=True)
class PredictedMaskOptions(RefinementOptions):
    """The network, and what its masks are made of."""

    title: ClassVar = "masks"

    checkpoint: Path = option(metavar="FILE", content=True, help="checkpoint of train.py segment")
    scales: tuple[float, ...] = option(
        (1.0,),
        metavar="S",
        help="factors on the image's size whose probabilities are averaged (default: 1; usual for the best masks: 0.5 "
        "0.75 1 1.25 1.5 1.75 with --flip, 17 times the work)",
    )
    flip: bool = option(False, help="average with the mirror image")
    refine: str = option(
        "none",
        metavar="HOW",
        help="refinement of the probabilities: crf, pamr, par, irn, or several in a row, crf+pamr",
    )
    voc_archive: Path | None = option(
        None,
        metavar="FILE",
        help="also pack the masks for VOC's evaluation server, *.tar.gz, as comp6_SET_cls with --split's name",
        affects_results=False,
    )


@dataclass(frozen=True)
class Settings:
    """Settings of the command."""

    data: DataOptions = group(affects_results=False)
    masks: PredictedMaskOptions = group(crf="deeplab")
    run: WriteOptions = group(out=Path("out/predict"))


def run(settings: Settings, rank: int = 0, processes: int = 1) -> int:
    """Write the masks of images; return the exit code."""
    dataset, masks, out = settings.data.open(), settings.masks, settings.run.out
    if masks.voc_archive is not None:
        check_voc_archive(masks.voc_archive, dataset.class_names)
    check_scales(masks.scales)
    device = settings.run.choose_device()
    network = load_segmenter(masks.checkpoint, dataset.class_names).to(device)
    steps = masks.open(masks.refine, device)
    paths = [out / f"{id}.png" for id in dataset.ids]

    def write(index: int) -> None:
        image = dataset.image(index)
        probabilities = class_probabilities(network, image, masks.scales, masks.flip)
        if not probabilities.isfinite().all():
            raise InputError(f"{masks.checkpoint}: gives probabilities that are not finite")
        save_mask(paths[index], refine(steps, image[None].to(device), probabilities[None])[0].argmax(0))

    record = recorded(settings) | {"image_level_labels": False}
    overwrite = settings.run.overwrite
    image_run = ImageRun(dataset, out, record, overwrite, rank, processes)
    code = image_run.write_each(paths, write, dataset.image_sources)
    if rank == 0:
        print("The masks are predicted without image-level labels.")
        if masks.voc_archive is not None:
            image_set = settings.data.list.stem if settings.data.list else settings.data.split or "train"
            write_voc_archive(masks.voc_archive, out, dataset.ids, image_set)
            print(f"{masks.voc_archive}: packed for VOC's evaluation server")
    return code
