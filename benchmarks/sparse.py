"""Masks from few labels: with and without the labels of other images, refined, and by other classifiers.

    python -m benchmarks.sparse --root DIR --list LIST --points clicks.json --every 4
    python -m benchmarks.sparse --root DIR --list LIST --scribbles CUES --every 4 --peers
    python -m benchmarks.sparse --root DIR --list LIST --simulate 1 3 5 10 --every 10 --helpers clicks.json

All rows see the same labels and features. Features are computed once an image, and kept in ``--cache DIR`` if it is
given. Peers learn from the labelled pixels and label the cells of the features' grid; their scores are interpolated.
Simulated clicks follow the usual protocol: one in the middle of each class, then each in the middle of the largest
error.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from sklearn.ensemble import RandomForestClassifier
from torch import Tensor

from benchmarks.simulated_clicks import among_present, simulated
from torch_svm_seg.backbones.builder import load_backbone
from torch_svm_seg.data.constants import VOID
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import read_mask
from torch_svm_seg.data.points import read_points
from torch_svm_seg.data.voc import voc2012
from torch_svm_seg.evaluation.metrics import SegmentationScore
from torch_svm_seg.expansion.expander import SVMExpander
from torch_svm_seg.expansion.labelling import Labelling, SVMLabeller
from torch_svm_seg.pipeline.sparse_labels import PointLabels
from torch_svm_seg.pixel_classifier.classifier import PixelClassifier, join_maps
from torch_svm_seg.pixel_classifier.other_images import OtherImages, add_labelled
from torch_svm_seg.refine import PAMR, DenseCRF, refine
from torch_svm_seg.svm.least_squares import ClassMoments
from torch_svm_seg.svm.svm import SVM

PER_CLASS = 200
MOST_FOR_PEERS = 2500
REFINEMENTS = {"CRF": ("crf",), "PAMR": ("pamr",), "CRF, PAMR": ("crf", "pamr")}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description="Masks from few labels.")
    parser.add_argument("--root", required=True, help="folder that holds VOCdevkit")
    parser.add_argument("--list", required=True, help="image names, one per line; all of them help each other")
    parser.add_argument("--every", type=int, default=1, help="score every N-th image")
    parser.add_argument("--start", type=int, default=0, help="the first of them")
    labels = parser.add_mutually_exclusive_group(required=True)
    labels.add_argument("--points", help="clicks, as expand.py reads them")
    labels.add_argument("--scribbles", help="folder of ID.png, resized to the image without interpolation")
    labels.add_argument("--simulate", nargs="+", type=int, help="numbers of simulated clicks")
    parser.add_argument("--helpers", help="clicks of the list's images, which help simulated ones of others")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--weights")
    parser.add_argument("--features", default="F3+F4+F5")
    parser.add_argument("--cache", type=Path, help="folder to keep features in")
    parser.add_argument("--refine", action="store_true", help="refine the masks by other images, too")
    parser.add_argument("--peers", action="store_true", help="other classifiers, too")
    return parser


class Benchmark:
    """The images, their features and their labels."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.dataset = args, voc2012(args.root, list_file=args.list)
        backbone = load_backbone(args.backbone, args.weights)
        stages = args.features.split("+")
        self.classifier = PixelClassifier(backbone, stages, len(self.dataset.class_names))
        self.labeller = SVMLabeller(SVMExpander(SVM("linear")))
        self.rows: dict[str, SegmentationScore] = {}

    def maps(self, index: int) -> list[Tensor]:
        """Return the features of an image, (1, C, h, w) of each stage."""
        stages = self._stages(index)
        return [stages[name] for name in self.classifier.stages]

    def _stages(self, index: int) -> dict[str, Tensor]:
        path = self.args.cache and self.args.cache / f"{self.dataset.ids[index]}.pt"
        if path and path.is_file():
            return {name: maps.float() for name, maps in torch.load(path).items()}
        stages = self.classifier.backbone.stages(self.dataset.image(index)[None], self.classifier.stages)
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save({name: maps.half().clone() for name, maps in stages.items()}, path)
        return stages

    def score(self, name: str, index: int, mask: Tensor) -> None:
        """Add a mask (H, W) to the score of a row."""
        score = self.rows.setdefault(name, SegmentationScore(len(self.dataset.class_names)))
        score.update(mask[None], self.dataset.mask(index)[None])

    def print_rows(self) -> None:
        """Print the mean IoU of each row."""
        for name, score in self.rows.items():
            print(f"| {name} | {100 * score.compute().miou:.2f} |", flush=True)


