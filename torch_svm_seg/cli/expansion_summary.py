"""What a run of the expansion shows at its end: a table of scores, and images of the first images."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.io import read_mask
from torch_svm_seg.evaluation.panels import PanelRow
from torch_svm_seg.evaluation.scoring import score_folders
from torch_svm_seg.evaluation.tables import Row, text_table
from torch_svm_seg.expansion.labelling import StudyLabeller
from torch_svm_seg.expansion.sampling import sample_pixels
from torch_svm_seg.expansion.seed_expander import SelfTraining
from torch_svm_seg.pipeline.expansion_run import mask_path
from torch_svm_seg.pipeline.run_folder import Progress
from torch_svm_seg.pipeline.supervision import Supervision

ROWS = 4


def score_table(dataset: ImageDataset, out: Path, names: Sequence[str], progress: Progress, width: int) -> str:
    """A table like the paper's Table 1, a row for the masks of each name and a column for each class."""
    rows, seconds = [], progress.seconds_per_image()
    scores = score_folders(dataset, [out / name for name in names])
    for name, score in zip(names, scores, strict=True):
        extra = {"s/image": f"{seconds[name]:.2f}", "images": str(score.images)}
        rows.append(Row(name, score.per_class.tolist(), score.miou, extra))
    return text_table(rows, dataset.class_names, width)


def overview_rows(
    dataset: ImageDataset,
    out: Path,
    names: Sequence[str],
    supervision: Supervision,
    labeller: StudyLabeller | SelfTraining | None,
    device: torch.device,
) -> list[PanelRow]:
    """The first images with their masks, and what a labeller sampled, as in the paper's Figures 6 and 7."""
    rows = []
    for place, id in enumerate(dataset.ids[:ROWS]):
        _, image, knowledge = supervision.read(dataset, place)
        masks = [read_mask(mask_path(out, name, id)) for name in names]
        truth = dataset.mask(place) if dataset.has_mask(place) else None
        samples = None if labeller is None else _samples(labeller, image.to(device), knowledge.to(device)).cpu()
        rows.append(PanelRow(image, masks, truth, samples))
    return rows


def _samples(labeller: StudyLabeller | SelfTraining, image: Tensor, knowledge: Tensor) -> Tensor:
    """The class of each pixel that trained the SVM, and 255 at all others, (H, W)."""
    labels = labeller.training_labels(image[None], knowledge[None])
    sample = sample_pixels(labels, labeller.expander.samples_per_class, labeller.expander.seed)
    return sample.as_labels(*labels.shape[1:])[0]
