"""The RBF fit where labels are wrong, beside scikit-learn's SVC: ``python -m benchmarks.solver --noise 0 0.1 0.2 0.3``.

Cells: pixels of the embedded image, 2,500 a class, objects against background and all five classes, and Gaussian
classes; a share of the labels is another class's, drawn with seed 0. Each cell runs in a process of its own, on one
thread; seconds are CPU time of the fit alone, of float32 samples for us and float64 for SVC, with gamma = "scale" and
each one's own tolerance. Ours is the second of two fits: the first uses memory that the operating system has yet to
provide, and SVC, which comes last, finds it provided. "Objective" is by how much our primal objective, at most, exceeds
the optimum: relative to SVC's dual objective, a lower bound. "Memory" is by how much the resident size grew at most
during our first fit.
"""

import math
import multiprocessing
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import SVC

from torch_svm_seg.backbones.builder import load_backbone
from torch_svm_seg.data.constants import VOID
from torch_svm_seg.data.embedded import embedded_sample
from torch_svm_seg.expansion.interpolation import read_pixels
from torch_svm_seg.expansion.normalization import z_score
from torch_svm_seg.expansion.sampling import sample_pixels
from torch_svm_seg.svm.svm import SVM


@dataclass
class Cell:
    """Samples x (N, D), their class ids (N,), and the cost."""

    name: str
    x: NDArray[np.float32]
    y: NDArray[np.integer]
    C: float


def flip(y: NDArray[np.integer], share: float) -> NDArray[np.integer]:
    """Give a share of the labels (N,), ids from 0, those of another class."""
    generator = np.random.default_rng(0)
    wrong, number = generator.random(len(y)) < share, len(np.unique(y))
    return np.where(wrong, (y + generator.integers(1, number, len(y))) % number, y)


def blobs(number: int, channels: int, classes: int, distance: float, seed: int) -> Any:
    """Normal classes, whose means lie at about a distance from each other."""
    generator = np.random.default_rng(seed)
    means = generator.standard_normal((classes, channels))
    means *= distance / math.sqrt(2) / np.linalg.norm(means, axis=1, keepdims=True)
    y = np.arange(number) % classes
    return (means[y] + generator.standard_normal((number, channels))).astype(np.float32), y


def pixel_cells(shares: Sequence[float], features: Sequence[str]) -> Iterator[Cell]:
    """Pixels of the embedded image: two classes at C = 1 and 100, and five."""
    dataset = embedded_sample()
    image, labels = dataset[0].image, dataset.mask(0).long()
    with torch.inference_mode():
        stages = load_backbone("efficientnet_lite0").stages(image[None], list(features))
    for classes in (2, 5):
        sample = sample_pixels(torch.where(labels == VOID, VOID, labels.clamp(max=1) if classes == 2 else labels)[None])
        y = np.unique(sample.classes[0].numpy(), return_inverse=True)[1]
        for feature in features:
            pixels = read_pixels(z_score(stages[feature].double()), sample.positions, tuple(labels.shape))
            for share in shares if classes == 2 else {shares[0], shares[len(shares) // 2]}:
                for C in (1.0, 100.0) if classes == 2 else (1.0,):
                    name = f"{feature}, {len(y)} x {pixels.shape[2]}, {classes} classes, {share:.0%}"
                    yield Cell(name, pixels[0].float().numpy().copy(), flip(y, share), C)


def synthetic_cells() -> Iterator[Cell]:
    """Normal classes: apart, overlapping by a quarter, and more than two."""
    for number, channels, classes, distance, share, cost in (
        (5000, 64, 2, 4.0, 0.0, 1.0),
        (5000, 64, 2, 4.0, 0.2, 1.0),
        (5000, 64, 2, 4.0, 0.2, 100.0),
        (2500, 64, 2, 1.35, 0.0, 100.0),
        (5000, 64, 5, 5.0, 0.0, 1.0),
        (5000, 64, 5, 5.0, 0.2, 1.0),
        (500, 8, 10, 6.0, 0.0, 1.0),
        (500, 8, 10, 6.0, 0.2, 1.0),
        (500, 8, 10, 6.0, 0.2, 100.0),
        (1000, 8, 10, 6.0, 0.0, 1.0),
        (1000, 8, 10, 6.0, 0.2, 1.0),
        (1000, 8, 10, 6.0, 0.2, 100.0),
        (2000, 32, 10, 5.0, 0.2, 1.0),
        (2000, 32, 10, 5.0, 0.2, 100.0),
    ):
        x, y = blobs(number, channels, classes, distance, seed=1)
        name = f"normal at {distance:g}, {number} x {channels}, {classes} classes, {share:.0%}"
        yield Cell(name, x, flip(y, share), cost)


def lower_bound(fitted: SVC, x: NDArray[np.float64]) -> float:
    """Return the dual objective of a fit of two classes."""
    signed, support = fitted.dual_coef_[0], x[fitted.support_]
    kernel_sums = [rbf_kernel(part, support, gamma=fitted.gamma) @ signed for part in np.array_split(support, 20)]
    return float(np.abs(signed).sum() - signed @ np.concatenate(kernel_sums) / 2)


def resident() -> float:
    """Return the largest resident size of this process, MB."""
    status = Path("/proc/self/status").read_text()
    return float(status.split("VmHWM:")[1].split()[0]) / 1024


def run(cell: Cell, channel: Any) -> None:
    """Fit both and send a line of the table."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    x, y = torch.from_numpy(cell.x), torch.from_numpy(cell.y)
    SVM(approximation=None).fit(x[:: len(x) // 400], y[:: len(x) // 400])  # warm up
    Path("/proc/self/clear_refs").write_text("5")
    before = resident()
    SVM(C=cell.C, approximation=None).fit(x, y)
    memory, start = resident() - before, time.process_time()
    ours = SVM(C=cell.C, approximation=None).fit(x, y)
    seconds = time.process_time() - start
    double = cell.x.astype(np.float64)
    reference = OneVsRestClassifier(SVC(C=cell.C, gamma=1 / (double.shape[1] * double.var()), cache_size=500))
    start = time.process_time()
    reference.fit(double, cell.y)
    theirs = time.process_time() - start
    fits = reference.estimators_
    objective = ours.objective_[:1].flip(0) if len(fits) == 1 else ours.objective_
    excess = max(float(one) / lower_bound(fit, double) - 1 for one, fit in zip(objective, fits, strict=True))
    channel.put(
        f"| {cell.name} | {cell.C:g} | {seconds:.2f} | {theirs:.2f} | {theirs / seconds:.2f} "
        f"| {excess:.1e} | {memory:.0f} |"
    )


def table(shares: Sequence[float], features: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a Markdown table, as they are measured."""
    yield "| cell, labels wrong | C | ours, s | SVC, s | ratio | objective | memory, MB |"
    yield "|---" * 7 + "|"
    context = multiprocessing.get_context("spawn")
    for cell in [*pixel_cells(shares, features), *synthetic_cells()]:
        channel = context.SimpleQueue()
        process = context.Process(target=run, args=(cell, channel))
        process.start()
        yield channel.get()
        process.join()
