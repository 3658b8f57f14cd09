"""The SVM against its peers, on the same sampled pixels of the same images, in one run.

    python -m benchmarks.solver --root DIR --limit 3  # or --growth
    python -m benchmarks.solver --noise 0 0.1 0.2 0.3 --features F1 F3 F4

Each method trains one classifier a class against the rest (one alone where there are two classes) on the pixels that
the expander samples, and labels all pixels of the image; each runs in a process of its own, and seconds are CPU time.
To prepare is to z-score, to sample and to interpolate the sample, and for peers also all pixels, which they need as
float64 rows; "times ours" is given with it and, for fit and prediction alone, without. With C = 1 and gamma = "scale",
SVC (LIBSVM) defines what is right: "agreement" is the share of pixels labelled as by SVC; TorchKM, which is binary,
and cross-validates with two folds at least, is given images of two classes only. "memory" is by how much the resident
size grew at most (on Linux). ``--growth`` shows how our time grows with samples, channels, classes and pixels, one at
a time; ``--noise`` is ``benchmarks/noise.py``. ``--flipped`` compares fit and prediction where a share of the labels
is wrong.
"""

import argparse
import itertools
import multiprocessing
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.kernel_approximation import Nystroem, RBFSampler
from sklearn.linear_model import SGDClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC, LinearSVC
from torch import Tensor
from torch.nn import functional as F

from benchmarks.noise import flip, table
from torch_svm_seg.backbones.builder import load_backbone
from torch_svm_seg.cli.options.data import DataOptions
from torch_svm_seg.cli.options.option import add_options, read_options
from torch_svm_seg.data.constants import VOID
from torch_svm_seg.evaluation.metrics import SegmentationScore
from torch_svm_seg.expansion.expander import SVMExpander, z_score
from torch_svm_seg.expansion.interpolation import read_pixels
from torch_svm_seg.expansion.sampling import sample_pixels
from torch_svm_seg.svm.svm import SVM

COMPONENTS = 1024


