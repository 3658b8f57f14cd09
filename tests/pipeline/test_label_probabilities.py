"""Weights of labels: what maps say about each label of a mask, whatever the mask says."""

from pathlib import Path

import pytest
import torch
from conftest import CAT, PERSON, TINY_IDS
from torch import Tensor

from torch_svm_seg.cam.activation import ActivationMaps, own_background
from torch_svm_seg.cam.io import cam_path, save_cams
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.voc import voc2012
from torch_svm_seg.pipeline.cam_supervision import CamFiles
from torch_svm_seg.pipeline.label_probabilities import LabelProbabilities
from torch_svm_seg.segmenters.training import MaskedCrops

SIZE = (60, 80)


@pytest.fixture
def dataset(tiny_voc: Path) -> ImageDataset:
    return voc2012(tiny_voc).subset([0])


@pytest.fixture
def maps(tmp_path: Path, dataset: ImageDataset) -> CamFiles:
    """Cat: 0.6 in the left half, 0.2 in the right half; person: 0.1 everywhere; the background has the rest."""
    cat = torch.where(torch.arange(80) < 40, 0.6, 0.2).expand(SIZE)
    person = torch.full(SIZE, 0.1)
    found = ActivationMaps((CAT, PERSON), torch.stack([cat, person]), SIZE, 1 - cat - person)
    save_cams(cam_path(tmp_path / "maps", TINY_IDS[0]), found, dataset.class_names)
    return CamFiles(tmp_path / "maps", own_background)


def mask_of(*quarters: int) -> Tensor:
    """Class ids in the four quarters of an image, row by row."""
    return torch.tensor(quarters).view(2, 2).repeat_interleave(30, 0).repeat_interleave(40, 1)


def quarters_of(weights: Tensor) -> list[float]:
    assert weights.dtype == torch.float32 and weights.shape == SIZE
    return [round(float(weights[row, column]), 3) for row in (10, 50) for column in (10, 70)]


def test_each_label_has_its_probability(dataset: ImageDataset, maps: CamFiles) -> None:
    weights = LabelProbabilities(dataset, maps)
    assert quarters_of(weights(0, mask_of(CAT, CAT, 0, 0))) == [0.6, 0.2, 0.3, 0.7]
    assert quarters_of(weights(0, mask_of(PERSON, 0, CAT, PERSON))) == [0.1, 0.7, 0.6, 0.1]
    # No label, and a label of a class that has no map.
    assert quarters_of(weights(0, mask_of(255, 3, CAT, 255))) == [0, 0, 0.6, 0]


def test_unlikely_labels_weigh_nothing(dataset: ImageDataset, maps: CamFiles) -> None:
    assert quarters_of(LabelProbabilities(dataset, maps, 0.5)(0, mask_of(CAT, CAT, 0, 0))) == [0.6, 0, 0, 0.7]


def test_weights_are_cropped_with_their_labels(dataset: ImageDataset, maps: CamFiles) -> None:
    """Each class of the image's mask has one weight here, so a crop's labels tell its weights."""

    class ByClass:
        def __call__(self, index: int, mask: Tensor) -> Tensor:
            return mask.where(mask != 255, 0) / 32

        def sources(self, index: int) -> tuple[str, ...]:
            return ("by class",)

    crops = MaskedCrops(dataset, 48, (0.5, 1.5), torch.zeros(3, 1, 1), 0, ByClass())
    for epoch in range(5):
        crops.epoch = epoch
        _, labels, weights = crops[0]
        assert torch.equal(weights, labels.where(labels != 255, 0) / 32) and bool((weights > 0).any())
    assert "by class" in crops.sources(0)
    assert maps.folder in cam_path(maps.folder, TINY_IDS[0]).parents


def test_an_image_without_maps_is_named(tiny_voc: Path, maps: CamFiles) -> None:
    with pytest.raises(InputError, match=f"{TINY_IDS[1]}.npz: no such file; every mask needs the maps of its image"):
        LabelProbabilities(voc2012(tiny_voc), maps)
