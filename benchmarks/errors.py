"""Which pixels of masks are wrong, and how: a step of weak mode can only mend the kinds of errors that it sees.

    python -m benchmarks.errors --root DIR --list LIST runs/masks/seed runs/masks/F4+crf

Each wrong pixel is of one kind, the first that fits:

- border: within --width pixels of a border between classes of the ground truth, or of the unlabelled line there;
- class: an object's pixel that is another object's in the mask;
- too much: a pixel of the background that is an object's in the mask;
- missed: an object's pixel that is background in the mask, of a class that has less than a tenth of its pixels there;
- part: the other pixels of objects that are background in the mask.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from torch_svm_seg.data.constants import VOID
from torch_svm_seg.data.io import read_mask
from torch_svm_seg.data.voc import voc2012
from torch_svm_seg.evaluation.boundaries import boundary_band

KINDS = ("border", "class", "too much", "missed", "part")
MISSED_BELOW = 0.1


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description="Kinds of wrong pixels of masks, in percent of all labelled pixels.")
    parser.add_argument("masks", type=Path, nargs="+", metavar="DIR", help="folders of masks ID.png")
    parser.add_argument("--root", type=Path, required=True, help="folder that holds VOCdevkit")
    parser.add_argument("--list", type=Path, help="image names, one per line")
    parser.add_argument("--width", type=int, default=5, help="pixels from a border of the ground truth")
    return parser


def kinds_of(mask: Tensor, truth: Tensor, width: int) -> Tensor:
    """Return the number of wrong pixels of each kind, (5,).

    Args:
        mask: Class ids (H, W).
        truth: Class ids (H, W), 255 where unlabelled.
        width: Pixels from a border of the ground truth that are near it.

    Examples:
        >>> truth, mask = torch.zeros(2, 40, dtype=torch.long), torch.zeros(2, 40, dtype=torch.long)
        >>> truth[:, 20:], mask[:, 15:30] = 8, 8
        >>> kinds_of(mask, truth, width=3).tolist()
        [6, 0, 4, 0, 20]
    """
    wrong = (mask != truth) & (truth != VOID)
    is_object, lost = (truth > 0) & (truth != VOID), torch.zeros_like(wrong)
    for class_id in truth[is_object].unique():
        own = truth == class_id
        if float((mask[own] == class_id).float().mean()) < MISSED_BELOW:
            lost |= own
    tests = (boundary_band(truth, width), is_object & (mask > 0), ~is_object, lost, torch.ones_like(wrong))
    numbers = []
    for test in tests:
        numbers.append((wrong & test).sum())
        wrong = wrong & ~test
    return torch.stack(numbers)


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table with a row for each folder of masks."""
    args = build_parser().parse_args(argv)
    data = voc2012(args.root, list_file=args.list)
    truths = {id: data.mask(index) for index, id in enumerate(data.ids)}
    pixels = sum(int((truth != VOID).sum()) for truth in truths.values())
    print(f"| masks | {' | '.join(KINDS)} | all |")
    print("|---" * (len(KINDS) + 2) + "|")
    for folder in args.masks:
        numbers = sum(kinds_of(read_mask(folder / f"{id}.png"), truth, args.width) for id, truth in truths.items())
        shares = [100 * float(number) / pixels for number in torch.as_tensor(numbers)]
        print(f"| {folder} | {' | '.join(f'{share:.2f}' for share in (*shares, sum(shares)))} |", flush=True)


if __name__ == "__main__":
    main()