@dataclass
class Task:
    """One image's feature map (C, h, w) and labels (H, W)."""

    features: Tensor
    labels: Tensor

    def flipped(self, share: float) -> "Task":
        """Return the task with a share of its labels another class's, by seed 0."""
        known = self.labels != VOID
        classes, ids = self.labels[known].unique(return_inverse=True)
        labels = self.labels.clone()
        labels[known] = classes[torch.from_numpy(flip(ids.numpy(), share))]
        return Task(self.features, labels)

    def samples(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sampled pixels (N, C), their class ids (N,), and all pixels (H W, C)."""
        features = z_score(self.features[None].double())
        sample = sample_pixels(self.labels[None])
        size = (self.labels.shape[0], self.labels.shape[1])
        x = read_pixels(features, sample.positions, size)[0]
        pixels = F.interpolate(features, size, mode="bilinear")[0].flatten(1).T.contiguous()
        return x.numpy(), sample.classes[0].numpy(), pixels.numpy()


@dataclass
class Result:
    """The result of a method: seconds, MB and labels (H, W)."""

    prepare: float
    fit: float
    predict: float
    memory: float
    mask: Tensor

    @property
    def work(self) -> float:
        """Seconds of fit and prediction."""
        return self.fit + self.predict

    @property
    def total(self) -> float:
        """Seconds altogether."""
        return self.prepare + self.work


Seconds = tuple[float, float, float]


def ours(samples_per_class: int = 2500, **options: Any) -> Callable[[Task], tuple[Seconds, Tensor]]:
    """The expander; the time of its fit is taken inside."""

    def run(task: Task) -> tuple[Seconds, Tensor]:
        clock = [time.process_time()]

        class Timed(SVM):
            def fit(self, *arguments: Any) -> SVM:
                clock.append(time.process_time())
                fitted = super().fit(*arguments)
                clock.append(time.process_time())
                return fitted

        expander = SVMExpander(Timed(**options), samples_per_class=samples_per_class)
        mask = expander(task.features[None], task.labels[None]).masks[0]
        clock.append(time.process_time())
        return _between(clock), mask

    return run


def peer(build: Callable[[float], Any]) -> Callable[[Task], tuple[Seconds, Tensor]]:
    """An estimator of scikit-learn's interface, built from gamma."""

    def run(task: Task) -> tuple[Seconds, Tensor]:
        clock = [time.process_time()]
        x, y, pixels = task.samples()
        clock.append(time.process_time())
        estimator = build(1 / (x.shape[1] * x.var()))
        estimator.fit(x, y)
        clock.append(time.process_time())
        mask = estimator.predict(pixels)
        clock.append(time.process_time())
        return _between(clock), torch.from_numpy(np.asarray(mask)).reshape(task.labels.shape)

    return run


def _between(clock: Sequence[float]) -> Seconds:
    prepare, fit, predict = (end - start for start, end in itertools.pairwise(clock))
    return prepare, fit, predict


def _torchkm(**options: Any) -> Any:
    from torchkm import TorchKMSVC

    return TorchKMSVC(**options)


METHODS: dict[str, Callable[[Task], tuple[Seconds, Tensor]]] = {
    "ours, RBF": ours(),
    "ours, linear": ours(kernel="linear"),
    "ours, linear, squared hinge": ours(kernel="linear", loss="squared_hinge"),
    "SVC (RBF)": peer(lambda gamma: OneVsRestClassifier(SVC(C=1.0, gamma=gamma, cache_size=500))),
    "LinearSVC": peer(lambda _: LinearSVC(C=1.0)),
    f"Nystroem({COMPONENTS}) + LinearSVC": peer(
        lambda gamma: make_pipeline(Nystroem(gamma=gamma, n_components=COMPONENTS, random_state=0), LinearSVC(C=1.0))
    ),
    f"RBFSampler({COMPONENTS}) + SGDClassifier": peer(
        lambda gamma: make_pipeline(
            RBFSampler(gamma=gamma, n_components=COMPONENTS, random_state=0), SGDClassifier(random_state=0)
        )
    ),
    # Its kernel is exp(-2 rbf_sigma |x - z|^2).
    "TorchKM": peer(lambda gamma: _torchkm(Cs=[1.0], nC=1, cv=2, rbf_sigma=gamma / 2, device="cpu")),
}
REFERENCE, OURS = "SVC (RBF)", "ours, RBF"


def _measure(name: str, task: Task, threads: int, channel: Any) -> None:
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    small = Task(task.features[:, ::4, ::4].contiguous(), task.labels[::4, ::4].contiguous())
    if name.startswith("ours"):
        METHODS[name](small)  # warm up
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _peak()
    with torch.inference_mode():
        seconds, mask = METHODS[name](task)
    channel.put((seconds, _peak() - before, mask.numpy()))


def _peak() -> float:
    """Largest resident size of this process, MB."""
    status = Path("/proc/self/status").read_text()
    return float(status.split("VmHWM:")[1].split()[0]) / 1024


def measure(name: str, task: Task, threads: int) -> Result:
    """Run a method on a task in a process of its own."""
    context = multiprocessing.get_context("spawn")
    channel = context.SimpleQueue()
    process = context.Process(target=_measure, args=(name, task, threads, channel))
    process.start()
    seconds, memory, mask = channel.get()
    process.join()
    return Result(*seconds, memory, torch.from_numpy(mask))


def compare(tasks: Sequence[Task], methods: Sequence[str], threads: int, number: int, wrong: float) -> str:
    """A Markdown table of methods: medians of times, means of accuracy, the most memory over the tasks.

    Args:
        tasks: Images with their true labels.
        methods: Names of methods.
        threads: Threads of PyTorch.
        number: Number of classes.
        wrong: Share of the labels that are flipped before the methods see them.
    """
    done: list[dict[str, Result]] = []
    for task in tasks:
        binary = len(task.labels[task.labels != VOID].unique()) == 2
        done.append(
            {name: measure(name, task.flipped(wrong), threads) for name in methods if binary or name != "TorchKM"}
        )
    lines = [
        "| method | images | prepare, s | fit, s | predict, s | total, s | times ours | of fit and predict "
        "| agreement, % | mIoU, % | memory, MB |",
        "|---" * 11 + "|",
    ]
    for name in methods:
        runs = [(found[name], found, task) for found, task in zip(done, tasks, strict=True) if name in found]
        if not runs:
            continue
        score = SegmentationScore(number)
        for result, _, task in runs:
            score.update(result.mask, task.labels)
        agreement = [float((result.mask == found[REFERENCE].mask).float().mean()) for result, found, _ in runs]
        seconds = [[result.prepare, result.fit, result.predict, result.total] for result, _, _ in runs]
        medians = [f"{statistics.median(column):.3f}" for column in zip(*seconds, strict=True)]
        ratios = [[result.total / found[OURS].total, result.work / found[OURS].work] for result, found, _ in runs]
        medians += [f"{statistics.median(column):.1f}" for column in zip(*ratios, strict=True)]
        lines.append(
            f"| {name} | {len(runs)} | {' | '.join(medians)} | {100 * statistics.mean(agreement):.2f} "
            f"| {100 * score.compute().miou:.2f} | {max(result.memory for result, _, _ in runs):.0f} |"
        )
    return "\n".join(lines)


def growth(task: Task, kernel: str) -> str:
    """A Markdown table of our times where samples, channels, classes or pixels vary, one at a time."""
    lines = ["| what varies | value | prepare, s | fit, s | predict, s |", "|---|---|---|---|---|"]
    classes = [int(id) for id in task.labels.unique() if id != VOID]
    labels, features = task.labels, task.features

    def row(what: str, value: Any, varied: Task, number: int = 2500) -> None:
        runs = [ours(kernel=kernel, samples_per_class=number)(varied)[0] for _ in range(3)]
        medians = [f"{statistics.median(seconds):.2f}" for seconds in zip(*runs, strict=True)]
        lines.append(f"| {what} | {value} | {' | '.join(medians)} |")

    two = torch.where(torch.isin(labels, torch.tensor(classes[:2])), labels, VOID)
    for number in (312, 625, 1250, 2500, 5000):
        row("samples a class, 2 classes", number, Task(features, two), number)
    for channels in (features.shape[0] // 8, features.shape[0] // 4, features.shape[0] // 2, features.shape[0]):
        row("channels, 2 classes", channels, Task(features[:channels], two))
    for count in range(2, len(classes) + 1):
        chosen = torch.where(torch.isin(labels, torch.tensor(classes[:count])), labels, VOID)
        row("classes", count, Task(features, chosen))
    for scale in (1, 2, 4):
        finer = F.interpolate(two[None, None].float(), scale_factor=scale, mode="nearest")[0, 0].long()
        row("pixels, 2 classes, on the same grid of features", finer.numel(), Task(features, finer))
    return "\n".join(lines)


def forward_seconds(name: str, weights: str | None, image: Tensor) -> float:
    """Median time of one forward pass up to the last stage."""
    backbone = load_backbone(name, weights)
    seconds = []
    for _ in range(4):
        start = time.process_time()
        backbone.stages(image[None], ["F5"])
        seconds.append(time.process_time() - start)
    return statistics.median(seconds[1:])


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="Compare the SVM's speed and accuracy with its peers'.")
    add_options(parser, DataOptions)
    parser.add_argument("--backbone", default="efficientnet_lite0", help="(default: %(default)s)")
    parser.add_argument("--weights", help="random does for timing (default: ImageNet)")
    parser.add_argument("--features", nargs="+", default=["F1", "F3", "F5"])
    parser.add_argument("--without", nargs="+", default=[], choices=set(METHODS) - {OURS, REFERENCE}, metavar="METHOD")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch (default: %(default)s)")
    parser.add_argument("--flipped", type=float, default=0.0, help="share of wrong labels (default: %(default)s)")
    parser.add_argument("--growth", action="store_true", help="show how our cost grows instead")
    parser.add_argument("--noise", nargs="+", type=float, metavar="SHARE", help="compare fits where labels are wrong")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    args = build_parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    if args.noise:
        for line in table(args.noise, args.features):
            print(line, flush=True)
        return
    methods = [name for name in METHODS if name not in args.without]
    dataset = read_options(DataOptions, args).open()
    with torch.inference_mode():
        backbone = load_backbone(args.backbone, args.weights)
        stages = [backbone.stages(dataset[index].image[None], args.features) for index in range(len(dataset))]
        first = dataset[0].image
        for name, weights in ((args.backbone, args.weights), ("resnet50", "random")):
            seconds = forward_seconds(name, weights, first)
            print(f"One forward pass of {name} on {tuple(first.shape[1:])}: {seconds:.2f} s", flush=True)
        for feature in args.features:
            tasks = [Task(found[feature][0].clone(), dataset.mask(index)) for index, found in enumerate(stages)]
            if args.growth:
                for kernel in ("rbf", "linear"):
                    print(f"\n{feature}, {tasks[0].features.shape[0]} channels, {kernel}\n")
                    print(growth(tasks[0], kernel), flush=True)
            else:
                print(f"\n{feature}, {tasks[0].features.shape[0]} channels\n")
                print(compare(tasks, methods, args.threads, len(dataset.class_names), args.flipped), flush=True)


if __name__ == "__main__":
    main()
