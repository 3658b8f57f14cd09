"""Run the command ``train``: see ``torch_svm_seg/cli/train.py``, or ``python train.py --help``."""

import sys

if __name__ == "__main__":
    try:
        from torch_svm_seg.cli.train import main
    except KeyboardInterrupt:  # PyTorch takes seconds to import
        sys.exit(130)
    sys.exit(main())
