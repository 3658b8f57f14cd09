"""Flags of the SVM and of the pixels that train it."""

import argparse
from typing import Any

from torch_svm_seg.cli.options.run import add_seed_argument
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.expansion.expander import SVMExpander


def add_sample_arguments(group: Any, default: str) -> None:
    """Adds ``--samples-per-class`` and ``--seed``.

    Args:
        group: takes the flags.
        default: says how many samples there are without the flag, whose value is then None.
    """
    group.add_argument(
        "--samples-per-class",
        type=int,
        metavar="N",
        help="pixels drawn from each class of an image; smaller classes give all theirs (default: "
        f"{default}; time grows faster than proportionally)",
    )
    add_seed_argument(group, "of the sampled pixels")


def add_svm_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the SVM itself, as the group "SVM"."""
    group = parser.add_argument_group("SVM")
    group.add_argument(
        "--kernel",
        choices=("rbf", "linear"),
        default="rbf",
        help="rbf is better on shallow features, linear faster and as good on deep ones (default: %(default)s)",
    )
    group.add_argument(
        "--C", type=float, default=1.0, help="weight of the loss; larger trusts samples more (default: 1)"
    )
    group.add_argument(
        "--gamma",
        type=_gamma,
        default="scale",
        help="width of the RBF kernel, or scale for 1 / (channels * variance) (default: %(default)s)",
    )
    group.add_argument(
        "--approximation",
        choices=("auto", "exact", "nystroem", "fourier"),
        default="auto",
        help="of the RBF kernel: auto is exact, but uses the kernel's low rank on RGB (default: %(default)s)",
    )
    group.add_argument(
        "--components",
        type=int,
        default=1024,
        help="explicit features of --approximation nystroem and fourier (default: %(default)s)",
    )


def open_expander(args: argparse.Namespace, num_classes: int) -> SVMExpander:
    """Builds the expander that the flags of this module ask for.

    Raises:
        InputError: a value is out of its range.
    """
    try:
        return SVMExpander(
            kernel=args.kernel,
            C=args.C,
            gamma=args.gamma,
            approximation=None if args.approximation == "exact" else args.approximation,
            components=args.components,
            samples_per_class=args.samples_per_class,
            num_classes=num_classes,
            seed=args.seed,
        )
    except ValueError as error:
        raise InputError(f"--{error}".replace("_", "-")) from error


def _gamma(text: str) -> float | str:
    try:
        return text if text == "scale" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number > 0, or scale, got {text!r}") from None
