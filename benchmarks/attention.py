"""Maps spread by the attention of a transformer, as MCTformer and CLIP-ES do, and by the similarity of its features.

    python -m benchmarks.attention --root DIR --list LIST --cams DIR --weights FILE

Each row is one affinity on the same maps. Attention is the mean over the heads and over the blocks named; "raw" spreads
by it as it is, "CLIP-ES" by the doubly stochastic, symmetric and squared one, "boxes" within the boxes around regions
above 0.4. The mIoU is that of the best of many fixed thresholds, by the ground truth: an upper bound for each row.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from torch_svm_seg.backbones.backbone import StageReader
from torch_svm_seg.backbones.builder import load_backbone
from torch_svm_seg.backbones.transformers import TransformerBackbone
from torch_svm_seg.cam.activation import constant_background, make_seed
from torch_svm_seg.cam.io import read_cams
from torch_svm_seg.data.voc import voc2012
from torch_svm_seg.evaluation.metrics import confusion_matrix, summarize
from torch_svm_seg.refine import AffinityWalk
from torch_svm_seg.refine.affinity_walk import boxes_above
from torch_svm_seg.refine.attention import attention_affinity, spread_by
from torch_svm_seg.tensors import resize

THRESHOLDS = [step / 20 for step in range(2, 19)]
LAST = {"last block": 1, "last 3 blocks": 3, "last 8 blocks": 8, "all blocks": 10_000}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description="Attention and similarity of features as affinities of maps.")
    parser.add_argument("--root", type=Path, required=True, help="folder that holds VOCdevkit")
    parser.add_argument("--list", type=Path, help="image names, one per line")
    parser.add_argument("--cams", type=Path, required=True, help="maps, as train.py cams writes them")
    parser.add_argument("--backbone", default="timm:vit_small_patch14_dinov2", help="plain transformer of timm")
    parser.add_argument("--weights", default="random", metavar="FILE")
    return parser


@torch.no_grad()
def read(backbone: TransformerBackbone, image: Tensor) -> tuple[Tensor, Tensor]:
    """Return the last features (1, C, h, w) of an image (3, H, W), and the patches' attention, (blocks, N, N)."""
    blocks = backbone.network.blocks
    points = {f"{part}{i}": f"blocks.{i}.attn.{part}_norm" for i in range(len(blocks)) for part in "qk"}
    with StageReader(backbone.network, points, stop=False) as outputs:
        features = backbone.stages(image[None], ["F5"])["F5"]
    products = (outputs[f"q{i}"] * block.attn.scale @ outputs[f"k{i}"].mT for i, block in enumerate(blocks))
    patches = features.shape[2] * features.shape[3]
    return features, torch.cat([product.softmax(3).mean(1)[:, -patches:, -patches:] for product in products])


def variants(maps: Tensor, features: Tensor, attention: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield the maps (1, K, h, w), of which each has its maximum at 1, as each affinity spreads them."""
    yield "as they are", maps
    yield "AffinityWalk", AffinityWalk()(maps, features)
    boxed = maps * boxes_above(maps)
    for name, number in LAST.items():
        raw = attention[-number:].mean(0, keepdim=True)
        yield f"{name}, raw", spread_by(raw, maps)
        affinity = attention_affinity(raw)
        yield f"{name}, CLIP-ES", spread_by(affinity, maps)
        yield f"{name}, CLIP-ES, boxes", spread_by(affinity, boxed)


def over_maximum(maps: Tensor) -> Tensor:
    """Divide maps (1, K, h, w) each by its maximum."""
    return maps / maps.amax((2, 3), keepdim=True).clamp_min(torch.finfo(maps.dtype).tiny)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the best threshold and its mIoU for each affinity."""
    args = build_parser().parse_args(argv)
    data = voc2012(args.root, list_file=args.list)
    backbone = load_backbone(args.backbone, args.weights)
    counts: defaultdict[tuple[str, float], Tensor] = defaultdict(lambda: torch.zeros(()))
    for index, id in enumerate(data.ids):
        image, target = data.image(index), data.mask(index)
        given = read_cams(args.cams, id, tuple(image.shape[1:]), data.class_names)
        features, attention = read(backbone, image)
        maps = over_maximum(resize(given.maps[None].float(), features.shape[2:], antialias=True))
        for name, spread in variants(maps, features, attention):
            found = replace(given, maps=over_maximum(spread)[0], background=None)
            for threshold in THRESHOLDS:
                seed = make_seed(found, constant_background(found, threshold))
                counts[name, threshold] = counts[name, threshold] + confusion_matrix(seed, target, 21)
    for name in dict.fromkeys(name for name, _ in counts):
        best, threshold = max((summarize(counts[name, t]).miou, t) for t in THRESHOLDS)
        print(f"{name:30s} {100 * best:6.2f} at {threshold}")


if __name__ == "__main__":
    main()
