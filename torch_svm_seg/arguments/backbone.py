"""Flags that choose a backbone."""

from typing import Any


def add_backbone_arguments(group: Any) -> None:
    """Adds ``--backbone`` and ``--weights``, as :func:`torch_svm_seg.backbones.load_backbone` takes them."""
    group.add_argument(
        "--backbone",
        default="efficientnet_lite0",
        metavar="NAME",
        help="efficientnet_lite0|1|2 (weights come as a package), resnet18|34|50|101 (torchvision), timm:NAME "
        "(default: %(default)s; the papers' is resnet50)",
    )
    group.add_argument(
        "--weights", metavar="FILE", help="state dict or checkpoint of the backbone (default: its ImageNet weights)"
    )
