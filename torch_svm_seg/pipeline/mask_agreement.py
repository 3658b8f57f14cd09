"""How alike two folders of masks are, without any ground truth."""

from torch_svm_seg.data.constants import VOID
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.reading import PathLike
from torch_svm_seg.training.distributed import gathered


def mask_agreement(
    dataset: ImageDataset, first: PathLike, second: PathLike, rank: int = 0, processes: int = 1
) -> float:
    """Return the share of equal pixels in the masks of two folders, of those that have a label in both.

    Args:
        dataset: The images; one without a mask in both folders is left out.
        first: Folder of masks ``ID.png``.
        second: The other folder.
        rank: Number of this process; each reads its share.
        processes: Number of processes.

    Returns:
        A number from 0 to 1; 0 if no pixel has a label in both.

    Raises:
        InputError: A folder is missing, or a mask is damaged.

    Examples:
        >>> mask_agreement(dataset, "runs/weak/masks/F4", "runs/weak/masks-2/F4")  # doctest: +SKIP
        0.95
    """
    masks = (dataset.with_masks(first), dataset.with_masks(second))
    equal = labelled = 0
    for index in range(rank, len(dataset), processes):
        if all(each.has_mask(index) for each in masks):
            one, other = (each.mask(index) for each in masks)
            known = (one != VOID) & (other != VOID)
            equal, labelled = equal + int((one == other)[known].sum()), labelled + int(known.sum())
    counts = gathered((equal, labelled))
    return sum(equal for equal, _ in counts) / max(sum(labelled for _, labelled in counts), 1)
