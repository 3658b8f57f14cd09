"""Refinement of maps and class probabilities: by the colours of their image, and by the features of a network."""

from torch_svm_seg.refine.affinity_walk import AffinityWalk
from torch_svm_seg.refine.dense_crf import DenseCRF
from torch_svm_seg.refine.feature_walk import FeatureWalk
from torch_svm_seg.refine.pamr import PAMR
from torch_svm_seg.refine.region_vote import RegionVote
from torch_svm_seg.refine.steps import refine

__all__ = ["PAMR", "AffinityWalk", "DenseCRF", "FeatureWalk", "RegionVote", "refine"]
