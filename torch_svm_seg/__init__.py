"""Per-image support vector machines for weakly supervised semantic segmentation, in PyTorch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch_svm_seg.backbones.builder import load_backbone as load_backbone
    from torch_svm_seg.cam.activation import class_activation_maps as class_activation_maps
    from torch_svm_seg.expansion.expander import Expansion as Expansion
    from torch_svm_seg.expansion.expander import LabelledMaps as LabelledMaps
    from torch_svm_seg.expansion.expander import SVMExpander as SVMExpander
    from torch_svm_seg.expansion.labelled_pixels import LabelledPixels as LabelledPixels
    from torch_svm_seg.refine.affinity_walk import AffinityWalk as AffinityWalk
    from torch_svm_seg.refine.dense_crf import DenseCRF as DenseCRF
    from torch_svm_seg.refine.pamr import PAMR as PAMR
    from torch_svm_seg.svm.approximations import Fourier as Fourier
    from torch_svm_seg.svm.approximations import Nystroem as Nystroem
    from torch_svm_seg.svm.classifier import SVMClassifier as SVMClassifier
    from torch_svm_seg.svm.svm import SVM as SVM

__version__ = "0.2.0"

_HOMES = {
    "PAMR": "refine.pamr",
    "SVM": "svm.svm",
    "AffinityWalk": "refine.affinity_walk",
    "DenseCRF": "refine.dense_crf",
    "Fourier": "svm.approximations",
    "Nystroem": "svm.approximations",
    "Expansion": "expansion.expander",
    "LabelledMaps": "expansion.expander",
    "LabelledPixels": "expansion.labelled_pixels",
    "SVMClassifier": "svm.classifier",
    "SVMExpander": "expansion.expander",
    "class_activation_maps": "cam.activation",
    "load_backbone": "backbones.builder",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for: the SVM alone needs no more than PyTorch and NumPy."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted([*globals(), *_HOMES])
