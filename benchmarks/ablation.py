"""What each choice in weak mode is worth: one change at a time, on the same images and activation maps.

    python -m benchmarks.ablation --root DIR --split val --checkpoint runs/cam/checkpoint.pt

Settings are chosen on images that neither the classifier nor the pseudo masks are about: never on the training list.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from tqdm import tqdm

from torch_svm_seg import SVMExpander
from torch_svm_seg.cam.activation import class_activation_maps
from torch_svm_seg.cam.checkpoints import load_classifier
from torch_svm_seg.cli.options.data import DataOptions, LabelOptions
from torch_svm_seg.cli.options.option import add_options, read_options
from torch_svm_seg.data.class_numbers import ids_of
from torch_svm_seg.evaluation.metrics import SegmentationScore
from torch_svm_seg.expansion.labelling import Labelling, SeedLabeller, label
from torch_svm_seg.expansion.ppmg import PPMG
from torch_svm_seg.expansion.self_training import SelfTraining
from torch_svm_seg.pipeline.backgrounds import activation_of, background_rule
from torch_svm_seg.refine import DenseCRF, refine
from torch_svm_seg.svm.svm import SVM


@dataclass(frozen=True)
class Variant:
    """One way to make pseudo masks; the defaults are those of ``expand.py``."""

    background: str = "power:4"
    agreement: bool = True
    share: float = 0.7
    samples: int = 500
    rounds: int = 1
    feature: str = "F4"
    kernel: str = "rbf"
    C: float = 1.0

    def labeller(self) -> SelfTraining:
        """The labeller of the masks."""
        svm = SVM(kernel=self.kernel, C=self.C)  # type: ignore[arg-type]
        expander = SVMExpander(svm, samples_per_class=self.samples)
        return SelfTraining(expander, DenseCRF() if self.agreement else None, self.share, self.rounds)


CHANGES: dict[str, list[object]] = {
    "background": ["power:2", "power:8", "constant:0.2", "constant:0.3", "constant:0.4", "own"],
    "agreement": [False],
    "share": [1.0, 0.5, 0.3],
    "samples": [100, 2500],
    "rounds": [2, 3],
    "feature": ["F2", "F3", "F5"],
    "kernel": ["linear"],
    "C": [0.1, 10.0],
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, DataOptions)
    add_options(parser, LabelOptions)
    parser.add_argument("--checkpoint", required=True, metavar="FILE", help="classifier of train.py classify")
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 0.5], help="of the maps (default: 1 0.5)")
    parser.add_argument("--background", default="power:4", help="rule of the variants (default: %(default)s)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take every Nth image (default: all)")
    parser.add_argument("--only", nargs="+", choices=tuple(CHANGES), default=list(CHANGES), help="choices to vary")
    args = parser.parse_args(argv)
    options = read_options(DataOptions, args)
    data = read_options(LabelOptions, args).open(options, options.open())
    names = data.dataset.class_names
    network = load_classifier(args.checkpoint, names)
    default = Variant(background=args.background)
    variants = {"default": default} | {
        f"{name} {value}": replace(default, **{name: value})
        for name in args.only
        for value in CHANGES[name]
        if (value != "own" or network.has_background) and getattr(default, name) != value
    }
    board = Board(len(names))
    indices = range(0, len(data), args.every)
    for index in tqdm(indices, unit="image"):
        image, truth = data.dataset.image(index), data.dataset.mask(index)
        images, ids = image[None], [0, *data.classes(index)]
        with torch.inference_mode():
            maps = class_activation_maps(network, image, ids[1:], args.scales)
            stages = network.backbone.stages(images, sorted({variant.feature for variant in variants.values()}))
            for name, variant in variants.items():
                activation = activation_of(maps, background_rule(variant.background))[None]
                if name == "default" or variant.background != default.background:
                    labelled = partial(SeedLabeller(), images, activation)
                    board.add(f"seed {variant.background}", labelled, images, activation, ids, truth)
                if name == "default":
                    board.add("PPMG", partial(PPMG(), images, activation), images, activation, ids, truth)
                labeller = variant.labeller()
                labelled = partial(labeller, images, stages[variant.feature], activation)
                board.add(name, labelled, images, activation, ids, truth)
    print(f"{len(indices)} images, {args.checkpoint}, scales {args.scales}, default {default}\n")
    print(board.table(len(indices)))


class Board:
    """Scores and times of the variants, without refinement and with a dense CRF."""

    def __init__(self, num_classes: int) -> None:
        self._num_classes, self._crf = num_classes, DenseCRF()
        self._scores: dict[str, tuple[SegmentationScore, SegmentationScore]] = {}
        self._seconds: dict[str, float] = {}

    def add(
        self,
        name: str,
        labelled: Callable[[], Labelling],
        images: Tensor,
        activation: Tensor,
        ids: Sequence[int],
        truth: Tensor,
    ) -> None:
        """Label an image in one way, by the number of a class among ``ids``."""
        start = time.perf_counter()
        labelling = labelled()
        self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - start
        refined = label(refine([self._crf], images, labelling.probabilities), activation.argmax(1))
        empty = (SegmentationScore(self._num_classes), SegmentationScore(self._num_classes))
        for score, masks in zip(self._scores.setdefault(name, empty), (labelling.masks, refined.masks), strict=True):
            score.update(ids_of(masks[0], ids), truth)

    def table(self, number: int) -> str:
        """A Markdown table."""
        lines = ["| variant | mIoU | with CRF | s/image |", "|---|---|---|---|"]
        for name, (plain, refined) in self._scores.items():
            mious = [f"{100 * score.compute().miou:.2f}" for score in (plain, refined)]
            lines.append(f"| {name} | {' | '.join(mious)} | {self._seconds[name] / number:.2f} |")
        return "\n".join(lines)


if __name__ == "__main__":
    main()
