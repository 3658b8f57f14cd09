"""Labels of a batch by SVMs on a network's own features: what they correct, and what they leave alone."""

import pytest
import torch
from torch import Tensor, nn

from torch_svm_seg.backbones.backbone import Backbone, Stage
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.segmenters import Segmenter, build_segmenter
from torch_svm_seg.segmenters.online import OnlineLabels

LEFT, RIGHT = 1, 2


class _Halves(Segmenter):
    """Three classes; sure of the left and right thirds of an image, and in the middle taking all for the left one."""

    def __init__(self) -> None:
        layer = nn.Conv2d(3, 4, 1)
        super().__init__(Backbone(nn.Sequential(layer), {"F1": Stage("0", 4, 1)}), 3, torch.zeros(3, 1, 1))
        self.backbone = self._pretrained[0]
        self.dropout = nn.Dropout(0.5)

    def coarse_logits(self, images: Tensor) -> Tensor:
        place = torch.linspace(-1, 1, images.shape[-1]).expand(len(images), *images.shape[-2:])
        left = torch.where(place < -0.3, 9.0, torch.where(place > 0.3, -9.0, 0.5))
        return self.dropout(torch.stack([torch.full_like(left, -20.0), left, -left], 1))


def halves(number: int = 2) -> Tensor:
    """Images with a dark left half and a bright right half, and noise."""
    noise = torch.rand(number, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    return 50 + 20 * noise + 150 * (torch.arange(48) >= 24)


def truth(number: int = 2) -> Tensor:
    return torch.where(torch.arange(48) < 24, LEFT, RIGHT).expand(number, 32, 48).clone()


def labels_of(network: Segmenter, every: int = 1, after: int = 0) -> OnlineLabels:
    return OnlineLabels(network, every, after, features=("img",), samples_per_class=100, share=0.5)


def test_an_svm_on_colours_corrects_what_network_and_mask_have_wrong() -> None:
    mask = truth()
    mask[:, :, 20:30] = RIGHT
    found = labels_of(_Halves()).label(halves(), mask)
    assert float((found == truth()).float().mean()) > 0.99
    assert float((_Halves().eval()(halves()).argmax(1) == truth()).float().mean()) < 0.9


def test_no_label_stays_so_and_only_the_masks_classes_are_given() -> None:
    mask = truth()
    mask[0, :8], mask[1] = 255, LEFT
    found = labels_of(_Halves()).label(halves(), mask)
    assert torch.equal(found == 255, mask == 255)
    assert torch.equal(found[1], mask[1])  # the network sees the left class and background alone, and no background
    assert float((found[0, 8:] == truth()[0, 8:]).float().mean()) > 0.99


def test_a_class_that_would_vanish_keeps_its_labels() -> None:
    mask = truth(1)
    mask[0, :4, :4] = 0
    found = labels_of(_Halves()).label(halves(1), mask)
    assert torch.equal(found == 0, mask == 0)


def test_images_of_a_batch_do_not_see_each_other_and_the_network_stays_as_it_was() -> None:
    network = _Halves().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    labels, mask = labels_of(network), truth()
    mask[1, :4] = 255
    together = labels.label(halves(), mask)
    alone = torch.cat([labels.label(halves()[index, None], mask[index, None]) for index in (0, 1)])
    assert torch.equal(together, alone) and network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_every_third_batch_after_two_steps_is_labelled() -> None:
    mask = torch.where(torch.arange(48) < 8, LEFT, RIGHT).expand(2, 32, 48)
    weights = torch.full((2, 32, 48), 0.5)
    labels = labels_of(_Halves(), every=3, after=2)
    changed = []
    for step in range(9):
        masks, found = labels(step, halves(), [mask, weights])
        changed.append(not torch.equal(masks, mask))
        assert torch.equal(found, torch.ones_like(weights) if changed[-1] else weights)
    assert [step for step in range(9) if changed[step]] == [4, 7]


def test_networks_without_such_stages_are_refused() -> None:
    with pytest.raises(InputError, match="PackagedSegmenter: its pretrained part has no stages"):
        OnlineLabels(build_segmenter("lraspp:mobilenet_v3_large", 3, "random"))
    with pytest.raises(InputError, match="stage F9: expected one of img, F1"):
        OnlineLabels(_Halves(), features=("F9",))
