"""One SVM of the labelled pixels of several images, beside scikit-learn on the same samples joined by hand."""

import numpy as np
import pytest
import torch
from conftest import normal
from sklearn.svm import SVC
from torch import Tensor
from torch.nn import functional as F

from torch_svm_seg import SVM, SVMExpander
from torch_svm_seg.data.constants import VOID
from torch_svm_seg.expansion.labelled_pixels import ChannelStatistics

SIZES = [(36, 48), (20, 28)]


def image(number: int) -> tuple[list[Tensor], Tensor]:
    """Two feature maps on grids of a quarter of the image's size and of half of it, and labels of few pixels."""
    height, width = SIZES[number]
    maps = [
        (3 + number) * normal(10 * number + grid, 1, channels, height // step, width // step) + 5 * number
        for grid, (channels, step) in enumerate([(5, 4), (3, 2)])
    ]
    labels = torch.full((1, height, width), VOID)
    labels[0, 2:6, 3:9], labels[0, 12:15, 10:20], labels[0, 3:5, 14:20] = 0, 4, 7 * number
    return maps, labels


def dense_rows(maps: list[Tensor], mean: Tensor, std: Tensor, size: tuple[int, int]) -> np.ndarray:
    """All pixels' features, interpolated to the image's size, z-scored, and each map weighing alike."""
    dense = torch.cat([F.interpolate(one, size, mode="bilinear") for one in maps], 1)[0].flatten(1).T
    scale = torch.tensor([(8 / (2 * 5)) ** 0.5] * 5 + [(8 / (2 * 3)) ** 0.5] * 3)
    return ((dense - mean) / std * scale).numpy()


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_an_svm_of_several_images_is_that_of_their_samples_joined(kernel: str, device: str) -> None:
    images = [image(0), image(1)]
    cells = [torch.cat([maps[grid][0].flatten(1) for maps, _ in images], 1) for grid in range(2)]
    mean, std = torch.cat([one.mean(1) for one in cells]), torch.cat([one.std(1, correction=0) for one in cells])
    dense = [dense_rows(maps, mean, std, size) for (maps, _), size in zip(images, SIZES, strict=True)]
    known = [labels.flatten().numpy() for _, labels in images]
    x = np.concatenate([rows[labels != VOID] for rows, labels in zip(dense, known, strict=True)])
    y = np.concatenate([labels[labels != VOID] for labels in known])

    svm = SVM(kernel=kernel, C=2.0, gamma=0.05, tol=1e-5)
    expander = SVMExpander(svm, every_pixel=True)
    parts = [expander.pixels([one.to(device) for one in maps], labels.to(device)) for maps, labels in images]
    expander.fit_pixels(parts)
    for (maps, _), rows, size in zip(images, dense, SIZES, strict=True):
        found = expander.predict([one.to(device) for one in maps], size).scores[0].cpu()
        for class_id in (0, 4, 7):
            reference = SVC(kernel=kernel, C=2.0, gamma=0.05, tol=1e-6).fit(x, y == class_id)
            expected = torch.tensor(reference.decision_function(rows)).view(size)
            torch.testing.assert_close(found[class_id].double(), expected, rtol=0, atol=2e-2)
        assert bool((found[[1, 2, 3, 5, 6]] == -torch.inf).all())


def test_weights_count_as_repetitions(device: str) -> None:
    maps, labels = image(1)
    once, twice = SVMExpander(SVM("linear", C=0.1, tol=1e-6)), SVMExpander(SVM("linear", C=0.1, tol=1e-6))
    maps, labels = [one.to(device) for one in maps], labels.to(device)
    weighted = once.pixels(maps, labels, torch.full(labels.shape, 2.0, device=device))
    once.fit_pixels([weighted])
    twice.fit_pixels([twice.pixels(maps, labels)] * 2)
    first, second = (expander.predict(maps, SIZES[1]).scores for expander in (once, twice))
    finite = first.isfinite()
    torch.testing.assert_close(first[finite], second[finite], rtol=0, atol=1e-2)


def test_joined_statistics_are_those_of_all_cells(device: str) -> None:
    maps = [normal(seed, 2, 3, 4, 5 + seed).to(device) + 1000 * seed for seed in range(3)]
    maps[2][:, 1] = maps[1][:, 1] = maps[0][:, 1] = 0.1
    total = ChannelStatistics.of(maps[0]).joined(ChannelStatistics.of(maps[1])).joined(ChannelStatistics.of(maps[2]))
    cells = torch.cat([one.transpose(0, 1).flatten(1) for one in maps], 1).double()
    torch.testing.assert_close(total.mean, cells.mean(1))
    expected = 1 / cells.std(1, correction=0)
    torch.testing.assert_close(total.rate[[0, 2]], expected[[0, 2]])
    assert float(total.rate[1]) == 0


def test_images_that_do_not_go_together_are_refused() -> None:
    expander = SVMExpander(samples_per_class=5)
    maps, labels = image(0)
    with pytest.raises(ValueError, match=r"images: expected maps of the same channels in all, got \[\(3,\), \(5,\)\]"):
        expander.fit_pixels([expander.pixels(one, labels) for one in maps])
    with pytest.raises(ValueError, match="at least one image, got none"):
        expander.fit_pixels([])
