"""Options of the SVM and of the pixels that train it."""

import argparse
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from torch_svm_seg.cli.options.option import option
from torch_svm_seg.cli.options.run import seed_option
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.expansion.expander import SVMExpander
from torch_svm_seg.svm.approximations import Approximation, Fourier, Nystroem
from torch_svm_seg.svm.svm import SVM

WRONG_LABELS_C = {"seed": 3e-4, "boxes": 1e-4}
"""The weight of the loss where many labels are wrong: of 200 samples a class, whose features have variance 1."""

_MOST_COMPONENTS = 100_000


@dataclass(frozen=True)
class SampleOptions:
    """The pixels that train the SVMs."""

    title: ClassVar = "samples"

    supervision: Literal["ground-truth", "seed", "points", "scribbles", "boxes"] = option(
        "ground-truth",
        help="where the labels of sampled pixels come from: the ground truth is the paper's study of the upper bound; "
        "seed takes confident pixels of a seed that needs no ground truth; points, scribbles and boxes are what people "
        "draw",
    )
    samples_per_class: int | None = option(
        None,
        metavar="N",
        help="pixels drawn from each class of an image; smaller classes give all theirs (default: 2500, as the paper; "
        "200 with seeds and boxes; time grows faster than proportionally)",
    )
    seed: int = seed_option("of the sampled pixels")


def _gamma(text: str) -> float | str:
    try:
        return text if text == "scale" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number > 0, or scale, got {text!r}") from None


def _components(text: str) -> int:
    components = int(text)
    if not 1 <= components <= _MOST_COMPONENTS:
        raise argparse.ArgumentTypeError(f"expected 1 to {_MOST_COMPONENTS}, got {text}")
    return components


@dataclass(frozen=True)
class SVMOptions:
    """The SVM itself."""

    title: ClassVar = "SVM"

    kernel: Literal["rbf", "linear"] | None = option(
        None,
        help="rbf is better on shallow features, linear as good on deep ones, and better where labels are few or wrong "
        "(default: rbf with the ground truth, else linear)",
    )
    C: float | None = option(
        None,
        help="weight of the loss; larger trusts samples more (default: 1; 3e-4 with seeds and 1e-4 with boxes, many "
        "of whose labels are wrong)",
    )
    gamma: float | Literal["scale"] = option(
        "scale", parse=_gamma, help="coefficient of the RBF kernel, or scale for 1 / (channels * variance)"
    )
    approximation: Literal["auto", "exact", "nystroem", "fourier"] = option(
        "auto", help="of the RBF kernel: auto is exact, but uses the kernel's low rank on RGB"
    )
    components: int = option(1024, parse=_components, help="explicit features of --approximation nystroem and fourier")

    def suited_to(self, supervision: str) -> "SVMOptions":
        """Return the options with the kernel and the C that suit labels of such a kind, where none is given."""
        cost = WRONG_LABELS_C.get(supervision, 1.0)
        kernel = self.kernel or ("rbf" if supervision == "ground-truth" else "linear")
        return replace(self, kernel=kernel, C=cost if self.C is None else self.C)

    def expander(self, samples: SampleOptions) -> SVMExpander:
        """Build the expander, of as many classes as the images that it is given show.

        Raises:
            InputError: A value is out of its range.
        """
        try:
            approximation = self._approximation(samples.seed)
            svm = SVM(self.kernel or "rbf", 1.0 if self.C is None else self.C, self.gamma, approximation=approximation)
            return SVMExpander(svm, samples_per_class=samples.samples_per_class or 0, seed=samples.seed)
        except ValueError as error:
            raise InputError(f"--{error}".replace("_", "-")) from error

    def _approximation(self, seed: int) -> Approximation:
        # The number of components is checked even where it is not used.
        nystroem, fourier = Nystroem(self.components, seed), Fourier(self.components, seed)
        choices: dict[str, Approximation] = {"auto": "auto", "exact": None, "nystroem": nystroem, "fourier": fourier}
        return choices[self.approximation]
