"""Batches of images of any sizes, grouped by size and numbered by the classes that are present."""

import pytest
import torch
from torch import Tensor

from torch_svm_seg.data.class_numbers import ids_of
from torch_svm_seg.data.constants import VOID
from torch_svm_seg.pipeline.readings import Reading
from torch_svm_seg.pipeline.same_size import by_size
from torch_svm_seg.pipeline.supervision import Supervised
from torch_svm_seg.tensors import sent

CPU = torch.device("cpu")


def reading(id: str, known: Tensor, classes: tuple[int, ...] | None = None, certainty: Tensor | None = None) -> Reading:
    image = torch.zeros(3, *known.shape[-2:], dtype=torch.uint8)
    return Reading(Supervised(id, image, known, classes, certainty=certainty), "digest")


def test_activation_has_the_planes_of_all_classes_of_the_batch() -> None:
    a, b, c = torch.rand(2, 3, 4), torch.rand(3, 5, 2), torch.rand(2, 3, 4)
    batch = [reading("a", a, (0, 8)), reading("b", b, (0, 12, 15)), reading("c", c, (0, 12))]
    (wide, tall), ids = by_size(batch, CPU)
    assert ids.tolist() == [0, 8, 12, 15]
    assert [entry.id for entry in wide.entries] == ["a", "c"] and [entry.id for entry in tall.entries] == ["b"]
    absent = torch.full((1, 3, 4), -torch.inf)
    expected = [torch.cat([a, absent, absent]), torch.cat([c[:1], absent, c[1:], absent])]
    torch.testing.assert_close(wide.known, torch.stack(expected))
    torch.testing.assert_close(tall.known[0, [0, 2, 3]], b)
    assert bool((tall.known[0, 1] == -torch.inf).all())


def test_labels_are_numbers_whose_ids_are_the_labels() -> None:
    one, other = torch.tensor([[3, VOID], [7, 3]]), torch.tensor([[0], [5]])
    parts, ids = by_size([reading("a", one), reading("b", other)], CPU)
    assert ids.tolist() == [0, 3, 5, 7]
    assert [part.known.tolist() for part in parts] == [[[[1, VOID], [3, 1]]], [[[0], [2]]]]
    for part, labels in zip(parts, (one, other), strict=True):
        assert torch.equal(ids_of(part.known, ids)[0], labels)


def test_a_batch_comes_to_the_device_as_it_is(device: str) -> None:
    labels, certainty = torch.tensor([[3, VOID], [7, 3]]), torch.rand(2, 2)
    (part,), ids = by_size([reading("a", labels, certainty=certainty)], torch.device(device))
    assert part.certainty is not None
    for tensor in (part.images, part.known, part.certainty, ids):
        assert tensor.device.type == torch.device(device).type
    assert torch.equal(ids_of(part.known, ids)[0].cpu(), labels) and torch.equal(part.certainty[0].cpu(), certainty)


@pytest.mark.parametrize("shape", [(0,), (3, 1), (2, 3, 5)])
def test_what_is_sent_arrives(shape: tuple[int, ...], device: str) -> None:
    values = torch.rand(shape)
    there = sent(values, torch.device(device))
    assert there.device.type == torch.device(device).type and torch.equal(there.cpu(), values)
    assert not values.is_pinned()  # a CPU asks for nothing, and a GPU for a copy


def test_classes_that_no_pixel_shows_are_counted_by_image() -> None:
    hidden = torch.tensor([[[0.9, 0.8]], [[0.1, 0.2]]])
    (part,), _ = by_size([reading("a", hidden, (0, 4)), reading("b", hidden.flip(0), (0, 9))], CPU)
    assert [entry.unseeded for entry in part.entries] == [1, 0]


def test_a_label_without_a_certainty_is_certain() -> None:
    labels, certainty = torch.zeros(2, 3, dtype=torch.long), torch.rand(2, 3)
    (part,), _ = by_size([reading("a", labels), reading("b", labels, certainty=certainty)], CPU)
    assert part.certainty is not None
    torch.testing.assert_close(part.certainty, torch.stack([torch.ones(2, 3), certainty]))
    (part,), _ = by_size([reading("a", labels)], CPU)
    assert part.certainty is None
