"""Everything that a GPU is needed for, in one command and one Markdown table.

    python -m benchmarks.gpu --root DIR --out benchmarks/results/NAME.md

Runs the tests on the device, then measures the expansion at every stage of three networks (random weights: times do not
depend on them) in batches of 1, 8 and 32, the refinements, and training steps; it projects the study of the paper's
Table 1 from the first images of VOC's train list, and compares masks with the CPU's. Each measurement repeats its work
for about ``--seconds``, after one run that does not count; the whole takes under 8 minutes on one card. ``--tiny`` does
the same on small images, in seconds, on any device.
"""

import argparse
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

import torch_svm_seg
from benchmarks.operations import counted
from torch_svm_seg.backbones.builder import load_backbone
from torch_svm_seg.cam.classifier import Classifier
from torch_svm_seg.cli import expand
from torch_svm_seg.data.embedded import embedded_sample
from torch_svm_seg.expansion.expander import SVMExpander
from torch_svm_seg.irn.network import IRNet
from torch_svm_seg.irn.refinement import IRNRefinement
from torch_svm_seg.refine import PAMR, AffinityWalk, DenseCRF
from torch_svm_seg.segmenters.builder import build_segmenter
from torch_svm_seg.tensors import resize
from torch_svm_seg.training.trainable import Crops, Trainable
from torch_svm_seg.training.trainer import Training, TrainingSettings

LITE, VIT = "efficientnet_lite0", "timm:vit_small_patch14_dinov2"
STUDY_IMAGES = 1464  # of VOC 2012 train


@dataclass(frozen=True)
class Plan:
    """What to measure with.

    Attributes:
        device: Where.
        seconds: How long each measurement repeats its work, at least.
        tiny: Small images, few samples, one network.
    """

    device: torch.device
    seconds: float
    tiny: bool

    @property
    def networks(self) -> tuple[str, ...]:
        """Names of the networks."""
        return (LITE,) if self.tiny else ("resnet50", LITE, VIT)

    @property
    def batches(self) -> tuple[int, ...]:
        """Numbers of images at once."""
        return (1, 2) if self.tiny else (1, 8, 32)

    @property
    def samples(self) -> int:
        """Pixels of each class that train an SVM."""
        return 50 if self.tiny else 2500

    def images(self, number: int, classes: int = 2) -> tuple[Tensor, Tensor]:
        """Return the embedded image and its mask of the first classes, repeated, on the device."""
        image, mask = embedded_sample().image(0), embedded_sample().mask(0)
        if self.tiny:
            image, mask = image[:, ::5, ::5], mask[::5, ::5]
        present = [value for value in mask.unique().tolist() if value != 255][:classes]
        numbers = torch.full((256,), 255)
        numbers[present] = torch.arange(len(present))
        images, masks = image.repeat(number, 1, 1, 1), numbers[mask].repeat(number, 1, 1)
        return images.to(self.device), masks.to(self.device)

    def seconds_of(self, work: Callable[[], object]) -> float:
        """Return the mean seconds of some work."""
        work()
        self._wait()
        start, times = time.perf_counter(), 0
        while times == 0 or time.perf_counter() - start < self.seconds:
            work()
            self._wait()
            times += 1
        return (time.perf_counter() - start) / times

    def peak(self, work: Callable[[], object]) -> str:
        """Return how many MB of the device some work takes beside what is there; a CPU does not tell."""
        if self.device.type != "cuda":
            return "-"
        before = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        work()
        return f"{(torch.cuda.max_memory_allocated(self.device) - before) / 2**20:,.0f}"

    def watts(self) -> str:
        """Return the power that the driver reports, if it does."""
        try:
            return f"{torch.cuda.power_draw(self.device) / 1000:.0f}"
        except (RuntimeError, AssertionError, ModuleNotFoundError, ValueError):
            return "-"

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


Table = tuple[str, Sequence[str], Iterator[Sequence[object]]]
"""A title, the columns' names, and the rows, measured as they are asked for."""


