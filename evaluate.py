"""Run the command ``evaluate``: see ``torch_svm_seg/cli/evaluate.py``, or ``python evaluate.py --help``."""

import sys

from torch_svm_seg.cli.start import evaluate

if __name__ == "__main__":
    sys.exit(evaluate())
