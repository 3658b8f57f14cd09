"""One SVM for all images of a run, fitted to the labelled pixels of some: microscopy, video, tiles of a large image."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from torch_svm_seg.backbones.backbone import Backbone
from torch_svm_seg.data.constants import VOID
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.notes import first_few
from torch_svm_seg.data.provenance import Source, digest_of
from torch_svm_seg.expansion.expander import SVMExpander
from torch_svm_seg.expansion.labelled_pixels import LabelledPixels
from torch_svm_seg.expansion.normalization import fused_stages
from torch_svm_seg.pipeline.run_folder import skip_reason, spoils_one_image
from torch_svm_seg.pipeline.supervision import Supervised, Supervision


@dataclass(frozen=True)
class FitOnSupervision:
    """Supervision by the labels of other images: of an image itself, nothing is known.

    Attributes:
        images: Digest of all that these labels and their images are read from.

    Examples:
        >>> from torch_svm_seg.data.embedded import embedded_sample
        >>> FitOnSupervision("0f3a").read(embedded_sample(), 0).known.unique()
        tensor([255])
    """

    images: str

    def read(self, dataset: ImageDataset, index: int) -> Supervised:
        """Read an image."""
        id, image = dataset.ids[index], dataset.image(index)
        unknown = torch.full(image.shape[1:], VOID)
        return Supervised(id, image, unknown, notes=dataset.notes.of(id))

    def sources(self, dataset: ImageDataset, index: int) -> tuple[Source, ...]:
        """Return the image, and all that the SVM was fitted to."""
        return (*dataset.image_sources(index), f"fitted to {self.images}")


@dataclass
class FitOnImages:
    """The images whose labelled pixels the SVM is fitted to.

    Attributes:
        dataset: The images.
        supervision: Gives their labels.
        skipped: Images that could not be used by the last :meth:`fit`, and why.
    """

    dataset: ImageDataset
    supervision: Supervision
    skipped: dict[str, str] = field(default_factory=dict)

    def supervise(self) -> FitOnSupervision:
        """Return the supervision of all other images."""
        return FitOnSupervision(digest_of(map(self._digest, range(len(self.dataset)))))

    @torch.inference_mode()
    def fit(self, expanders: Mapping[str, SVMExpander], backbone: Backbone, device: torch.device) -> None:
        """Fit the SVM of each expander.

        Images that cannot be used are skipped. Every process of a run fits all, so that none waits for another.

        Args:
            expanders: One per name of features, as F3 or F3+F4.
            backbone: Gives the features; on ``device``.
            device: Where to compute.

        Raises:
            InputError: None of the images can be used.
        """
        self.skipped.clear()
        wanted = {stage for name in expanders for stage in fused_stages(name)}
        found = []
        for index, id in enumerate(self.dataset.ids):
            try:
                labelled = self.supervision.read(self.dataset, index)
                stages = backbone.stages(labelled.image[None].to(device), wanted)
                found.append({name: _pixels(expander, name, stages, labelled) for name, expander in expanders.items()})
            except Exception as error:
                if not spoils_one_image(error):
                    raise
                self.skipped[id] = skip_reason(error)
        if not found:
            number, shown = len(self.skipped), first_few(self.reasons, 2)
            raise InputError(f"--fit-on: expected images with labels, got {number} that cannot be used: {shown}")
        for name, expander in expanders.items():
            expander.fit_pixels([pixels[name] for pixels in found])

    @property
    def reasons(self) -> list[str]:
        """The images that were skipped, each with the reason."""
        return [reason if reason.startswith(id) else f"{id}: {reason}" for id, reason in self.skipped.items()]

    def _digest(self, index: int) -> str:
        """Return a digest of what an image and its labels are read from; of the reason where they cannot be."""
        try:
            return digest_of(self.supervision.sources(self.dataset, index))
        except InputError as error:
            return str(error)


def _pixels(expander: SVMExpander, name: str, stages: Mapping[str, Tensor], labelled: Supervised) -> LabelledPixels:
    """Return the labelled pixels of an image, with the features of a name."""
    maps = [stages[stage] for stage in fused_stages(name)]
    device = maps[0].device
    certainty = None if labelled.certainty is None else labelled.certainty[None].to(device)
    return expander.pixels(maps, labelled.known[None].to(device), certainty)
