"""Run the command ``label``: see ``torch_svm_seg/cli/label.py``, or ``python label.py --help``."""

import sys

from torch_svm_seg.cli.start import label

if __name__ == "__main__":
    sys.exit(label())