def reader(clicks: str | None, folder: str | None, dataset: ImageDataset) -> Callable[[int], Tensor]:
    """Return what reads the labels (H, W) of the image of an index from clicks, or from a folder of scribbles."""
    if clicks:
        points = PointLabels(read_points(clicks, dataset.class_names))
        return lambda index: points.read(dataset, index).known

    def scribbles(index: int) -> Tensor:
        labels = read_mask(Path(folder or "") / f"{dataset.ids[index]}.png")
        if bool((labels == VOID).all()):
            raise InputError(f"{dataset.ids[index]}: none of its pixels is labelled")
        size = dataset.image(index).shape[1:]
        return torch.nn.functional.interpolate(labels[None, None].float(), size, mode="nearest-exact")[0, 0].long()

    return scribbles


def readable(
    dataset: ImageDataset, read: Callable[[int], Tensor], indices: Sequence[int]
) -> Iterator[tuple[int, Tensor]]:
    """Yield the images that have labels, with these."""
    for index in indices:
        try:
            yield index, read(index)
        except InputError as error:
            print(f"skipped {error}")


def other_images(benchmark: Benchmark, read: Callable[[int], Tensor]) -> OtherImages:
    """Return what labels with the help of those of all images of the list."""
    dataset, classifier = benchmark.dataset, benchmark.classifier
    moments = ClassMoments.zeros(len(dataset.class_names), classifier.channels)
    for index, labels in readable(dataset, read, range(len(dataset))):
        add_labelled(moments, join_maps(benchmark.maps(index))[0], labels, PER_CLASS)
    return OtherImages(classifier, moments, samples_per_class=PER_CLASS)


def without(others: OtherImages, features: Tensor, labels: Tensor) -> OtherImages:
    """Return the labels of all images but one, given its features (D, h, w) and labels (H, W)."""
    moments = ClassMoments(*(part.clone() for part in others.moments))
    own = ClassMoments.zeros(len(moments.counts), len(features))
    add_labelled(own, features, labels, PER_CLASS)
    left = moments.counts - own.counts > 0.5  # the difference of two sums of equal terms is a rounding error
    for part, mine in zip(moments, own, strict=True):
        part -= mine
        part[~left] = 0
    return OtherImages(others.classifier, moments, samples_per_class=PER_CLASS)


def measure_labels(benchmark: Benchmark) -> None:
    """Score the masks from points or scribbles."""
    args, dataset = benchmark.args, benchmark.dataset
    read = reader(args.points, args.scribbles, dataset)
    others = other_images(benchmark, read)
    steps = {"crf": DenseCRF.preset("psa"), "pamr": PAMR()}
    for index, labels in readable(dataset, read, range(args.start, len(dataset), args.every)):
        maps, image = benchmark.maps(index), dataset.image(index)[None]
        known, ids = among_present(labels)
        for name, expander in {"SVM": None, "other images": others.expander(ids)}.items():
            labelling: Labelling = benchmark.labeller(image, maps, known[None], expander=expander)
            benchmark.score(name, index, ids[labelling.masks[0]])
        for title, how in REFINEMENTS.items() if args.refine else ():
            refined = refine([steps[step] for step in how], image, labelling.probabilities)
            benchmark.score(f"{name}, {title}", index, ids[refined[0].argmax(0)])
        for name, peer in PEERS.items() if args.peers else ():
            scores = peer(join_maps(maps)[0], known, len(ids))
            benchmark.score(name, index, ids[scores.argmax(0)])


