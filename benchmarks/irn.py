"""IRN's random walk against dense CRF and PAMR, before and after the SVM: quality, time and memory.

    python -m benchmarks.irn --root DIR --cams runs/cams --irn runs/irn/checkpoint.pt

Each image goes through every order of steps from its class activation maps to a mask. "seed" is the maps' own mask
and the stage's name is the SVM: alone it trains on the confident pixels of the seed, after "crf>" or "irn>" on those
of the seed's regions as that refinement fits them to the image, and after "irn+" on those of the walk's result.
Refinements get probabilities; "unnormalised" is the walk of the maps as they are, "threshold" IRN's own way with the
background.

The first table is the growth of a process's largest resident size in one refinement of an image resized to 500x500,
with 3 classes, after one of 64x64 that loads what is loaded once. The second one has the IoU of each class, in percent,
and the mean seconds of each order's last step.
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from benchmarks.memory import peak
from torch_svm_seg.backbones.builder import load_backbone
from torch_svm_seg.cli.options.data import DataOptions
from torch_svm_seg.cli.options.option import add_options, read_options
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.evaluation.metrics import SegmentationScore
from torch_svm_seg.expansion.expander import SVMExpander
from torch_svm_seg.expansion.labelling import as_probabilities, label
from torch_svm_seg.expansion.self_training import SelfTraining
from torch_svm_seg.irn import IRNRefinement, load_irn
from torch_svm_seg.pipeline.backgrounds import background_rule
from torch_svm_seg.pipeline.cam_supervision import CamFiles
from torch_svm_seg.refine import PAMR, DenseCRF
from torch_svm_seg.refine.steps import refine


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure refinement by IRN, dense CRF and PAMR around the SVM.")
    add_options(parser, DataOptions)
    parser.add_argument("--cams", required=True, type=Path, help="class activation maps, ID.npz; others are left out")
    parser.add_argument("--background", default="own", help="of the maps, as for expand.py (default: own)")
    parser.add_argument("--irn", required=True, help="checkpoint of train.py irn")
    parser.add_argument("--backbone", default="efficientnet_lite0", help="of the SVM (default: %(default)s)")
    parser.add_argument("--feature", default="F4", help="of the SVM (default: %(default)s)")
    parser.add_argument("--samples-per-class", type=int, default=500, help="of the SVM (default: %(default)s)")
    parser.add_argument("--every", type=int, default=1, help="take one image of so many (default: 1)")
    return parser


class Orders:
    """The orders of steps, applied to one image after the other.

    Attributes:
        scores: what their masks are worth, by the order's name.
        seconds: time of their last steps.
    """

    def __init__(self, args: argparse.Namespace, classes: int) -> None:
        self.classes, self.feature = classes, args.feature
        self.backbone = load_backbone(args.backbone)
        self.svm = SVMExpander(num_classes=classes, samples_per_class=args.samples_per_class)
        irn = load_irn(args.irn)
        self.threshold = IRNRefinement(irn.network, exponent=1, threshold=0.25)
        self.refinements: dict[str, nn.Module] = {"crf": DenseCRF(), "pamr": PAMR(), "irn": irn}
        self.scores: dict[str, SegmentationScore] = {}
        self.seconds: dict[str, float] = {}

    def __call__(self, image: Tensor, activation: Tensor, truth: Tensor) -> None:
        """Score all orders on an image (3, H, W), activation (K, H, W) of all classes, and ground truth (H, W)."""
        images, activation = image[None], activation[None]
        features = self.backbone.stages(images, [self.feature])[self.feature]
        seeds = activation.argmax(1)

        def done(name: str, step: Callable[[], Tensor]) -> Tensor:
            """Time a step, and score the probabilities (1, K, H, W) that it gives."""
            start = time.perf_counter()
            probabilities = step()
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
            score = self.scores.setdefault(name, SegmentationScore(self.classes))
            score.update(label(probabilities, seeds).masks[0], truth)
            return probabilities

        def refined(name: str, refinement: nn.Module, probabilities: Tensor) -> Tensor:
            return done(name, lambda: refine([refinement], images, probabilities))

        shares = done("seed", lambda: as_probabilities(activation))
        walked = [refined(f"seed+{name}", step, shares) for name, step in self.refinements.items()][-1]
        refined("seed+irn, unnormalised", self.refinements["irn"], activation.clamp_min(0))
        refined("seed+irn, threshold", self.threshold, activation.clamp_min(0))
        absent = activation.isneginf()
        starts = {
            self.feature: (None, activation),
            f"crf>{self.feature}": (self.refinements["crf"], activation),
            f"irn>{self.feature}": (self.refinements["irn"], activation),
            f"irn+{self.feature}": (None, walked.masked_fill(absent, -torch.inf)),
        }
        for name, (agreement, start) in starts.items():
            svm = SelfTraining(self.svm, agreement)
            probabilities = done(name, partial(self._expanded, svm, images, features, start))
            for refinement in ("crf", "irn"):
                refined(f"{name}+{refinement}", self.refinements[refinement], probabilities)

    def _expanded(self, svm: SelfTraining, images: Tensor, features: Tensor, activation: Tensor) -> Tensor:
        probabilities: Tensor = svm(images, features, activation).probabilities
        return probabilities


def measure(args: argparse.Namespace, dataset: ImageDataset) -> None:
    """Print the second table."""
    indices = [index for index, id in enumerate(dataset.ids) if (args.cams / f"{id}.npz").is_file()][:: args.every]
    cams, orders = CamFiles(args.cams, background_rule(args.background)), Orders(args, len(dataset.class_names))
    for index in tqdm(indices, unit="image"):
        _, image, activation = cams.read(dataset, index)
        orders(image, activation, dataset.mask(index))
    results = {name: score.compute() for name, score in orders.scores.items()}
    shown = [id for id, iou in enumerate(next(iter(results.values())).per_class) if not iou.isnan()]
    print(f"| {len(indices)} images | " + " | ".join(dataset.class_names[id] for id in shown) + " | mIoU | s/image |")
    print("|---" * (len(shown) + 3) + "|")
    for name, result in results.items():
        cells = " | ".join(f"{100 * result.per_class[id]:.2f}" for id in shown)
        print(f"| {name} | {cells} | {100 * result.miou:.2f} | {orders.seconds[name] / len(indices):.2f} |")


def memory(args: argparse.Namespace, name: str) -> None:
    """Print one row of the first table."""
    torch.set_num_threads(1)
    image = read_options(DataOptions, args).open().image(0)[None].float()
    refinement: nn.Module = {"crf": DenseCRF, "pamr": PAMR, "irn": lambda: load_irn(args.irn)}[name]()
    with torch.inference_mode():
        for side in (64, 500):
            resized = F.interpolate(image, (side, side))
            probabilities = torch.rand(1, 3, side, side).softmax(1)
            before = peak()
            refinement(resized, probabilities)
    print(f"| {name} | {peak() - before:.0f} |", flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    args = build_parser().parse_args(argv)
    # First, while this process is small: a child's largest size starts at its parent's.
    print("| refinement of 500x500 | adds, MB |\n|---|---|", flush=True)
    for name in ("crf", "pamr", "irn"):
        process = multiprocessing.get_context("spawn").Process(target=memory, args=(args, name))
        process.start()
        process.join()
    print()
    torch.set_num_threads(1)
    with torch.inference_mode():
        measure(args, read_options(DataOptions, args).open())


if __name__ == "__main__":
    main()
