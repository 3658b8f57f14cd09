"""Refinement of class probabilities by the colours of their image."""

from torch_svm_seg.refine.dense_crf import DenseCRF
from torch_svm_seg.refine.pamr import PAMR
from torch_svm_seg.refine.steps import refine

__all__ = ["PAMR", "DenseCRF", "refine"]
