"""What a gradient through the fit costs, on the sampled pixels of images.

    python -m benchmarks.gradients --root DIR --list FILE

The decision values of every fifth sample are squared, averaged and differentiated with respect to all samples.
"""

import argparse
import time
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from torch_svm_seg import SVM
from torch_svm_seg.backbones.builder import load_backbone
from torch_svm_seg.cli.options.data import DataOptions
from torch_svm_seg.cli.options.option import add_options, read_options
from torch_svm_seg.expansion.expander import z_score
from torch_svm_seg.expansion.interpolation import read_pixels
from torch_svm_seg.expansion.sampling import sample_pixels


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="Time the gradient through the fit.")
    add_options(parser, DataOptions)
    parser.add_argument("--backbone", default="efficientnet_lite0", help="(default: %(default)s)")
    parser.add_argument("--features", nargs="+", default=["F1", "F3", "F5"])
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch (default: %(default)s)")
    return parser


def seconds(svm: SVM, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Of a fit, and of the gradient through it where the SVM keeps one."""
    start = time.perf_counter()
    svm.fit(x, y)
    fitted = time.perf_counter()
    values = svm.decision_function(x[:, ::5].detach())
    if not values.requires_grad:
        return fitted - start, 0.0
    decided = time.perf_counter()
    values.square().mean().backward()
    return fitted - start, time.perf_counter() - decided


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    args = build_parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    dataset, backbone = read_options(DataOptions, args).open(), load_backbone(args.backbone)
    modes: tuple[Literal["implicit", "unrolled"] | None, ...] = (None, "implicit", "unrolled")
    print("| image | feature | SVM | fit, s | implicit: fit, s | backward, s | unrolled: fit, s | backward, s |")
    print("|---|---|---|---|---|---|---|---|")
    for index, id in enumerate(dataset.ids):
        image, labels = dataset.image(index), dataset.mask(index)
        with torch.no_grad():
            stages = backbone.stages(image[None], args.features)
        sample = sample_pixels(labels[None])
        for feature in args.features:
            size = (labels.shape[0], labels.shape[1])
            x = read_pixels(z_score(stages[feature].float()), sample.positions, size)
            for kernel, loss in (("rbf", "hinge"), ("rbf", "squared_hinge"), ("linear", "squared_hinge")):
                found: list[float] = []
                for gradient in modes:
                    svm = SVM(kernel, loss=loss, gradient=gradient)  # type: ignore[arg-type]
                    found += seconds(svm, x.clone().requires_grad_(), sample.classes)
                del found[1]
                figures = " | ".join(f"{value:.2f}" for value in found)
                print(f"| {id} | {feature} | {kernel}, {loss} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
