"""Learn a metric through the SVM: fitted on sampled pixels of a photograph, it shall classify the others.

    python -m examples.finetune_through_svm --root DIR --out runs/metric      (needs matplotlib)

Each step takes one photograph, fits its SVM on --samples-per-class pixels of each class and takes the multi-class hinge
loss of pixels drawn anywhere. Its gradient runs through the fit to the metric, a scale for each channel of each stage,
and with --backbone-rate on into the backbone. The metric starts as that of fixed fusion. It is judged on photographs of
another split, by the same loss and by the masks of their SVMs.
"""

import argparse
import resource
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from torch_svm_seg import SVM, SVMExpander
from torch_svm_seg.backbones import Backbone, load_backbone
from torch_svm_seg.datasets import PhotographDataset, voc2012
from torch_svm_seg.expander import z_score
from torch_svm_seg.fusion import fused_stages, weigh_alike
from torch_svm_seg.interpolation import read_pixels
from torch_svm_seg.metrics import SegmentationScore
from torch_svm_seg.sampling import VOID, sample_pixels

JUDGED_PIXELS = 4000


class LearnedFusion(nn.Module):
    """Stages of a backbone in a learned metric."""

    def __init__(self, backbone: Backbone, stages: Sequence[str]) -> None:
        super().__init__()
        self.backbone, self.stages = backbone, stages
        channels = [backbone.channels[name] for name in stages]
        self.log_scales = nn.ParameterList(torch.zeros(number, 1, 1) for number in channels)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps (B, C, h, w) of images (B, 3, H, W), RGB 0..255."""
        stages = self.backbone.stages(images, self.stages)
        maps = weigh_alike([z_score(stages[name]) for name in self.stages])
        return [features * scale.exp() for features, scale in zip(maps, self.log_scales, strict=True)]


def held_out_loss(maps: list[Tensor], labels: Tensor, samples: int, seed: int, tol: float = 1e-3) -> Tensor:
    """Loss of pixels drawn anywhere in labels (H, W), under the SVM that is fitted on so many samples of each class.

    Pixels anywhere are what a mask is judged by; those of the sample, balanced between classes, are not. A hinge counts
    errors and narrow margins: a cross-entropy of SVM scores, which are about 1 and -1, would mostly reward larger ones.
    """
    size = (labels.shape[0], labels.shape[1])
    sample = sample_pixels(labels[None], samples, seed)
    svm = SVM(loss="squared_hinge", tol=tol, gradient="implicit")
    svm.fit(read_pixels(maps, sample.positions, size), sample.classes)
    anywhere = sample_pixels(torch.where(labels == VOID, VOID, 0)[None], JUDGED_PIXELS, seed + 1).positions
    targets = torch.searchsorted(svm.classes_, labels.flatten()[anywhere[0]])
    return F.multi_margin_loss(svm.decision(read_pixels(maps, anywhere, size))[0], targets)


def train(
    model: LearnedFusion, dataset: PhotographDataset, places: Sequence[int], args: argparse.Namespace
) -> list[float]:
    """The losses of all steps."""
    rates = [(model.log_scales, args.rate), (model.backbone, args.backbone_rate)]
    model.backbone.requires_grad_(args.backbone_rate > 0)
    optimizer = torch.optim.Adam([{"params": part.parameters(), "lr": rate} for part, rate in rates])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.steps)
    generator = torch.Generator().manual_seed(args.seed)
    losses: list[float] = []
    for step in tqdm(range(args.steps), unit="step", disable=None):
        photograph = dataset[places[int(torch.randint(len(places), (), generator=generator))]]
        loss = held_out_loss(model(photograph.image[None]), photograph.mask, args.samples_per_class, args.seed + step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def judge(
    model: LearnedFusion, dataset: PhotographDataset, places: Sequence[int], args: argparse.Namespace
) -> tuple[float, float]:
    """Mean held-out loss, and mean IoU of the masks."""
    expander = SVMExpander(samples_per_class=args.samples_per_class, seed=args.seed, normalize=False)
    score, losses = SegmentationScore(len(dataset.class_names)), []
    for place in tqdm(places, unit="image", leave=False, disable=None):
        photograph = dataset[place]
        maps = model(photograph.image[None])
        losses.append(held_out_loss(maps, photograph.mask, args.samples_per_class, args.seed))
        score.update(expander(maps, photograph.mask[None]).masks[0], photograph.mask)
    return float(torch.stack(losses).mean()), score.compute().miou


def of_several_classes(dataset: PhotographDataset, limit: int) -> list[int]:
    """Photographs, evenly spread, that show at least two classes: one has nothing to tell apart."""
    places = range(0, len(dataset), max(len(dataset) // limit, 1))[:limit]
    return [place for place in places if len({*dataset.mask(place).unique().tolist()} - {VOID}) > 1]


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
    parser.add_argument("--limit", type=int, default=100, help="photographs to learn from (default: %(default)s)")
    parser.add_argument("--val-limit", type=int, default=20, help="photographs to judge on (default: %(default)s)")
    parser.add_argument("--backbone", default="efficientnet_lite0", help="(default: %(default)s)")
    parser.add_argument("--weights", help="of the backbone (default: its ImageNet weights)")
    parser.add_argument("--features", default="F1+F2+F3+F4+F5", help="stages to fuse (default: %(default)s)")
    parser.add_argument(
        "--samples-per-class",
        type=int,
        default=2500,
        help="pixels of each class: a metric learnt from few prefers coarse stages, and suits few (%(default)s)",
    )
    parser.add_argument("--steps", type=int, default=200, help="(default: %(default)s)")
    parser.add_argument("--rate", type=float, default=0.03, help="learning rate of the metric (default: %(default)s)")
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
    model = LearnedFusion(load_backbone(args.backbone, args.weights), fused_stages(args.features))
    places, unseen_places = of_several_classes(dataset, args.limit), of_several_classes(unseen, args.val_limit)
    before = judge(model, unseen, unseen_places, args)
    start = time.perf_counter()
    losses = train(model, dataset, places, args)
    seconds = (time.perf_counter() - start) / args.steps
    after = judge(model, unseen, unseen_places, args)
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(model.log_scales.state_dict(), args.out / "metric.pt")
    plot(losses, args.out / "loss.png")
    print(f"{args.val_split}, {len(unseen_places)} photographs | held-out loss | mIoU")
    for name, (loss, miou) in (("fixed fusion", before), ("learned", after)):
        print(f"{name} | {loss:.4f} | {100 * miou:.2f}")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{seconds:.2f} s a step, {memory:.0f} MB of memory at most; scale of each stage, {args.features}:")
    print(" ".join(f"{float(scale.detach().exp().mean()):.2f}" for scale in model.log_scales))


if __name__ == "__main__":
    main()
