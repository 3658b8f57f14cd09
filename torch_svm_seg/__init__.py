"""Per-image support vector machines for weakly supervised semantic segmentation, in PyTorch."""

from torch_svm_seg.expansion.expander import Expansion, SVMExpander
from torch_svm_seg.svm.svm import SVM

__all__ = ["SVM", "Expansion", "SVMExpander"]
__version__ = "0.1.0"
