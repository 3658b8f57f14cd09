"""Run the command ``expand``: see ``torch_svm_seg/cli/expand.py``, or ``python expand.py --help``."""

import sys

if __name__ == "__main__":
    try:
        from torch_svm_seg.cli.expand import main
    except KeyboardInterrupt:  # PyTorch takes seconds to import
        sys.exit(130)
    sys.exit(main())
