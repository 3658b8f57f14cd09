"""Seconds and memory of a backbone's pass over one image, and of the walk on its features.

    python -m benchmarks.transformers --size 375 500

Weights are random: times and memory do not depend on them. Every row is measured in a process of its own; a row's time
is the least of several passes, its memory the growth of the largest resident size. On a CPU, seconds are those that the
process computes, on one thread: what else the machine does counts little.
"""

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable, Sequence

import torch

from torch_svm_seg.backbones.builder import load_backbone
from torch_svm_seg.refine import AffinityWalk

VIT = "timm:vit_small_patch14_dinov2"
# Name, images at once, number type, factor on the size, distance of the patches.
PASSES = (
    ("resnet50", 1, torch.float32, 1.0, None),
    ("efficientnet_lite0", 1, torch.float32, 1.0, None),
    (VIT, 1, torch.float32, 1.0, None),
    (VIT, 4, torch.float32, 1.0, None),
    (VIT, 1, torch.bfloat16, 1.0, None),
    (VIT, 1, torch.float32, 1.5, None),
    (VIT, 1, torch.float32, 2.0, None),
    (VIT, 1, torch.float32, 1.0, 8),
)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description="Cost of backbones and of the affinity walk.")
    parser.add_argument("--size", nargs=2, type=int, default=(375, 500), metavar=("H", "W"))
    parser.add_argument("--repeats", type=int, default=3, help="passes of which the quickest counts")
    parser.add_argument("--device", default="cpu")
    return parser


def peak() -> float:
    """Largest resident size of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def quickest(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Return the least seconds of several runs, after one that does not count."""
    seconds, clock = [], time.process_time if device.type == "cpu" else time.perf_counter
    torch.set_num_threads(1)
    for _ in range(repeats + 1):
        start = clock()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(clock() - start)
    return min(seconds[1:])


@torch.inference_mode()
def measure_pass(
    args: argparse.Namespace, name: str, images: int, dtype: torch.dtype, scale: float, stride: int | None
) -> None:
    """Print the row of a pass."""
    device = torch.device(args.device)
    backbone = load_backbone(name, "random", scale, stride).to(device, dtype)
    pixels = torch.randint(0, 256, (images, 3, *args.size)).byte().to(device)
    before = peak()
    seconds = quickest(lambda: backbone.stages(pixels, ["F5"]), device, args.repeats) / images
    grid = tuple(backbone.stages(pixels, ["F5"])["F5"].shape[2:])
    title = f"{name}, {images} at once, {str(dtype).removeprefix('torch.')}, scale {scale}, stride {stride or 'own'}"
    print(f"| {title} | {grid} | {seconds:.2f} | {peak() - before:.0f} |", flush=True)


@torch.inference_mode()
def measure_walk(args: argparse.Namespace, patch: int, steps: int) -> None:
    """Print the row of a walk of three maps."""
    device, grid = torch.device(args.device), [-(-side // patch) for side in args.size]
    maps, features = torch.rand(1, 3, *grid, device=device), torch.randn(1, 384, *grid, device=device)
    walk, before = AffinityWalk(steps=steps), peak()
    seconds = quickest(lambda: walk(maps, features), device, args.repeats)
    print(f"| walk, {steps} steps, cells of {patch} pixels | {tuple(grid)} | {seconds:.3f} | {peak() - before:.0f} |")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    args = build_parser().parse_args(argv)
    print("| what | grid | s/image | adds MB |\n|---|---|---|---|", flush=True)
    rows = [(measure_walk, (args, patch, steps)) for patch, steps in ((14, 1), (14, 4), (7, 1), (4, 1))]
    rows += [(measure_pass, (args, *row)) for row in PASSES]  # type: ignore[list-item]
    for work, arguments in rows:
        process = multiprocessing.get_context("spawn").Process(target=work, args=arguments)
        process.start()
        process.join()


if __name__ == "__main__":
    main()
