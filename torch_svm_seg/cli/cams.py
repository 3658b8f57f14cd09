"""train.py cams: activation maps of a trained classifier, of a segmentation network, or of CLIP."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from torch_svm_seg.cam.activation import SCALES, ActivationMaps, class_activation_maps, spread_maps
from torch_svm_seg.cam.checkpoints import load_classifier
from torch_svm_seg.cam.classifier import Classifier
from torch_svm_seg.cam.clip import CLIPMaps
from torch_svm_seg.cam.io import cam_path, save_cams
from torch_svm_seg.cli.options.clip import CLIPOptions
from torch_svm_seg.cli.options.data import DataOptions, LabelOptions, open_labelled
from torch_svm_seg.cli.options.maps import check_scales
from torch_svm_seg.cli.options.option import group, option, recorded
from torch_svm_seg.cli.options.run import WriteOptions
from torch_svm_seg.cli.options.walk import MapWalkOptions
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.provenance import Source
from torch_svm_seg.pipeline.image_run import ImageRun
from torch_svm_seg.segmenters import Segmenter, load_segmenter, probability_maps
from torch_svm_seg.segmenters.builder import METHOD
from torch_svm_seg.training.checkpoints import read_checkpoint

Network = Classifier | Segmenter | CLIPMaps

HELP = "write the activation maps of a classifier, a segmentation network, or CLIP"
DESCRIPTION = (
    "Write the class activation maps of images to DIR/ID.npz (torch_svm_seg/cam/io.py documents the format), of the "
    "classes that they are labelled with. Of a segmentation network, the maps are its probabilities among these "
    "classes and the background. The same command continues an interrupted run."
)


@dataclass(frozen=True)
class ActivationOptions:
    """The network and the views of each image that it sees."""

    title: ClassVar = "maps"

    checkpoint: Path | None = option(
        None, metavar="FILE", content=True, help="checkpoint of train.py classify or segment"
    )
    scales: tuple[float, ...] = option(
        SCALES,
        metavar="S",
        help="factors on the image's size whose maps are summed (default: 1 0.5 1.5 2; 1 alone is 7 times as fast)",
    )
    flip: bool = option(True, help="average with the mirror image, which takes twice as long")

    def load(self, class_names: Sequence[str]) -> Classifier | Segmenter:
        """Load the network, which must be of these classes.

        Raises:
            InputError: It cannot be read, or is of other classes.
        """
        path = self.checkpoint or ""
        is_segmenter = read_checkpoint(path).settings.get("method") == METHOD
        load = load_segmenter if is_segmenter else load_classifier
        return load(path, class_names)

    def maps(self, network: Network, image: Tensor, classes: Sequence[int]) -> ActivationMaps:
        """Compute the maps of an image (3, H, W) for its classes.

        Raises:
            InputError: The network gives activation that is not finite.
        """
        if isinstance(network, Segmenter):
            maps = probability_maps(network, image, classes, self.scales, self.flip)
        else:
            maps = class_activation_maps(network, image, classes, self.scales, self.flip)
        if not all(found.isfinite().all() for found in (maps.maps, maps.background) if found is not None):
            raise InputError(f"{self.checkpoint or '--clip'}: gives activation that is not finite")
        return maps


@dataclass(frozen=True)
class Settings:
    """Settings of the command."""

    data: DataOptions = group(affects_results=False)
    labels: LabelOptions = group()
    activation: ActivationOptions = group()
    clip: CLIPOptions = group()
    walk: MapWalkOptions = group()
    run: WriteOptions = group(out=Path("out/cams"))

    def load(self, class_names: Sequence[str]) -> Network:
        """Load the network that gives the maps.

        Raises:
            InputError: Not one of --checkpoint and --clip is given, or it cannot be loaded for these classes.
        """
        if (self.activation.checkpoint is None) == (self.clip.clip is None):
            raise InputError("--checkpoint and --clip: expected one of them")
        clip = self.clip.load(class_names)
        return self.activation.load(class_names) if clip is None else clip


def run(settings: Settings, rank: int = 0, processes: int = 1) -> int:
    """Write the class activation maps of images; return the exit code."""
    check_scales(settings.activation.scales)
    data = open_labelled(settings.data, settings.labels, rank)
    class_names, out = data.dataset.class_names, settings.run.out
    device = settings.run.choose_device()
    network = settings.load(class_names).to(device)
    walk = settings.walk.open()
    walk = walk.to(device) if walk else None
    paths = [cam_path(out, id) for id in data.dataset.ids]

    def write(index: int) -> None:
        image = data.dataset.image(index)
        maps = settings.activation.maps(network, image, data.classes(index))
        save_cams(paths[index], spread_maps(walk, image, maps) if walk else maps, class_names)

    def sources(index: int) -> Sequence[Source]:
        return (*data.dataset.image_sources(index), f"labels {data.classes(index)}")

    image_run = ImageRun(data.dataset, out, recorded(settings), settings.run.overwrite, rank, processes)
    return image_run.write_each(paths, write, sources)
