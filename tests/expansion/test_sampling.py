"""Which pixels are drawn: numbers, exclusions, independence of everything but seed and coordinates, uniformity."""

import math

import pytest
import torch
from torch import Tensor

from torch_svm_seg.data.constants import VOID
from torch_svm_seg.expansion.sampling import PixelSample, sample_pixels
from torch_svm_seg.tensors import hash_integers, position_hash


def random_labels(device: str, images: int = 3, height: int = 30, width: int = 41) -> Tensor:
    """Classes 0, 3 and 20 on most pixels, void on some, and 7 on five pixels of the first image alone."""
    generator = torch.Generator().manual_seed(0)
    choice = torch.rand(images, height, width, generator=generator)
    labels = torch.full((images, height, width), 3)
    labels[choice < 0.4], labels[choice < 0.2], labels[choice < 0.1] = 0, 20, VOID
    labels[0, 10, 5:10] = 7
    return labels.to(device)


def drawn(sample: PixelSample, image: int, width: int) -> set[tuple[int, int, int]]:
    """Row, column and class of each pixel drawn from an image."""
    positions, classes = sample.positions[image].tolist(), sample.classes[image].tolist()
    return {(p // width, p % width, c) for p, c in zip(positions, classes, strict=True) if c != -1}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize("per_class", [1, 50, 10_000])
def test_every_class_gives_so_many_pixels_or_all_it_has(per_class: int, dtype: torch.dtype, device: str) -> None:
    labels = random_labels(device)
    positions, classes = sample_pixels(labels.to(dtype), per_class)
    assert positions.shape == classes.shape
    for image in range(3):
        valid = classes[image] != -1
        chosen, flat = positions[image][valid], labels[image].flatten()
        assert len(chosen.unique()) == len(chosen), "without replacement"
        assert torch.equal(flat[chosen], classes[image][valid]), "with the class that the pixel has"
        for label in (0, 3, 7, 20):
            has = int((flat == label).sum())
            assert int((classes[image] == label).sum()) == min(per_class, has)
        assert set(classes[image].tolist()) <= {-1, 0, 3, 7, 20}, "never void"
    assert int((classes != -1).sum(1).max()) == classes.shape[1], "no more padding than needed"


def test_an_image_that_is_all_void_gives_padding_only(device: str) -> None:
    labels = random_labels(device)
    labels[1] = VOID
    sample = sample_pixels(labels, 20)
    assert bool((sample.classes[1] == -1).all())
    assert bool((sample.classes[0] != -1).sum() == 65)
    sample = sample_pixels(labels[1:2], 20)
    assert sample.classes.tolist() == [[-1]]
    assert 0 <= int(sample.positions) < 30 * 41


def test_the_seed_decides_and_nothing_else_does(device: str) -> None:
    labels = random_labels(device)
    torch.manual_seed(0)
    first = sample_pixels(labels, 50, seed=1)
    state = torch.get_rng_state()
    torch.manual_seed(1)
    again = sample_pixels(labels, 50, seed=1)
    assert torch.equal(first.positions, again.positions) and torch.equal(first.classes, again.classes)
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), state), "the global generator is left alone"
    other = sample_pixels(labels, 50, seed=2)
    common = drawn(first, 1, 41) & drawn(other, 1, 41)
    assert len(common) < 0.6 * 150


def test_an_image_is_sampled_alike_alone_in_a_batch_and_with_void_around(device: str) -> None:
    labels = random_labels(device)
    together = sample_pixels(labels, 50)
    backwards = sample_pixels(labels.flip(0), 50)
    padded = torch.full((3, 37, 60), VOID, device=device)
    padded[:, :30, :41] = labels
    with_void = sample_pixels(padded, 50)
    for image in range(3):
        expected = drawn(together, image, 41)
        assert len(expected) == (155 if image == 0 else 150)
        assert drawn(sample_pixels(labels[image : image + 1], 50), 0, 41) == expected
        assert drawn(backwards, 2 - image, 41) == expected
        assert drawn(with_void, image, 60) == expected


def test_a_class_is_sampled_alike_whatever_the_others_are(device: str) -> None:
    labels = random_labels(device)
    fewer = torch.where(labels == 20, VOID, labels)
    named = torch.where(labels == 3, 19, labels)
    for image in range(3):
        expected = {pixel for pixel in drawn(sample_pixels(labels, 50), image, 41) if pixel[2] != 20}
        assert drawn(sample_pixels(fewer, 50), image, 41) == expected
        renamed = drawn(sample_pixels(named, 50), image, 41)
        assert {(y, x, 3 if c == 19 else c) for y, x, c in renamed if c != 20} == expected


def test_fewer_pixels_are_a_part_of_more(device: str) -> None:
    labels = random_labels(device)
    few, many = sample_pixels(labels, 20), sample_pixels(labels, 50)
    for image in range(3):
        assert drawn(few, image, 41) < drawn(many, image, 41)


