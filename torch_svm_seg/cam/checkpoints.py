"""Classifiers built again from the checkpoints of their training, for their activation maps."""

from collections.abc import Sequence

from torch_svm_seg.backbones.builder import RANDOM, load_backbone
from torch_svm_seg.cam.classifier import Classifier
from torch_svm_seg.cam.mctformer import MCTformer
from torch_svm_seg.cam.sipe import SIPE
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import PathLike
from torch_svm_seg.training.checkpoints import check_classes, load_network, read_checkpoint, setting

METHODS: dict[str, type[Classifier]] = {"cam": Classifier, "sipe": SIPE, "mct": MCTformer}
"""The ways to train a classifier by name: plain, with SIPE's prototypes, or with a token for each class."""


def load_classifier(path: PathLike, class_names: Sequence[str] | None = None) -> Classifier:
    """Load a trained classifier from its checkpoint, in evaluation mode on the CPU.

    Args:
        path: Checkpoint of ``train.py classify``.
        class_names: The classes it must be of, background first; by default any.

    Raises:
        InputError: The file cannot be read, is no checkpoint of a classifier, is of other classes, or the weights do
            not fit the backbone that it names.

    Examples:
        >>> load_classifier("runs/sipe/checkpoint.pt").num_classes  # doctest: +SKIP
        20
    """
    checkpoint = read_checkpoint(path)
    method = setting(path, checkpoint, "method")
    if method not in METHODS:
        raise InputError(f"{path}: not a checkpoint of train.py classify (its method is {method})")
    check_classes(path, checkpoint, class_names)
    name = setting(path, checkpoint, "backbone")
    network = METHODS[method](load_backbone(name, RANDOM), len(checkpoint.class_names) - 1)
    return load_network(path, checkpoint, network, name)
