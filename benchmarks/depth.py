"""Which depth owns which error: wrong pixels near boundaries and inside, for each folder of masks that expand.py wrote.

python -m benchmarks.depth --root DIR --predictions runs/voc/F*/ --figure depth.png
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from torch_svm_seg.cli.options.data import DataOptions
from torch_svm_seg.cli.options.option import add_options, read_options
from torch_svm_seg.data.constants import VOID
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.io import read_mask
from torch_svm_seg.evaluation.boundaries import boundary_band
from torch_svm_seg.evaluation.metrics import SegmentationScore


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="Split the errors of folders of masks by distance to boundaries.")
    add_options(parser, DataOptions)
    parser.add_argument("--predictions", type=Path, nargs="+", required=True, metavar="DIR", help="folders of ID.png")
    parser.add_argument("--boundary", type=int, default=5, help="width of the band in pixels (default: %(default)s)")
    parser.add_argument("--figure", type=Path, help="draw the errors into this PNG (needs matplotlib)")
    return parser


def wrong_pixels(dataset: ImageDataset, indices: Sequence[int], folder: Path, width: int) -> tuple[Tensor, float]:
    """Wrong pixels in the band and inside, as shares of all labelled pixels; and the mean IoU."""
    score, wrong, labelled = SegmentationScore(len(dataset.class_names)), torch.zeros(2), 0
    for index in tqdm(indices, desc=folder.name, leave=False, disable=None):
        truth, mask = dataset.mask(index), read_mask(folder / f"{dataset.ids[index]}.png").long()
        score.update(mask, truth)
        misses = (mask != truth) & (truth != VOID)
        band = boundary_band(truth, width)
        wrong += torch.stack([(misses & band).sum(), (misses & ~band).sum()])
        labelled += int((truth != VOID).sum())
    return wrong / labelled, score.compute().miou


def draw(shares: dict[str, Tensor], width: int, path: Path) -> None:
    """Stacked bars."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 2.6), layout="constrained")
    near, far = (torch.stack(list(shares.values())) * 100).T.tolist()
    axes.barh(list(shares), near, label=f"up to {width} px from a boundary")
    axes.barh(list(shares), far, left=near, label="inside")
    axes.invert_yaxis()
    axes.set(xlabel="wrong pixels, % of all", xlim=(0, None))
    axes.legend()
    figure.savefig(path, dpi=150)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    args = build_parser().parse_args(argv)
    dataset = read_options(DataOptions, args).open()
    # The images that all folders have, so that an unfinished run compares too.
    indices = [p for p, id in enumerate(dataset.ids) if all((f / f"{id}.png").is_file() for f in args.predictions)]
    if not indices:
        raise SystemExit("--predictions: no image has its mask in all of these folders")
    shares = {}
    print(f"{len(indices)} images\n\n| feature | wrong, up to {args.boundary} px | wrong, inside | mIoU |")
    print("|---|---|---|---|")
    for folder in args.predictions:
        shares[folder.name], miou = wrong_pixels(dataset, indices, folder, args.boundary)
        near, far = (100 * shares[folder.name]).tolist()
        print(f"| {folder.name} | {near:.2f} % | {far:.2f} % | {100 * miou:.2f} |")
    if args.figure:
        draw(shares, args.boundary, args.figure)


if __name__ == "__main__":
    main()
