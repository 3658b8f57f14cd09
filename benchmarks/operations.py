"""What a fit asks of a device: operations, synchronisations and bytes, counted where PyTorch dispatches them.

    python -m benchmarks.operations

The solver is made to take a GPU's path on whatever device there is, so that no GPU is needed (``--path cpu`` counts the
CPU's). An operation that is no view launches at least one kernel, which takes a GPU 5 to 10 microseconds however small
it is; and a value that Python needs, such as the condition of a loop or the number of entries that are not zero, makes
the host wait for all of them.
"""

import argparse
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from torch_svm_seg.backbones.builder import load_backbone
from torch_svm_seg.data.embedded import embedded_sample
from torch_svm_seg.expansion.expander import LabelledMaps, SVMExpander
from torch_svm_seg.svm import kernels, line_search, newton, spaces, stages
from torch_svm_seg.svm.svm import SVM
from torch_svm_seg.tensors import column, on_host

WAITS = {
    "_local_scalar_dense",  # bool(), int(), float(), item()
    "nonzero",
    "masked_select",
    "unique_consecutive",
    "unique_dim",
    "_unique2",
    "equal",
    "is_nonzero",
}
"""Operations whose result the host has to wait for."""


@dataclass
class Count:
    """Counts of one piece of work.

    Attributes:
        operations: Operations that are no views, by name.
        waits: Operations that the host waits for.
        written: Bytes that operations put out.
    """

    operations: Counter[str] = field(default_factory=Counter)
    waits: int = 0
    written: int = 0


class Counting(TorchDispatchMode):
    """Counts what is dispatched in its block."""

    def __init__(self) -> None:
        super().__init__()
        self.count = Count()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation and count it."""
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in WAITS or (name in ("index", "index_put_") and _has_mask(args[1])):
            self.count.waits += 1
        if not func.is_view and name != "_local_scalar_dense":
            self.count.operations[name] += 1
            tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
            self.count.written += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return result


def counted(work: Callable[[], object]) -> Count:
    """Count what some work dispatches."""
    with Counting() as counting:
        work()
    return counting.count


def _has_mask(indices: Sequence[Tensor | None]) -> bool:
    """Whether a tensor is indexed by a mask, whose number of True entries decides the size of the result."""
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)


def _fetched(*columns: Tensor) -> NDArray[np.float64]:
    torch.equal(columns[0], columns[0])  # waits, as a copy from a GPU does
    return on_host(*columns)


@contextmanager
def path_of_a_gpu() -> Iterator[None]:
    """Let the solver do for the block what it does on a GPU with 64 GB of free memory."""
    with ExitStack() as stack:
        for module in (stages, line_search, spaces, kernels):
            stack.enter_context(patch.object(module, "on_cpu", lambda tensor: False))
        # Copies from and to the host, which are none on a CPU.
        stack.enter_context(patch.object(newton, "on_host", _fetched))
        stack.enter_context(patch.object(newton, "column", lambda values, like: column(values, like).clone()))
        stack.enter_context(patch.object(stages, "_kernel_entries", lambda image: 2**36 // stages.BYTES_PER_ENTRY))
        yield


def batches(number: int, classes: int, stage: str, sizes: bool) -> list[LabelledMaps]:
    """Return features and labels of the embedded image, with its first classes, so many times.

    Args:
        number: Number of images.
        classes: Number of classes to keep.
        stage: Name of the features.
        sizes: Cut more rows off each image than off the one before, so that all have sizes of their own.
    """
    sample = embedded_sample()
    labels = sample.mask(0)
    present = [value for value in labels.unique().tolist() if value != 255][:classes]
    kept = torch.where(torch.isin(labels, torch.tensor(present)), labels, 255)
    numbers = torch.full((256,), 255)
    numbers[present] = torch.arange(len(present))
    image, mask, backbone = sample.image(0)[None], numbers[kept][None], load_backbone("efficientnet_lite0")

    def known(height: int, images: int) -> LabelledMaps:
        with torch.inference_mode():
            features = backbone.stages(image[:, :, :height], [stage])[stage]
        return LabelledMaps(features.repeat(images, 1, 1, 1), mask[:, :height].repeat(images, 1, 1))

    height = mask.shape[1]
    return [known(height - cut, 1) for cut in range(number)] if sizes else [known(height, number)]


def counts_of(known: Sequence[LabelledMaps], samples_per_class: int) -> tuple[int, Count, Count]:
    """Return the steps of the slowest problem, the counts of the fit, and those of the fit and all labels."""
    fits = []

    class Counted(SVM):
        def fit(self, *arguments: Any) -> SVM:
            with Counting() as counting:
                fitted = super().fit(*arguments)
            fits.append((int(fitted.n_iter_.max()), counting.count))
            return fitted

    expander = SVMExpander(Counted(), samples_per_class=samples_per_class)
    whole = counted(lambda: expander.expand_batches(known))
    ((steps, fit),) = fits
    return steps, fit, whole


COLUMNS = ("features", "classes", "images", "steps", "fit: operations", "waits", "MB", "with labels", "waits", "MB")


def main(argv: Sequence[str] | None = None) -> None:
    """Print the counts by features, number of classes and number of images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", nargs="+", default=["F1", "F3"], metavar="STAGE")
    parser.add_argument("--samples-per-class", type=int, default=2500, metavar="N")
    parser.add_argument("--classes", type=int, nargs="+", default=[2, 5], metavar="K")
    parser.add_argument("--images", type=int, nargs="+", default=[1], metavar="B")
    parser.add_argument("--sizes", action="store_true", help="images of as many sizes, rather than of one")
    parser.add_argument("--path", choices=("gpu", "cpu"), default="gpu", help="whose path the solver takes")
    args = parser.parse_args(argv)
    print("|".join(COLUMNS), "|".join("---" for _ in COLUMNS), sep="\n")
    for stage, classes, batch in itertools.product(args.features, args.classes, args.images):
        with path_of_a_gpu() if args.path == "gpu" else nullcontext():
            steps, *counts = counts_of(batches(batch, classes, stage, args.sizes), args.samples_per_class)
        numbers = [n for count in counts for n in (count.operations.total(), count.waits, count.written // 2**20)]
        print(
            "|".join(
                f"{cell:,}" if isinstance(cell, int) else cell for cell in [stage, classes, batch, steps, *numbers]
            )
        )


if __name__ == "__main__":
    main()
