"""Learn a metric through the SVM: fitted on sampled pixels of an image, it shall classify the others.

    python -m examples.finetune_through_svm --root DIR --samples-per-class 20          (needs matplotlib)
    python -m examples.finetune_through_svm --root DIR --samples-per-class 20 --cams runs/cams

Each step takes one image, fits its SVM on --samples-per-class pixels of each class and takes the multi-class hinge
loss of other pixels. Its gradient runs through the fit to a linear projection of each stage, and with
--backbone-rate on into the backbone. (Lee et al., CVPR 2019, learn features for few images of a class so.) It starts
as the identity, which is fixed fusion, and is judged on images of another split, by the same loss and by the masks
of their SVMs. With --cams no mask is learned from: the labels, in both splits, are those pixels of the activation maps'
seed that can be trusted; masks only judge.
"""

import argparse
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from torch_svm_seg import SVM, SVMExpander
from torch_svm_seg.backbones.backbone import Backbone
from torch_svm_seg.cli.options.backbone import BackboneOptions
from torch_svm_seg.cli.options.maps import MapOptions
from torch_svm_seg.cli.options.option import add_options, read_options
from torch_svm_seg.data.constants import VOID
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.voc import voc2012
from torch_svm_seg.evaluation.metrics import SegmentationScore
from torch_svm_seg.expansion.expander import z_score
from torch_svm_seg.expansion.interpolation import read_pixels
from torch_svm_seg.expansion.normalization import equalize_maps, fused_stages
from torch_svm_seg.expansion.sampling import sample_pixels
from torch_svm_seg.expansion.self_training import SelfTraining
from torch_svm_seg.pipeline.cam_supervision import CamFiles
from torch_svm_seg.refine import DenseCRF

JUDGED_PIXELS = 4000
FeatureMaps = Callable[[Tensor], list[Tensor]]
"""Returns maps (B, C_j, h_j, w_j) of images (B, 3, H, W)."""


class Lesson(NamedTuple):
    """An image to learn from or to judge on.

    Attributes:
        image: RGB 0..255, (3, H, W).
        labels: Class ids (H, W) of the pixels that SVMs may train on, 255 elsewhere.
        mask: The true class ids (H, W).
    """

    image: Tensor
    labels: Tensor
    mask: Tensor


class Projection(nn.Module):
    """A linear map of each stage's channels, at first the identity: x + R x.

    Linear maps commute with interpolation: each stage is projected on its own grid. A kernel of distances sees no bias.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.residuals = nn.ModuleList(nn.Conv2d(number, number, 1, bias=False) for number in channels)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Projected maps (B, C_j, h_j, w_j), of maps of the same shapes."""
        return [features + residual(features) for features, residual in zip(maps, self.residuals, strict=True)]


class LearnedFusion(nn.Module):
    """Stages of a backbone in a learned metric."""

    def __init__(self, backbone: Backbone, stages: Sequence[str]) -> None:
        super().__init__()
        self.backbone, self.stages = backbone, stages
        self.projection = Projection([backbone.channels[name] for name in stages])

    def fixed(self, images: Tensor) -> list[Tensor]:
        """Maps (B, C, h, w) of images (B, 3, H, W), RGB 0..255, as fixed fusion weighs them."""
        stages = self.backbone.stages(images, self.stages)
        return equalize_maps([z_score(stages[name]) for name in self.stages])

    def forward(self, images: Tensor) -> list[Tensor]:
        """The same maps in the learned metric."""
        projected: list[Tensor] = self.projection(self.fixed(images))
        return projected


def held_out_loss(maps: list[Tensor], labels: Tensor, samples: int, seed: int, tol: float = 1e-3) -> Tensor:
    """Loss of other labelled pixels (H, W), under the SVM that is fitted on so many samples of each class.

    They are drawn anywhere, which a mask is judged by, not balanced between classes as the sample is. A hinge counts
    errors and narrow margins: a cross-entropy of SVM scores, which are about 1 and -1, would mostly reward larger ones.
    """
    size = (labels.shape[0], labels.shape[1])
    sample = sample_pixels(labels[None], samples, seed)
    svm = SVM(loss="squared_hinge", tol=tol, gradient="implicit")
    svm.fit(read_pixels(maps, sample.positions, size), sample.classes)
    others = (labels != VOID) & (sample.as_labels(*size)[0] == VOID)
    judged = sample_pixels(torch.where(others, 0, VOID)[None], JUDGED_PIXELS, seed + 1).positions
    targets = torch.searchsorted(svm.classes_, labels.flatten()[judged[0]])
    return F.multi_margin_loss(svm.decision(read_pixels(maps, judged, size))[0], targets)