def on_grid(predict: Callable[[Tensor], Tensor], features: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the scores (K, H, W) of cells' features (D, h, w), interpolated."""
    scores = predict(features.flatten(1).mT).mT.view(1, -1, *features.shape[1:])
    return torch.nn.functional.interpolate(scores.float(), size, mode="bilinear")[0]


def labelled_cells(features: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Return the features (n, D) and the classes of the labelled pixels, or of a random choice of many."""
    size = (known.shape[0], known.shape[1])
    pixels = (known != VOID).nonzero()
    chosen = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))[:MOST_FOR_PEERS]
    rows, columns = pixels[chosen].T
    grid = torch.stack([(columns + 0.5) / size[1], (rows + 0.5) / size[0]], -1) * 2 - 1
    read = torch.nn.functional.grid_sample(features[None], grid[None, None], "bilinear", "border", align_corners=False)
    return read[0, :, 0].mT, known[rows, columns]


def forest(features: Tensor, known: Tensor, number: int) -> Tensor:
    """Score by a random forest of 100 trees."""
    x, y = labelled_cells(features, known)
    trees = RandomForestClassifier(100, n_jobs=1, random_state=0).fit(x.numpy(), y.numpy())
    return on_grid(lambda cells: torch.from_numpy(trees.predict_proba(cells.numpy())), features, known.shape)


def ridge(features: Tensor, known: Tensor, number: int) -> Tensor:
    """Score by a least-squares classifier of the image's own labels."""
    moments = ClassMoments.zeros(number, len(features))
    moments.add(*labelled_cells(features, known))
    return on_grid(moments.solve(), features, known.shape)


def nearest(features: Tensor, known: Tensor, number: int) -> Tensor:
    """Score by the cosine to the nearest labelled pixel of each class."""
    x, y = labelled_cells(features, known)
    normal = partial(torch.nn.functional.normalize, dim=-1)

    def closest(cells: Tensor) -> Tensor:
        return torch.stack([(normal(cells) @ normal(x[y == class_]).mT).amax(1) for class_ in range(number)], 1)

    return on_grid(closest, features, known.shape)


def nearest_position(features: Tensor, known: Tensor, number: int) -> Tensor:
    """Score by the distance in the image to the nearest labelled pixel of each class: labels that are filled in."""
    distances = [ndimage.distance_transform_edt(known.numpy() != class_) for class_ in range(number)]
    return -torch.from_numpy(np.stack(distances))


PEERS = {
    "random forest": forest,
    "ridge": ridge,
    "nearest neighbour": nearest,
    "nearest label in the image": nearest_position,
}


Scores = Callable[[Tensor, Tensor], Tensor]
"""Scores (1, K, H, W) of an image from its labels (1, H, W) by number, and the ids of the classes."""


def click_methods(benchmark: Benchmark, maps: Sequence[Tensor], others: OtherImages | None) -> dict[str, Scores]:
    """Return what labels an image of some feature maps by simulated clicks."""
    svm = benchmark.labeller.expander
    methods: dict[str, Scores] = {"SVM": lambda known, ids: svm(maps, known).scores}
    if others is not None:
        methods["other images"] = lambda known, ids: others.expander(ids)(maps, known).scores
    return methods


def measure_clicks(benchmark: Benchmark) -> None:
    """Score the masks from simulated clicks, for each method those that its own errors ask for."""
    args, dataset = benchmark.args, benchmark.dataset
    read = reader(args.helpers, None, dataset) if args.helpers else None
    everywhere = other_images(benchmark, read) if read else None
    for index in range(args.start, len(dataset), args.every):
        maps, truth, others = benchmark.maps(index), dataset.mask(index).long(), everywhere
        if read is not None and everywhere is not None:
            for _, labels in readable(dataset, read, [index]):
                others = without(everywhere, join_maps(maps)[0], labels)
        for name, scores in click_methods(benchmark, maps, others).items():
            for number, mask in simulated(scores, truth, sorted(args.simulate)):
                benchmark.score(f"{name}, {number} clicks", index, mask)


@torch.inference_mode()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    args = build_parser().parse_args(argv)
    benchmark = Benchmark(args)
    (measure_clicks if args.simulate else measure_labels)(benchmark)
    benchmark.print_rows()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
