"""Run the command ``train``: see ``torch_svm_seg/cli/train.py``, or ``python train.py --help``."""

import sys

from torch_svm_seg.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
