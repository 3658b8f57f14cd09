"""Segmentation networks from their checkpoints, for prediction."""

from collections.abc import Sequence

from torch_svm_seg.backbones import RANDOM
from torch_svm_seg.files import InputError, PathLike
from torch_svm_seg.segmenters.builder import build_segmenter
from torch_svm_seg.segmenters.segmenter import Segmenter
from torch_svm_seg.training_checkpoints import check_classes, load_network, read_checkpoint

METHOD = "segment"


def load_segmenter(path: PathLike, class_names: Sequence[str] | None = None) -> Segmenter:
    """Builds a trained segmentation network from its checkpoint, in evaluation mode on the CPU.

    Args:
        path: written by ``train.py segment``.
        class_names: the classes it must be of, background first; by default any.

    Raises:
        InputError: the file cannot be read, is no checkpoint of a segmentation network, is of other classes, or its
            weights do not fit the network that it names.
    """
    checkpoint = read_checkpoint(path)
    method = checkpoint.settings.get("method")
    if method != METHOD:
        raise InputError(f"{path}: not a checkpoint of train.py segment (its method is {method})")
    check_classes(path, checkpoint, class_names)
    name = checkpoint.settings["network"]
    network = build_segmenter(name, len(checkpoint.class_names), RANDOM)
    return load_network(path, checkpoint, network, name)
