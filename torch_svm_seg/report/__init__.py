"""A self-contained HTML page about mask folders: ``evaluate.py --report``."""

from torch_svm_seg.report.content import Report, Rung
from torch_svm_seg.report.page import render, write_report

__all__ = ["Report", "Rung", "render", "write_report"]
