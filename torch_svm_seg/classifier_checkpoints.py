"""Classifiers from their checkpoints, for their activation maps."""

from collections.abc import Sequence

from torch_svm_seg.backbones import RANDOM, load_backbone
from torch_svm_seg.classifier import Classifier
from torch_svm_seg.files import InputError, PathLike
from torch_svm_seg.sipe import SIPE
from torch_svm_seg.training_checkpoints import load_network, read_checkpoint

METHODS: dict[str, type[Classifier]] = {"cam": Classifier, "sipe": SIPE}
"""The ways to train a classifier by name: plain, or with SIPE's prototypes."""


def load_classifier(path: PathLike, class_names: Sequence[str] | None = None) -> Classifier:
    """Builds a trained classifier from its checkpoint, in evaluation mode on the CPU.

    Args:
        path: written by ``train.py classify``.
        class_names: the classes it must be of, background first; by default any.

    Raises:
        InputError: the file cannot be read, is no checkpoint of a classifier, is of other classes, or its weights do
            not fit the backbone that it names.
    """
    checkpoint = read_checkpoint(path, "classify", "method", class_names)
    method, backbone = checkpoint.settings["method"], checkpoint.settings["backbone"]
    if method not in METHODS:
        raise InputError(f"{path}: method {method!r}; expected one of {', '.join(METHODS)}")
    network = METHODS[method](load_backbone(backbone, RANDOM), len(checkpoint.class_names) - 1)
    load_network(path, checkpoint, network, backbone)
    return network
