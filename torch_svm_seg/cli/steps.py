"""The commands that each do one step, from image-level labels to a segmentation network and its score."""

from types import ModuleType

from torch_svm_seg.cli import cams, classify, evaluate, expand, irn, pixels, posterior, predict, propagate, segment

TRAIN: dict[str, ModuleType] = {
    "classify": classify,
    "cams": cams,
    "irn": irn,
    "propagate": propagate,
    "pixels": pixels,
    "posterior": posterior,
    "segment": segment,
    "predict": predict,
}
"""Those of ``train.py``. Each has ``HELP``, ``DESCRIPTION``, its ``Settings``, and ``run(settings, rank, number)``."""

STEPS: dict[tuple[str, ...], ModuleType] = {
    **{("train.py", name): command for name, command in TRAIN.items()},
    ("expand.py",): expand,
    ("evaluate.py",): evaluate,
}
"""All of them, as they are called. Each has its ``Settings``."""
