"""``python -m torch_svm_seg.label IMAGE_FOLDER``: open the labelling page of a folder."""

import sys

from torch_svm_seg.cli.label import main

if __name__ == "__main__":
    sys.exit(main())
