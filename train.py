"""Run the command ``train``: see ``torch_svm_seg/cli/train.py``, or ``python train.py --help``."""

import sys

from torch_svm_seg.cli.start import train

if __name__ == "__main__":
    sys.exit(train())
