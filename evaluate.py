"""Run the command ``evaluate``: see ``torch_svm_seg/cli/evaluate.py``, or ``python evaluate.py --help``."""

import sys

if __name__ == "__main__":
    try:
        from torch_svm_seg.cli.evaluate import main
    except KeyboardInterrupt:  # PyTorch takes seconds to import
        sys.exit(130)
    sys.exit(main())
