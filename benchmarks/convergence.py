"""How the solver converges on the image that the package embeds: its duality gap, step by step.

    python -m benchmarks.convergence --features F1 F3 --out docs/solver.png

Pixels of a stage, 1,000 of the objects and 1,000 of the background, RBF, C = 1, in double precision. The gap
after n steps is that of a fit that stops there.
"""

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib import pyplot

from torch_svm_seg.backbones.builder import load_backbone
from torch_svm_seg.data.constants import VOID
from torch_svm_seg.data.embedded import embedded_sample
from torch_svm_seg.expansion.interpolation import read_pixels
from torch_svm_seg.expansion.normalization import z_score
from torch_svm_seg.expansion.sampling import sample_pixels
from torch_svm_seg.svm.svm import SVM

TOLERANCE = 1e-6


def gaps(x: torch.Tensor, y: torch.Tensor, most: int) -> list[float]:
    """Return the relative duality gap after 1, 2, ... steps, until it is small or there are so many steps."""
    found: list[float] = []
    for steps in range(1, most + 1):
        svm = SVM(approximation=None, tol=TOLERANCE, max_iter=steps).fit(x, y)
        found.append(float((svm.duality_gap_ / svm.objective_).max()))
        if found[-1] <= TOLERANCE:
            break
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Draw the figure and print the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/solver.png"))
    parser.add_argument("--features", nargs="+", default=["F1"], help="stages of the backbone")
    parser.add_argument("--samples", type=int, default=1000, help="pixels of each class")
    parser.add_argument("--steps", type=int, default=60, help="steps at most")
    args = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dataset = embedded_sample()
    image, labels = dataset[0].image, dataset.mask(0)
    with torch.inference_mode():
        stages = load_backbone("efficientnet_lite0").stages(image[None], args.features)
    sample = sample_pixels(torch.where(labels == VOID, VOID, labels.long().clamp(max=1))[None], args.samples)
    figure, axes = pyplot.subplots(figsize=(6.5, 3.6), layout="constrained")
    for feature in args.features:
        x = read_pixels(z_score(stages[feature].double()), sample.positions, (labels.shape[0], labels.shape[1]))
        found = gaps(x[0], sample.classes[0], args.steps)
        print(
            f"{feature}: {x.shape[1]} samples, {len(found)} steps to {found[-1]:.1e}; "
            + ", ".join(f"{gap:.1e}" for gap in found)
        )
        axes.semilogy(range(1, len(found) + 1), found, marker="o", markersize=3, label=feature)
    axes.axhline(1e-3, color="gray", linestyle="--", linewidth=1)
    axes.text(1, 1.2e-3, "default tol", color="gray", fontsize=8)
    axes.set(xlabel="steps (rounds of up to 250 pairs, then Newton steps)", ylabel="relative duality gap")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(title="objects against background")
    figure.savefig(args.out, dpi=130)


if __name__ == "__main__":
    main()
