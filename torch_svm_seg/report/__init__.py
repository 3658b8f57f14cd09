"""A self-contained HTML page about folders of masks: ``evaluate.py --report``."""

from torch_svm_seg.report.content import Report, Step
from torch_svm_seg.report.page import render, write_report

__all__ = ["Report", "Step", "render", "write_report"]
