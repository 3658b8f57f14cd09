"""How the cost of refinement grows with an image, and what refining it in tiles changes.

    python -m benchmarks.tiles --scales 1 2 4 8

The embedded image, enlarged; the probabilities are those of its ground truth, blurred.
"""

import argparse
import resource
import time
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from torch_svm_seg.data.constants import VOID
from torch_svm_seg.data.embedded import embedded_sample
from torch_svm_seg.refine import PAMR, DenseCRF
from torch_svm_seg.refine.steps import MOST_PIXELS, refine_in_tiles
from torch_svm_seg.tensors import resize


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 2.0, 4.0], help="enlargements of the image")
    parser.add_argument("--refinement", choices=("crf", "pamr"), default="crf", help="(default: %(default)s)")
    parser.add_argument("--whole", action="store_true", help="refine the whole image too, and compare the labels")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and print one line per size."""
    args = build_parser().parse_args(argv)
    torch.set_num_threads(1)
    step = DenseCRF() if args.refinement == "crf" else PAMR()
    for scale in args.scales:
        image, probabilities = _example(scale)
        before, start = _peak(), time.process_time()
        with torch.inference_mode():
            refine_in_tiles(step, image, probabilities)
        pixels, seconds, memory = image[0, 0].numel(), time.process_time() - start, _peak() - before
        line = f"{args.refinement} {pixels / 1e6:.2f} million pixels: {seconds:.1f} s, {memory:.0f} MB above"
        if args.whole:
            with torch.inference_mode():
                whole = refine_in_tiles(step, image, probabilities, most_pixels=pixels)
                small = refine_in_tiles(step, image, probabilities, most_pixels=min(pixels // 2, MOST_PIXELS))
            line += (
                f"; labels in tiles as of the whole: {100 * (small.argmax(1) == whole.argmax(1)).float().mean():.4f} %"
            )
        print(line, flush=True)


def _example(scale: float) -> tuple[Tensor, Tensor]:
    sample = embedded_sample()
    image, mask = sample.image(0)[None].float(), sample.mask(0)
    classes = mask[mask != VOID].unique()
    probabilities = F.avg_pool2d((mask == classes[:, None, None])[None].float() + 0.1, 31, 1, 15)
    size = [round(scale * side) for side in image.shape[2:]]
    return resize(image, size).clamp(0, 255), resize(probabilities / probabilities.sum(1, keepdim=True), size)


def _peak() -> float:
    """Return the largest memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
