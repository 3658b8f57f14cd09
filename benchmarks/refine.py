"""Refinement against the code it replaces: pydensecrf (C++), and PAMR as it is usually written.

    python -m benchmarks.refine --root DIR --limit 20

The probabilities are made from the ground truth: its classes, one-hot, void as background, are blurred by 16 pixels and
disturbed by noise of two sizes, 32 pixels and 1, before a softmax. Both sides get the same arrays, take turns on each
image, and run on one thread, as pydensecrf does; times include everything from image and probabilities to marginals.
The label of a pixel is its largest marginal. The second table compares with all pairs of pixels, on copies of as many
images (or ``--all-pairs N``) made 8 times smaller, where that is feasible; "closer" is how much smaller our mean
difference is than theirs, with the standard error of that mean. With a GPU, a third one times batches of 8.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from pydensecrf.densecrf import DenseCRF2D
from pydensecrf.utils import unary_from_softmax
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from torch_svm_seg.cli.options.data import DataOptions
from torch_svm_seg.cli.options.option import add_options, read_options
from torch_svm_seg.data.constants import VOID
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.refine import PAMR, DenseCRF
from torch_svm_seg.refine.dense_crf import PRESETS

SHRINK = 8
BATCH = 8


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="Time and compare refinement by DenseCRF and PAMR.")
    add_options(parser, DataOptions)
    parser.add_argument("--classes", type=int, help="pad or cut the image's classes to this number")
    parser.add_argument("--all-pairs", type=int, metavar="N", help="images to compare with all pairs of pixels")
    return parser


def probabilities_of(mask: Tensor, seed: int, classes: int | None = None) -> Tensor:
    """Spoilt ground truth (1, K, H, W) of a mask (H, W); see the module's text."""
    mask = mask.masked_fill(mask == VOID, 0)
    present = mask.unique()
    onehot = (mask == present[:, None, None]).float()
    if classes is not None:
        onehot = F.pad(onehot[:classes], (0, 0, 0, 0, 0, max(classes - len(onehot), 0)))
    generator = torch.Generator().manual_seed(seed)
    height, width = mask.shape
    blurred = F.avg_pool2d(onehot[None], 33, stride=1, padding=16, count_include_pad=False)
    blobs = torch.randn(1, len(onehot), height // 32 + 2, width // 32 + 2, generator=generator)
    noise = torch.randn(1, len(onehot), height, width, generator=generator)
    return (2 * blurred + F.interpolate(blobs, (height, width), mode="bicubic") + 0.5 * noise).softmax(1)


def pydensecrf(name: str, image: Tensor, probabilities: Tensor) -> Tensor:
    """Marginals by pydensecrf with a preset's parameters."""
    classes, height, width = probabilities.shape[1:]
    parameters = PRESETS[name]
    crf = DenseCRF2D(width, height, classes)
    crf.setUnaryEnergy(np.ascontiguousarray(unary_from_softmax(probabilities[0].numpy())))
    crf.addPairwiseGaussian(sxy=parameters.spatial_sigma, compat=parameters.spatial_weight)
    crf.addPairwiseBilateral(
        sxy=parameters.bilateral_sigma,
        srgb=parameters.colour_sigma,
        rgbim=np.ascontiguousarray(image[0].permute(1, 2, 0).numpy()),
        compat=parameters.bilateral_weight,
    )
    return torch.from_numpy(np.array(crf.inference(10))).view(1, classes, height, width)


def straightforward(kind: str, image: Tensor, mask: Tensor) -> Tensor:
    """PAMR or PAR by convolutions with shifted deltas, all neighbourhoods at once."""
    affinity = _affinity(kind, image.float())
    for _ in range(10):
        mask = (_windows(mask, own=False) * affinity).sum(2)
    return mask


def _affinity(kind: str, image: Tensor) -> Tensor:
    neighbours = _windows(image, own=False)
    differences = (neighbours - image[:, :, None]).abs()
    if kind == "pamr":
        deviation = _windows(image, own=True).std(2, keepdim=True)
        return (-differences / (1e-8 + 0.1 * deviation)).mean(1, keepdim=True).softmax(2)
    deviation = neighbours.std(2, keepdim=True)
    by_colour = (-((differences / (deviation + 1e-8) / 0.3) ** 2)).mean(1, keepdim=True).softmax(2)
    ring = torch.tensor([2**0.5, 1, 2**0.5, 1, 1, 2**0.5, 1, 2**0.5])
    distance = torch.cat([dilation * ring for dilation in (1, 2, 4, 8, 12, 24)])
    by_distance = (-((distance / (distance.std() + 1e-8) / 0.3) ** 2)).softmax(0)
    return by_colour + 0.01 * by_distance.view(1, 1, -1, 1, 1)


def _windows(x: Tensor, own: bool) -> Tensor:
    """Neighbours (B, C, 48, H, W), or windows with the pixel itself (B, C, 54, H, W)."""
    images, channels, height, width = x.shape
    deltas = torch.eye(9).view(9, 1, 3, 3)[[index for index in range(9) if own or index != 4]]
    planes = x.reshape(images * channels, 1, height, width)
    found = [
        F.conv2d(F.pad(planes, 4 * [dilation], mode="replicate"), deltas, dilation=dilation)
        for dilation in (1, 2, 4, 8, 12, 24)
    ]
    return torch.cat(found, 1).view(images, channels, -1, height, width)


def timed(function: Callable[[Tensor, Tensor], Tensor], image: Tensor, probabilities: Tensor) -> tuple[float, Tensor]:
    """Seconds that a function took, and its result."""
    start = time.perf_counter()
    result = function(image, probabilities)
    return time.perf_counter() - start, result


def compare(dataset: ImageDataset, classes: int | None) -> dict[str, Tensor]:
    """For each method, (images, 4): seconds of ours and theirs, share of equal labels, mean absolute difference."""
    pairs = {f"DenseCRF {name}": (DenseCRF.preset(name), partial(pydensecrf, name)) for name in PRESETS}
    pairs |= {kind.upper(): (PAMR(kind), partial(straightforward, kind)) for kind in ("pamr", "par")}
    found = {method: [] for method in pairs}
    for index in tqdm(range(len(dataset)), unit="image"):
        image = dataset[index].image[None]
        probabilities = probabilities_of(dataset.mask(index), index, classes)
        for method, (ours, theirs) in pairs.items():
            mine, result = timed(ours, image, probabilities)
            other, expected = timed(theirs, image, probabilities)
            found[method].append([mine, other, *difference(result, expected)])
    return {method: torch.tensor(rows) for method, rows in found.items()}


def difference(first: Tensor, second: Tensor) -> tuple[float, float]:
    """Share of pixels with the same label, and mean absolute difference of the marginals."""
    same = (first.argmax(1) == second.argmax(1)).float().mean()
    return float(same), float((first - second).abs().mean())


def compare_with_all_pairs(dataset: ImageDataset) -> dict[str, Tensor]:
    """For each preset, (images, 4): share of equal labels and mean difference to exact inference, ours and theirs."""
    found = {name: [] for name in PRESETS}
    for index in tqdm(range(len(dataset)), unit="small image"):
        size = tuple(length // SHRINK for length in dataset.mask(index).shape)
        image = F.interpolate(dataset[index].image[None].float(), size, mode="area").round().to(torch.uint8)
        mask = F.interpolate(dataset.mask(index)[None, None].float(), size)[0, 0].long()
        probabilities = probabilities_of(mask, index)
        for name in PRESETS:
            exact = DenseCRF(**PRESETS[name]._asdict(), exact=True)(image, probabilities)
            ours = DenseCRF.preset(name)(image, probabilities)
            theirs = pydensecrf(name, image, probabilities)
            found[name].append([*difference(ours, exact), *difference(theirs, exact)])
    return {name: torch.tensor(rows) for name, rows in found.items()}


def gpu_rates(dataset: ImageDataset) -> dict[str, float]:
    """Images a second of each method, in batches of 8 images resized to 375x500, with 3 classes."""
    indices = [index % len(dataset) for index in range(BATCH)]
    image = torch.cat([F.interpolate(dataset[index].image[None].float(), (375, 500)) for index in indices]).cuda()
    masks = [F.interpolate(dataset.mask(index)[None, None].float(), (375, 500))[0, 0].long() for index in indices]
    probabilities = torch.cat([probabilities_of(mask, 0, 3) for mask in masks]).cuda()
    modules = {f"DenseCRF {name}": DenseCRF.preset(name) for name in PRESETS} | {"PAMR": PAMR(), "PAR": PAMR("par")}
    rates = {}
    for name, module in modules.items():
        module.cuda()(image, probabilities)
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(5):
            module(image, probabilities)
        torch.cuda.synchronize()
        rates[name] = 5 * BATCH / (time.perf_counter() - start)
    return rates


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    args = build_parser().parse_args(argv)
    torch.set_num_threads(1)
    options = read_options(DataOptions, args)
    smaller = replace(options, limit=args.limit if args.all_pairs is None else args.all_pairs).open()
    dataset = read_options(DataOptions, args).open()
    with torch.inference_mode():
        print("| method | ours s/image | theirs s/image | ratio | same labels | mean difference |")
        print("|---|---|---|---|---|---|")
        for method, rows in compare(dataset, args.classes).items():
            ours, theirs, same, error = rows.mean(0).tolist()
            print(f"| {method} | {ours:.3f} | {theirs:.3f} | {ours / theirs:.2f} | {100 * same:.2f} % | {error:.1e} |")
        print("\n| against all pairs | same labels, ours | theirs | mean difference, ours | theirs | closer |")
        print("|---|---|---|---|---|---|")
        for name, rows in compare_with_all_pairs(smaller).items():
            ours, error, theirs, other = rows.mean(0).tolist()
            closer = rows[:, 3] - rows[:, 1]
            spread = f" ± {float(closer.std() / len(closer) ** 0.5):.5f}" if len(closer) > 1 else ""
            print(
                f"| {name} | {100 * ours:.2f} % | {100 * theirs:.2f} % | {error:.5f} | {other:.5f} "
                f"| {float(closer.mean()):.5f}{spread} |"
            )
        if torch.cuda.is_available():
            print(f"\n| {torch.cuda.get_device_name()} | images/s |\n|---|---|")
            for method, rate in gpu_rates(dataset).items():
                print(f"| {method} | {rate:.0f} |")


if __name__ == "__main__":
    main()
