"""Flags that choose a backbone."""

from typing import Any

DEFAULT_BACKBONE = "efficientnet_lite0"


def add_backbone_arguments(group: Any, default: str | None = DEFAULT_BACKBONE) -> None:
    """Adds ``--backbone`` and ``--weights``, as :func:`torch_svm_seg.backbones.builder.load_backbone` takes them.

    Args:
        group: takes the flags.
        default: value of ``--backbone`` where it is not given.
    """
    group.add_argument(
        "--backbone",
        default=default,
        metavar="NAME",
        help="efficientnet_lite0|1|2 (weights come as a package), resnet18|34|50|101 (torchvision), timm:NAME "
        f"(default: {DEFAULT_BACKBONE}; the papers' is resnet50)",
    )
    group.add_argument(
        "--weights", metavar="FILE", help="state dict or checkpoint of the backbone (default: its ImageNet weights)"
    )
