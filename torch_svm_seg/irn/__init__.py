"""IRN (Ahn et al., CVPR 2019): class boundaries learned from sure labels, and the random walk that stops at them."""

from torch_svm_seg.irn.network import IRNet
from torch_svm_seg.irn.refinement import IRNRefinement
from torch_svm_seg.irn.training import load_irn

__all__ = ["IRNRefinement", "IRNet", "load_irn"]
