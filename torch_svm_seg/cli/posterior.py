"""train.py posterior: class activation maps times what a pixel classifier knows from all images."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from torch_svm_seg.cam.io import cam_path, save_cams
from torch_svm_seg.cli.options.data import DataOptions, LabelOptions
from torch_svm_seg.cli.options.maps import SeedFileOptions
from torch_svm_seg.cli.options.option import group, option, recorded
from torch_svm_seg.cli.options.run import WriteOptions
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.pipeline.cam_supervision import CamFiles
from torch_svm_seg.pipeline.image_run import ImageRun
from torch_svm_seg.pipeline.supervision import LabelsAlone, MaskSeeds
from torch_svm_seg.pixel_classifier.classifier import load_pixel_classifier

HELP = "multiply class activation maps, or masks, by the probabilities of a pixel classifier"
DESCRIPTION = (
    "Write the posterior of each image's classes, from maps or masks and a classifier of train.py pixels, to "
    "DIR/ID.npz, with a background of its own, for expand.py --cams DIR. Without --cams and --seeds, all classes that "
    "an image is labelled with are as likely before. The same command continues an interrupted run."
)


@dataclass(frozen=True)
class PixelOptions:
    """The pixel classifier."""

    title: ClassVar = "classifier"

    pixels: Path = option(metavar="FILE", content=True, help="checkpoint of train.py pixels")


@dataclass(frozen=True)
class Settings:
    """Settings of the command."""

    data: DataOptions = group(affects_results=False)
    maps: SeedFileOptions = group()
    labels: LabelOptions = group()
    classifier: PixelOptions = group()
    run: WriteOptions = group(out=Path("out/posterior"))

    def prior(self, dataset: ImageDataset) -> CamFiles | MaskSeeds | LabelsAlone:
        """Open what is known before the classifier.

        Raises:
            InputError: It cannot be opened.
        """
        if self.maps.cams or self.maps.seeds:
            return self.maps.open_files(self.data, self.labels, dataset)
        labelled = self.labels.open(self.data, dataset)
        return LabelsAlone({id: labelled.classes(index) for index, id in enumerate(labelled.dataset.ids)})


def run(settings: Settings, rank: int = 0, processes: int = 1) -> int:
    """Write the posterior of each image's classes; return the exit code."""
    dataset, out = settings.data.open(), settings.run.out
    classifier = load_pixel_classifier(settings.classifier.pixels, dataset.class_names)
    classifier.to(settings.run.choose_device())
    prior = settings.prior(dataset)
    paths = [cam_path(out, id) for id in dataset.ids]

    def write(index: int) -> None:
        given = prior.read(dataset, index)
        maps = classifier(given.image, given.known, given.classes or (), full_size=isinstance(prior, MaskSeeds))
        save_cams(paths[index], maps, dataset.class_names)

    image_run = ImageRun(dataset, out, recorded(settings), settings.run.overwrite, rank, processes)
    return image_run.write_each(paths, write, partial(prior.sources, dataset))
