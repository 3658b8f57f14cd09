"""Peak memory and time of expanding one image, above what the backbone needs, for each stage.

    python -m benchmarks.memory --backbone resnet50 --weights random
    python -m benchmarks.memory --enlarge 8 --features F4              # the embedded image as one of 12 megapixels

Every stage is measured in a process of its own, as the growth of its largest resident size during the expansion.
"""

import argparse
import multiprocessing
import resource
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from torch_svm_seg.backbones.builder import load_backbone
from torch_svm_seg.cli.options.data import DataOptions
from torch_svm_seg.cli.options.option import add_options, read_options
from torch_svm_seg.expansion.expander import SVMExpander
from torch_svm_seg.svm.svm import SVM


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="Peak memory of the expansion of the first image of a data set.")
    add_options(parser, DataOptions)
    parser.add_argument("--backbone", default="efficientnet_lite0", help="(default: %(default)s)")
    parser.add_argument("--weights", help="random is enough to measure memory (default: ImageNet)")
    parser.add_argument("--features", nargs="+", default=["img", "F1", "F2", "F3", "F4", "F5"])
    parser.add_argument("--kernel", choices=("rbf", "linear"), default="rbf")
    parser.add_argument("--enlarge", type=int, default=1, help="factor on the image's sides (default: 1)")
    return parser


def peak() -> float:
    """Largest resident size of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(args: argparse.Namespace, feature: str) -> None:
    """Print one stage's row."""
    torch.manual_seed(0)
    dataset = read_options(DataOptions, args).open()
    image, labels = (_enlarged(part, args.enlarge) for part in (dataset.image(0), dataset.mask(0)))
    with torch.inference_mode():
        backbone = load_backbone(args.backbone, args.weights)
        features = backbone.stages(image[None], [feature])[feature]
        before, start = peak(), time.process_time()
        SVMExpander(SVM(kernel=args.kernel))(features, labels[None])
        cost = f"{before:.0f} | {peak() - before:.0f} | {time.process_time() - start:.1f}"
    print(f"| {feature} | {features.shape[1]} | {tuple(labels.shape)} | {cost} |")


def _enlarged(values: Tensor, factor: int) -> Tensor:
    return values.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    args = build_parser().parse_args(argv)
    print(
        "| stage | channels | image | peak before, MB | expansion adds, MB | s |\n|---|---|---|---|---|---|", flush=True
    )
    for feature in args.features:
        process = multiprocessing.get_context("spawn").Process(target=measure, args=(args, feature))
        process.start()
        process.join()


if __name__ == "__main__":
    main()
