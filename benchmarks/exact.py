"""How far the masks are from those of exact kernel SVMs: scikit-learn's SVC on the same sampled pixels.

    python -m benchmarks.exact --root DIR --list benchmarks/lists/animals_train.txt --limit 20

For each image and feature, one SVC(C=1, gamma="scale") a class against the rest (LIBSVM) is trained on the pixels
that the expander samples. SVC needs 10 to 200 s to label all pixels of an image; its decision function, the sum of
its support vectors' kernels, is therefore evaluated in PyTorch, and compared with SVC's own on some pixels ("check").
"""

import argparse
import time
from collections.abc import Sequence

import torch
from sklearn.svm import SVC
from torch import Tensor
from tqdm import tqdm

from torch_svm_seg.backbones.builder import load_backbone
from torch_svm_seg.cli.options.data import DataOptions
from torch_svm_seg.cli.options.option import add_options, read_options
from torch_svm_seg.evaluation.metrics import SegmentationScore
from torch_svm_seg.expansion.expander import SVMExpander, z_score
from torch_svm_seg.expansion.interpolation import read_pixels
from torch_svm_seg.expansion.pixel_scores import PixelScorer, score_pixels
from torch_svm_seg.expansion.sampling import sample_pixels
from torch_svm_seg.svm.decisions import GaussianDecision

CHECKED_PIXELS = 500


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="Compare the expander's masks with those of exact SVCs.")
    add_options(parser, DataOptions)
    parser.add_argument("--backbone", default="efficientnet_lite0", help="(default: %(default)s)")
    parser.add_argument("--features", nargs="+", default=["img", "F1", "F2", "F3", "F4", "F5"])
    parser.add_argument("--seed", type=int, default=0, help="of the sampled pixels (default: %(default)s)")
    return parser


def exact_mask(features: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, float, float]:
    """Mask (H, W) of one-vs-rest SVCs, the seconds they took to fit, and the error of evaluating them here."""
    size = (labels.shape[0], labels.shape[1])
    features = z_score(features.float())
    sample = sample_pixels(labels[None], seed=seed)
    x = read_pixels(features, sample.positions, size)
    classes = sample.classes[0].unique()
    gamma = 1 / (x.shape[2] * x.var(correction=0))
    positions = torch.arange(labels.numel())[None]
    scores, seconds, error = [], 0.0, 0.0
    for class_id in classes.tolist() if len(classes) > 1 else []:
        start = time.perf_counter()
        svc = SVC(C=1.0, gamma=float(gamma)).fit(x[0].numpy(), (sample.classes[0] == class_id).numpy())
        seconds += time.perf_counter() - start
        decision = GaussianDecision(
            x[:, torch.from_numpy(svc.support_).long()],
            torch.from_numpy(svc.dual_coef_).float().mT[None],
            gamma.view(1, 1, 1),
            torch.from_numpy(svc.intercept_).float()[None, None],
        )
        scorer = PixelScorer(decision, features, size)
        score = score_pixels(scorer, every_pixel=True)[0, 0]
        some = positions[:, :: positions.shape[1] // CHECKED_PIXELS]
        own = torch.from_numpy(svc.decision_function(read_pixels(features, some, size)[0].numpy()))
        error = max(error, float((score.flatten()[some[0]] - own).abs().max()))
        scores.append(score)
    if not scores:
        return torch.full_like(labels, int(classes)), seconds, error
    return classes[torch.stack(scores).argmax(0)], seconds, error


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    args = build_parser().parse_args(argv)
    dataset, backbone = read_options(DataOptions, args).open(), load_backbone(args.backbone)
    expander = SVMExpander(seed=args.seed)
    number = len(dataset.class_names)
    ours = {feature: SegmentationScore(number) for feature in args.features}
    exact = {feature: SegmentationScore(number) for feature in args.features}
    agree, seconds, fits, errors = ({feature: [] for feature in args.features} for _ in range(4))
    with torch.inference_mode():
        for index in tqdm(range(len(dataset)), unit="image"):
            item = dataset[index]
            labels = dataset.mask(index)
            stages = backbone.stages(item.image[None], args.features)
            for feature in args.features:
                start = time.perf_counter()
                mask = expander(stages[feature], labels[None]).masks[0]
                seconds[feature].append(time.perf_counter() - start)
                reference, fit, error = exact_mask(stages[feature], labels, args.seed)
                ours[feature].update(mask, labels)
                exact[feature].update(reference, labels)
                agree[feature].append(float((mask == reference).float().mean()))
                fits[feature].append(fit)
                errors[feature].append(error)
    print(
        "| feature | mIoU ours | mIoU exact SVC | difference | same labels | ours s/image | SVC fit s/image | check |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for feature in args.features:
        mine, theirs = ours[feature].compute().miou, exact[feature].compute().miou
        mean = {name: sum(v[feature]) / len(dataset) for name, v in (("a", agree), ("s", seconds), ("f", fits))}
        print(
            f"| {feature} | {100 * mine:.2f} | {100 * theirs:.2f} | {100 * (mine - theirs):+.2f} "
            f"| {100 * mean['a']:.2f} % | {mean['s']:.2f} | {mean['f']:.2f} | {max(errors[feature]):.0e} |"
        )


if __name__ == "__main__":
    main()
