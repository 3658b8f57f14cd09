"""Run the command ``expand``: see ``torch_svm_seg/cli/expand.py``, or ``python expand.py --help``."""

import sys

from torch_svm_seg.cli.start import expand

if __name__ == "__main__":
    sys.exit(expand())