@pytest.mark.parametrize("first_seed", [0, 1000])
def test_pixels_are_drawn_uniformly(first_seed: int, device: str) -> None:
    """Chi-square over 2,000 pixels, each drawn in a quarter of 64 seeds' samples, and over blocks of 10 x 10.

    The statistic's mean is its number of degrees of freedom n, its variance 2 n: within 5 standard deviations.
    """
    labels = torch.zeros(1, 40, 50, dtype=torch.long, device=device)
    counts = torch.zeros(2000, dtype=torch.long, device=device)
    for seed in range(first_seed, first_seed + 64):
        counts[sample_pixels(labels, 500, seed).positions[0]] += 1
    assert int(counts.sum()) == 64 * 500
    per_pixel = counts.double()
    blocks = per_pixel.view(4, 10, 5, 10).sum((1, 3)).flatten()
    # A sample without replacement: a block of m of the M pixels varies by the hypergeometric law.
    for found, share in ((per_pixel, 1 / 2000), (blocks, 1 / 20)):
        mean = 64 * 500 * share
        variance = mean * (1 - share) * (2000 - 500) / (2000 - 1)
        # Counts over all cells sum to a constant: with this variance n - 1 degrees of freedom remain.
        statistic = float(((found - mean) ** 2).sum() / variance * (1 - share))
        freedom = len(found) - 1
        assert abs(statistic - freedom) < 5 * math.sqrt(2 * freedom)


def test_seeds_are_independent_of_each_other(device: str) -> None:
    """Two samples of 500 in 2,000 pixels have 125 in common, give or take 8.4 (hypergeometric)."""
    labels = torch.zeros(1, 40, 50, dtype=torch.long, device=device)
    samples = [set(sample_pixels(labels, 500, seed).positions[0].tolist()) for seed in (0, 1, 2, 3, 2**16, 2**31)]
    for place, first in enumerate(samples):
        for second in samples[place + 1 :]:
            assert abs(len(first & second) - 125) < 5 * 8.4


def test_rows_and_columns_are_not_interchangeable(device: str) -> None:
    """The sample of a square is not symmetric."""
    labels = torch.zeros(1, 40, 40, dtype=torch.long, device=device)
    pixels = drawn(sample_pixels(labels, 400), 0, 40)
    mirrored = {(x, y, c) for y, x, c in pixels}
    assert len(pixels & mirrored) < 200


@pytest.mark.parametrize(
    ("labels", "per_class", "message"),
    [
        (torch.zeros(4, 5, dtype=torch.long), 10, r"^labels: .*\(B, H, W\), got .*\(4, 5\)"),
        (torch.zeros(1, 1, 4, 5, dtype=torch.long), 10, r"^labels: .*\(1, 1, 4, 5\)"),
        (torch.zeros(1, 4, 5), 10, r"^labels: .*integer.*float32"),
        (torch.zeros(1, 4, 5, dtype=torch.long), 0, r"^per_class: .* >= 1, got 0"),
        (torch.zeros(1, 4, 5, dtype=torch.long), -3, r"^per_class: .* got -3"),
    ],
)
def test_a_wrong_argument_is_named(labels: Tensor, per_class: int, message: str, device: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample_pixels(labels.to(device), per_class)


# The hash underneath


@pytest.mark.parametrize(("key", "value"), [(0, 0), (1, 0x514E28B7), (0xFFFFFFFF, 0x81F16F39)])
def test_parts_are_mixed_by_murmurhash3s_finaliser(key: int, value: int, device: str) -> None:
    """The published hashes of an empty text with these seeds, which are the finaliser's values."""
    part = torch.tensor([key - 0x7F4A7C15], device=device)
    assert hash_integers(part).tolist() == [value]


def test_hashes_are_numbers_of_32_bits_that_each_part_changes(device: str) -> None:
    rows, columns = torch.arange(60, device=device)[:, None], torch.arange(70, device=device)
    hashes = hash_integers(3, rows, columns)
    assert hashes.shape == (60, 70) and hashes.dtype == torch.int64
    assert int(hashes.min()) >= 0 and int(hashes.max()) < 2**32
    assert len(hashes.unique()) > 4190, "of 4,200, two collide once in 487 tries"
    assert not torch.equal(hashes, hash_integers(4, rows, columns))
    bits = (hashes[..., None] >> torch.arange(32, device=device)) & 1
    assert float((bits.double().mean((0, 1)) - 0.5).abs().max()) < 5 * 0.5 / math.sqrt(4200)


def test_position_hashes_know_only_the_rank_among_valid_entries(device: str) -> None:
    valid = torch.rand(4, 50, generator=torch.Generator().manual_seed(0)).to(device) < 0.6
    hashes = position_hash(valid, seed=5)
    assert bool((hashes[~valid] >= 2**32).all()) and bool((hashes[valid] < 2**32).all())
    whole = position_hash(torch.ones(1, 50, dtype=torch.bool, device=device), seed=5)[0]
    for image in range(4):
        assert torch.equal(hashes[image, valid[image]], whole[: int(valid[image].sum())])
    assert not torch.equal(position_hash(valid, seed=6), hashes)


def test_a_sample_as_labels_is_the_labels_where_it_was_drawn() -> None:
    """The second image has fewer pixels to draw: its padding names pixels that must stay unlabelled."""
    labels = torch.randint(0, 3, (2, 6, 7), generator=torch.Generator().manual_seed(0))
    labels[1, 1:] = VOID
    sample = sample_pixels(labels, per_class=4)
    drawn = sample.as_labels(6, 7)
    assert (drawn == VOID).sum((1, 2)).tolist() == (42 - (sample.classes >= 0).sum(1)).tolist()
    assert torch.equal(drawn, torch.where(drawn == VOID, VOID, labels))
    assert (
        drawn.flatten(1).gather(1, sample.positions)[sample.classes >= 0].eq(sample.classes[sample.classes >= 0]).all()
    )
