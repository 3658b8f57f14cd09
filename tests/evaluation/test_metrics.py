"""The score against scikit-learn, torchmetrics and cases counted by hand."""

import pytest
import torch
from sklearn import metrics as reference  # type: ignore[import-untyped]
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex

from torch_svm_seg.evaluation.metrics import SegmentationScore, confusion_matrix, summarize

CLASSES = 6


def random_masks(
    seed: int, shape: tuple[int, ...] = (2, 40, 50), void: float = 0.1
) -> tuple[torch.Tensor, torch.Tensor]:
    """A prediction that is right for about half of the pixels, and a target with some void."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(CLASSES, shape, generator=generator)
    guess = torch.randint(CLASSES, shape, generator=generator)
    prediction = torch.where(torch.rand(shape, generator=generator) < 0.5, target, guess)
    target[torch.rand(shape, generator=generator) < void] = 255
    return prediction, target


def test_counts_and_ious_equal_scikit_learn() -> None:
    prediction, target = random_masks(0)
    score = SegmentationScore(CLASSES)
    score.update(prediction, target)
    labelled = target != 255
    true, predicted = target[labelled].numpy(), prediction[labelled].numpy()
    expected = reference.confusion_matrix(true, predicted, labels=range(CLASSES))
    assert score.confusion[:, :CLASSES].tolist() == expected.tolist()
    result = score.compute()
    assert result.per_class.dtype == torch.float64
    assert result.per_class.tolist() == pytest.approx(
        reference.jaccard_score(true, predicted, average=None), rel=1e-15, abs=0
    )
    assert result.miou == pytest.approx(reference.jaccard_score(true, predicted, average="macro"), rel=1e-15, abs=0)
    assert result.pixel_accuracy == pytest.approx(reference.accuracy_score(true, predicted), rel=1e-15, abs=0)


def test_ious_equal_torchmetrics_jaccard_index() -> None:
    jaccard = MulticlassJaccardIndex(CLASSES, average="none", ignore_index=255)
    score = SegmentationScore(CLASSES)
    for seed in range(3):
        jaccard.update(*random_masks(seed))
        score.update(*random_masks(seed))
    torch.testing.assert_close(score.compute().per_class.float(), jaccard.compute())


def test_counts_equal_torchmetrics_confusion_matrix() -> None:
    """With "unsure" as one class more, which no target has."""
    prediction, target = random_masks(4)
    prediction[0, :5] = 255
    confusion = MulticlassConfusionMatrix(CLASSES + 1, ignore_index=255)
    expected = confusion(torch.where(prediction == 255, CLASSES, prediction), target)
    assert torch.equal(confusion_matrix(prediction, target, CLASSES), expected[:CLASSES])
    assert expected[:, CLASSES].sum() > 0


def test_by_hand() -> None:
    target = torch.tensor([[0, 0, 0, 0], [1, 1, 2, 255]])
    prediction = torch.tensor([[0, 0, 1, 255], [1, 2, 2, 3]])
    score = SegmentationScore(5)
    score.update(prediction, target)
    result = score.compute()
    # Class 0: 2 of 4, the unsure pixel a miss. Class 1: 1 of {1, 1, the false one}. Class 2: 1 of {2, the false one}.
    # Class 3 is predicted at a void pixel only, class 4 nowhere: both have an empty union.
    torch.testing.assert_close(
        result.per_class, torch.tensor([1 / 2, 1 / 3, 1 / 2, torch.nan, torch.nan]).double(), equal_nan=True
    )
    assert result.miou == pytest.approx((1 / 2 + 1 / 3 + 1 / 2) / 3)
    assert result.pixel_accuracy == pytest.approx(4 / 7)


def test_class_only_in_predictions_counts_as_zero() -> None:
    score = SegmentationScore(3)
    score.update(torch.tensor([0, 2]), torch.tensor([0, 0]))
    result = score.compute()
    assert result.per_class[2] == 0
    assert result.miou == pytest.approx(0.25)


def test_unsure_misses_its_class_and_harms_no_other() -> None:
    prediction, target = random_masks(1, void=0)
    unsure = prediction.clone()
    hit = (prediction == target) & (target == 4)
    unsure[hit] = 255
    before = summarize(confusion_matrix(prediction, target, CLASSES)).per_class
    after = summarize(confusion_matrix(unsure, target, CLASSES)).per_class
    assert after[4] == 0 < before[4]
    others = torch.arange(CLASSES) != 4
    assert torch.equal(after[others], before[others])


def test_void_pixels_do_not_count() -> None:
    prediction, target = random_masks(2)
    changed = torch.where(target == 255, 5, prediction)
    assert not torch.equal(changed, prediction)
    assert torch.equal(confusion_matrix(changed, target, CLASSES), confusion_matrix(prediction, target, CLASSES))


def test_nothing_labelled_is_nan() -> None:
    score = SegmentationScore(3)
    score.update(torch.zeros(4, 4, dtype=torch.uint8), torch.full((4, 4), 255, dtype=torch.uint8))
    result = score.compute()
    assert result.per_class.isnan().all()
    assert torch.tensor([result.miou, result.pixel_accuracy]).isnan().all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_integer_dtypes_agree(dtype: torch.dtype) -> None:
    prediction, target = random_masks(3)
    prediction[0, 0] = 255
    counts = confusion_matrix(prediction.to(dtype), target, CLASSES)
    assert torch.equal(counts, confusion_matrix(prediction, target.to(dtype), CLASSES))
    assert counts.sum() == (target != 255).sum()
    assert counts[:, CLASSES].sum() == (target[0, 0] != 255).sum()


def test_one_matrix_over_the_set_not_a_mean_over_images() -> None:
    score = SegmentationScore(2)
    score.update(torch.tensor([1]), torch.tensor([1]))
    score.update(torch.tensor([0, 0, 0]), torch.tensor([1, 1, 1]))
    assert score.compute().per_class.tolist() == [0, 0.25]


def test_states_of_two_processes_sum_to_one() -> None:
    """What torchmetrics does with the states of several processes before ``compute``."""
    first, second, whole = (SegmentationScore(CLASSES) for _ in range(3))
    for seed in range(4):
        (first if seed % 2 else second).update(*random_masks(seed))
        whole.update(*random_masks(seed))
    first.merge_state(second)
    assert torch.equal(first.confusion, whole.confusion)
    assert torch.equal(first.compute().per_class, whole.compute().per_class)


def test_as_any_torchmetrics_metric() -> None:
    score = SegmentationScore(CLASSES)
    batches = [score(*random_masks(seed)) for seed in range(2)]
    counts = [confusion_matrix(*random_masks(seed), CLASSES) for seed in range(2)]
    assert [batch.miou for batch in batches] == [summarize(count).miou for count in counts]
    assert torch.equal(score.confusion, counts[0] + counts[1])
    score.reset()
    assert score.confusion.sum() == 0
    collection = MetricCollection({"val": score})
    collection.update(*random_masks(5))
    assert collection.compute()["val"].miou == summarize(confusion_matrix(*random_masks(5), CLASSES)).miou


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_counts_the_same() -> None:
    prediction, target = random_masks(6)
    score = SegmentationScore(CLASSES).to("cuda")
    score.update(prediction.cuda(), target.cuda())
    assert torch.equal(score.confusion.cpu(), confusion_matrix(prediction, target, CLASSES))
    assert score.compute().miou == summarize(confusion_matrix(prediction, target, CLASSES)).miou


@pytest.mark.parametrize(
    ("prediction", "target", "message"),
    [
        (torch.zeros(4, 5, dtype=torch.long), torch.zeros(5, 4, dtype=torch.long), r"prediction: .*\(5, 4\).*\(4, 5\)"),
        (torch.tensor([0, 3]), torch.tensor([0, 1]), "prediction: .*0 to 2 or 255, got 3"),
        (torch.tensor([0, 1]), torch.tensor([0, 254]), "target: .*0 to 2 or 255, got 254"),
        (torch.tensor([0, -1]), torch.tensor([0, 1]), "prediction: .*got -1"),
        (torch.tensor([0, 256]), torch.tensor([0, 1]), "prediction: .*got 256"),
    ],
)
def test_bad_masks(prediction: torch.Tensor, target: torch.Tensor, message: str) -> None:
    score = SegmentationScore(3)
    with pytest.raises(ValueError, match=message):
        score.update(prediction, target)
    assert score.confusion.sum() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_bad_dtype(dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match=f"prediction: .*got {dtype}"):
        SegmentationScore(3).update(torch.zeros(4, dtype=dtype), torch.zeros(4, dtype=torch.long))


@pytest.mark.parametrize("num_classes", [1, 256])
def test_bad_number_of_classes(num_classes: int) -> None:
    with pytest.raises(ValueError, match=f"num_classes: .*got {num_classes}"):
        SegmentationScore(num_classes)