def expansion(plan: Plan) -> Iterator[Sequence[object]]:
    """Measure fit and labels: images/s, operations, waits, memory, for two and five classes."""
    for name in plan.networks:
        backbone = load_backbone(name, "random").to(plan.device)
        for classes in (2, 5):
            for number in plan.batches:
                images, masks = plan.images(number, classes)
                with torch.inference_mode():
                    stages = backbone.stages(images, backbone.stage_names)
                for stage, features in stages.items():
                    yield [name, stage, classes, number, *_expansion_row(plan, features, masks)]


@torch.inference_mode()
def _expansion_row(plan: Plan, features: Tensor, masks: Tensor) -> list[object]:
    work = partial(SVMExpander(samples_per_class=plan.samples), features, masks)
    seconds = plan.seconds_of(work) / len(masks)
    count, watts = counted(work), plan.watts()
    return [
        f"{1000 * seconds:.1f}",
        f"{1 / seconds:.1f}",
        f"{count.operations.total():,}",
        f"{count.waits:,}",
        plan.peak(work),
        watts,
    ]


@torch.inference_mode()
def refinements(plan: Plan) -> Iterator[Sequence[object]]:
    """Measure images/s of each refinement."""
    for number in plan.batches:
        images, masks = plan.images(number, 3)
        probabilities = torch.nn.functional.one_hot(masks.where(masks < 3, 0), 3).permute(0, 3, 1, 2) * 0.8 + 0.2 / 3
        irnet = IRNet(load_backbone(LITE, "random")).to(plan.device).eval()
        cells = [-(-side // 14) for side in masks.shape[1:]]
        maps, tokens = resize(probabilities, cells), torch.randn(number, 384, *cells, device=plan.device)
        works: dict[str, tuple[torch.nn.Module, tuple[Tensor, ...]]] = {
            "dense CRF": (DenseCRF.preset("psa").to(plan.device), (images, probabilities)),
            "PAMR": (PAMR().to(plan.device), (images, probabilities)),
            "affinity walk": (AffinityWalk(), (maps, tokens)),
            "IRN walk, with its network": (IRNRefinement(irnet).to(plan.device), (images, probabilities)),
        }
        for name, (module, arguments) in works.items():
            work = partial(module, *arguments)
            seconds = plan.seconds_of(work) / number
            yield [name, number, f"{1000 * seconds:.1f}", f"{1 / seconds:.1f}", plan.peak(work)]


class _Noise(Crops):
    """Crops of noise with labels, so that nothing is read while steps are measured."""

    def __init__(self, number: int, size: int, with_masks: bool) -> None:
        super().__init__(seed=0)
        self.number, self.size, self.with_masks = number, size, with_masks

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        generator = self.generator(index)
        image = 255 * torch.rand(3, self.size, self.size, generator=generator)
        if self.with_masks:
            return image, torch.randint(0, 21, (self.size, self.size), generator=generator)
        return image, torch.ones(self.size, self.size), torch.randint(0, 2, (20,), generator=generator).float()


def training(plan: Plan) -> Iterator[Sequence[object]]:
    """Measure training steps/s, in single precision and in bfloat16 where PyTorch deems it safe."""
    size, number = (64, 2) if plan.tiny else (321, 16)
    networks: dict[str, tuple[Callable[[], Trainable], bool]] = {
        f"classifier, {name}": (partial(_classifier, name), False) for name in plan.networks[:2]
    }
    names = ("lite:efficientnet_lite0",) if plan.tiny else ("lite:efficientnet_lite0", "deeplabv2:resnet101")
    networks |= {f"segmenter, {name}": (partial(build_segmenter, name, 21, "random"), True) for name in names}
    for name, (build, with_masks) in networks.items():
        for amp in (False, True):
            how = TrainingSettings(None, number, 1e-4, 0.9, 1e-4, crop_size=size, amp=amp, steps=10**6)
            run = Training(build().to(plan.device), _Noise(number, size, with_masks), how)
            seconds = plan.seconds_of(partial(run.run, 1, report=lambda step: None))
            yield [name, f"{number} crops of {size}", "bfloat16" if amp else "single", f"{1 / seconds:.2f}"]


def _classifier(name: str) -> Classifier:
    return Classifier(load_backbone(name, "random"), 20)


def study(plan: Plan, root: Path | None) -> Iterator[Sequence[object]]:
    """Run the study on a part of VOC's train list, with all six features, and project it to the whole list.

    The backbone computes in single precision, then in bfloat16 where PyTorch deems it safe.
    """
    limit = 1 if root is None else (2 if plan.tiny else 40)
    data = [] if root is None else ["--root", str(root), "--limit", str(limit)]
    few = ["--features", "img", "F3", "--samples-per-class", "50"] if plan.tiny else ["--workers", "4"]
    for precision, amp in (("single", []), ("bfloat16", ["--amp"])):
        with tempfile.TemporaryDirectory() as out:
            start = time.perf_counter()
            code = expand.main([*data, *few, *amp, "--device", str(plan.device), "--batch-size", "8", "--out", out])
            seconds = time.perf_counter() - start
        outcome = "all images" if code == 0 else "failed"
        yield [limit, precision, f"{seconds:.1f}", f"{STUDY_IMAGES * seconds / limit:,.0f}", outcome]


@torch.inference_mode()
def agreement(plan: Plan) -> Iterator[Sequence[object]]:
    """Compare the masks of the device with the CPU's, stage by stage."""
    backbone = load_backbone(LITE, "random")
    images, masks = plan.images(1, 5)
    expander = SVMExpander(samples_per_class=plan.samples)
    for stage, features in backbone.stages(images.cpu(), backbone.stage_names).items():
        here = expander(features.to(plan.device), masks).masks.cpu()
        there = expander(features, masks.cpu()).masks
        yield [stage, f"{100 * float((here == there).float().mean()):.3f}"]


def tests() -> Iterator[Sequence[object]]:
    """Run the tests that take a device on the GPU; without one they are skipped."""
    command = [sys.executable, "-m", "pytest", "-q", "-k", "cuda", "tests", "--no-header", "-p", "no:cacheprovider"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    yield [f"exit code {done.returncode}", done.stdout.strip().splitlines()[-1]]


def tables(plan: Plan, root: Path | None, skip_tests: bool) -> list[Table]:
    """Return all that is measured."""
    per_image = ("ms/image", "images/s", "operations", "waits", "MB", "W")
    measured: list[Table] = [
        ("Fit and labels", ("network", "stage", "classes", "images at once", *per_image), expansion(plan)),
        ("Refinement", ("method", "images at once", "ms/image", "images/s", "MB"), refinements(plan)),
        ("Training", ("network", "batch", "precision", "steps/s"), training(plan)),
        ("Study of Table 1", ("images", "backbone", "s", f"s for {STUDY_IMAGES}", "outcome"), study(plan, root)),
        ("Masks equal to the CPU's", ("stage", "% of pixels"), agreement(plan)),
    ]
    return measured if skip_tests else [("Tests", ("outcome", "summary"), tests()), *measured]


def heading(device: torch.device) -> str:
    """Return what was measured on, and when."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    versions = f"torch {torch.__version__}, CUDA {torch.version.cuda}, Python {platform.python_version()}"
    return f"# {name}, {date.today()}\n\ntorch_svm_seg {torch_svm_seg.__version__}, {versions}, {platform.platform()}\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder that holds VOCdevkit, for the study (default: one image)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=1.0, help="least seconds of a measurement")
    parser.add_argument("--tiny", action="store_true", help="small images, on any device, in seconds")
    parser.add_argument("--skip-tests", action="store_true", help="measure alone")
    parser.add_argument("--out", type=Path, required=True, help="Markdown file to write; it grows with each table")
    args = parser.parse_args(argv)
    plan = Plan(torch.device(args.device), args.seconds, args.tiny)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with open(args.out, "w", encoding="utf-8") as stream:
        print(heading(plan.device), file=stream)
        for title, columns, rows in tables(plan, args.root, args.skip_tests):
            print(f"## {title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}", file=stream)
            for row in rows:
                print(f"| {' | '.join(map(str, row))} |", file=stream, flush=True)
            print(file=stream, flush=True)


if __name__ == "__main__":
    main()
