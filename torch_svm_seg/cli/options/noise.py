"""Options for masks that are partly wrong: how much each label counts, and new labels while the network trains."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch_svm_seg.cam.activation import own_background
from torch_svm_seg.cli.options.option import option
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.pipeline.cam_supervision import CamFiles
from torch_svm_seg.pipeline.label_probabilities import LabelProbabilities
from torch_svm_seg.segmenters.online import OnlineLabels
from torch_svm_seg.segmenters.segmenter import Segmenter
from torch_svm_seg.training.trainer import TrainingSettings


@dataclass(frozen=True)
class CertaintyOptions:
    """How much each label of the masks counts."""

    title: ClassVar = "certainty of the labels"

    probabilities: Path | None = option(
        None,
        metavar="DIR",
        content=True,
        help="maps with the probability of each class and a background of their own, as train.py posterior writes "
        "them, and train.py cams from a network: a label counts as much as it is likely",
    )
    ignore_below: float = option(0.0, metavar="P", help="labels less likely than P do not train (default: 0, all do)")

    def open(self, data: ImageDataset) -> LabelProbabilities | None:
        """Return the weights of the labels; None if all count alike.

        Raises:
            InputError: There are no maps, or the options contradict each other.
        """
        if not 0 <= self.ignore_below <= 1:
            raise InputError(f"--ignore-below: expected 0 to 1, got {self.ignore_below}")
        if self.probabilities is None:
            if self.ignore_below:
                raise InputError("--ignore-below: works only together with --probabilities")
            return None
        return LabelProbabilities(data, CamFiles(self.probabilities, own_background), self.ignore_below)


@dataclass(frozen=True)
class OnlineOptions:
    """New labels while the network trains."""

    title: ClassVar = "online labels"
    description: ClassVar = (
        "Label images anew by one SVM each, on the network's current features: it learns from the pixels that the "
        "network is surest of, among the classes that the image's mask has."
    )

    online: int | None = option(
        None, metavar="N", at_least=1, help="label every N-th batch so (default: none, masks stay as they are)"
    )
    online_after: int | None = option(
        None, metavar="STEP", at_least=0, help="after this step (default: half of --steps)"
    )
    online_features: tuple[str, ...] = option(
        ("F4",), metavar="STAGE", help="stages of the network's backbone, fused if there are several"
    )

    def labels(self, network: Segmenter, how: TrainingSettings) -> OnlineLabels | None:
        """Return what labels the batches; None if masks stay as they are.

        Raises:
            InputError: The network has no such stages.
        """
        if self.online is None:
            return None
        after = (how.steps or 0) // 2 if self.online_after is None else self.online_after
        return OnlineLabels(network, self.online, after, features=self.online_features, seed=how.seed)