def train(model: LearnedFusion, lessons: Sequence[Lesson], args: argparse.Namespace) -> list[float]:
    """The losses of all steps."""
    rates = [(model.projection, args.rate), (model.backbone, args.backbone_rate)]
    model.backbone.requires_grad_(args.backbone_rate > 0)
    optimizer = torch.optim.Adam([{"params": part.parameters(), "lr": rate} for part, rate in rates])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.steps)
    generator = torch.Generator().manual_seed(args.seed)
    losses: list[float] = []
    for step in tqdm(range(args.steps), unit="step", disable=None):
        lesson = lessons[int(torch.randint(len(lessons), (), generator=generator))]
        loss = held_out_loss(model(lesson.image[None]), lesson.labels, args.samples_per_class, args.seed + step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def judge(
    features: FeatureMaps, lessons: Sequence[Lesson], num_classes: int, args: argparse.Namespace
) -> tuple[float, float]:
    """Mean held-out loss, and mean IoU of the masks, of the maps that ``features`` gives."""
    expander = SVMExpander(samples_per_class=args.samples_per_class, seed=args.seed, normalize=False)
    score, losses = SegmentationScore(num_classes), []
    for lesson in tqdm(lessons, unit="image", leave=False, disable=None):
        maps = features(lesson.image[None])
        losses.append(held_out_loss(maps, lesson.labels, args.samples_per_class, args.seed))
        score.update(expander(maps, lesson.labels[None]).masks[0], lesson.mask)
    return float(torch.stack(losses).mean()), score.compute().miou


def read_lessons(dataset: ImageDataset, limit: int, seeds: CamFiles | None) -> list[Lesson]:
    """Images, evenly spread, whose labels are of at least two classes: one has nothing to tell apart."""
    trust = SelfTraining(SVMExpander(), agreement=DenseCRF.preset("psa"))
    lessons = []
    for index in tqdm(range(0, len(dataset), max(len(dataset) // limit, 1))[:limit], unit="image", disable=None):
        image, mask = dataset.image(index), dataset.mask(index)
        labels = mask
        if seeds is not None:
            seed = seeds.read(dataset, index)
            labels = seed.class_ids(trust.training_labels(image[None], seed.known[None])[0])
        if len({*labels.unique().tolist()} - {VOID}) > 1:
            lessons.append(Lesson(image, labels, mask))
    return lessons


def plot(losses: Sequence[float], path: Path, smooth: int = 20) -> None:
    """The training loss, and its mean over the last steps."""
    import matplotlib.pyplot as plt

    windows = [losses[max(0, step + 1 - smooth) : step + 1] for step in range(len(losses))]
    figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
    axes.plot(losses, ".", markersize=2, label="step")
    axes.plot([sum(window) / len(window) for window in windows], label=f"mean of {smooth}")
    axes.set(xlabel="step", ylabel="held-out loss", yscale="log")
    axes.legend()
    figure.savefig(path, dpi=150)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="Learn a metric of fused stages through per-image SVMs.")
    parser.add_argument("--root", required=True, help="folder that holds VOCdevkit")
    parser.add_argument("--split", default="train", help="to learn from (default: %(default)s)")
    parser.add_argument("--val-split", default="val", help="to judge on (default: %(default)s)")
    parser.add_argument("--limit", type=int, default=100, help="images to learn from (default: %(default)s)")
    parser.add_argument("--val-limit", type=int, default=20, help="images to judge on (default: %(default)s)")
    add_options(parser, BackboneOptions)
    add_options(parser, MapOptions)
    parser.add_argument("--features", default="F1+F2+F3+F4+F5", help="stages to fuse (default: %(default)s)")
    parser.add_argument("--alone", default="F4", help="a stage to compare with (default: %(default)s)")
    parser.add_argument(
        "--samples-per-class",
        type=int,
        default=2500,
        help="pixels of each class: a metric learnt from few prefers coarse stages, and suits few (%(default)s)",
    )
    parser.add_argument("--steps", type=int, default=200, help="0 only judges (default: %(default)s)")
    parser.add_argument(
        "--rate", type=float, default=1e-3, help="learning rate of the projection (default: %(default)s)"
    )
    parser.add_argument("--projection", type=Path, help="of an earlier run, to start from (default: the identity)")
    parser.add_argument(
        "--backbone-rate", type=float, default=0.0, help="learning rate of the backbone (default: 0, frozen)"
    )
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/metric"), help="folder (default: %(default)s)")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    args = build_parser().parse_args(argv)
    dataset, unseen = voc2012(args.root, args.split), voc2012(args.root, args.val_split)
    seeds = None if args.cams is None else read_options(MapOptions, args).files()
    lessons, tests = read_lessons(dataset, args.limit, seeds), read_lessons(unseen, args.val_limit, seeds)
    backbone = read_options(BackboneOptions, args).load()
    model = LearnedFusion(backbone, fused_stages(args.features))
    if args.projection is not None:
        model.projection.load_state_dict(torch.load(args.projection, weights_only=True))

    def judged(features: FeatureMaps) -> tuple[float, float]:
        return judge(features, tests, len(unseen.class_names), args)

    results = {
        f"{args.alone} alone": judged(LearnedFusion(backbone, [args.alone]).fixed),
        "fixed fusion": judged(model.fixed),
    }
    start = time.perf_counter()
    losses = train(model, lessons, args)
    seconds = (time.perf_counter() - start) / max(args.steps, 1)
    results["learned"] = judged(model)
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.projection.state_dict(), args.out / "projection.pt")
    plot(losses, args.out / "loss.png")
    print(f"{args.val_split}, {len(tests)} images | held-out loss | mIoU")
    for name, (loss, miou) in results.items():
        print(f"{name} | {loss:.4f} | {100 * miou:.2f}")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{seconds:.2f} s a step, {memory:.0f} MB of memory at most; |R| / |identity| of each stage, {args.features}:"
    )
    print(" ".join(f"{float(r.detach().norm()) / len(r) ** 0.5:.2f}" for r in model.projection.parameters()))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
