"""The estimator against scikit-learn: its checks, its SVC, its searches, and scikit-image's segmenter."""

import pickle
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone  # type: ignore[import-untyped]
from sklearn.datasets import load_iris, make_classification  # type: ignore[import-untyped]
from sklearn.exceptions import ConvergenceWarning, NotFittedError  # type: ignore[import-untyped]
from sklearn.metrics import log_loss  # type: ignore[import-untyped]
from sklearn.model_selection import GridSearchCV, train_test_split  # type: ignore[import-untyped]
from sklearn.multiclass import OneVsRestClassifier  # type: ignore[import-untyped]
from sklearn.pipeline import make_pipeline  # type: ignore[import-untyped]
from sklearn.preprocessing import StandardScaler  # type: ignore[import-untyped]
from sklearn.svm import SVC  # type: ignore[import-untyped]
from sklearn.utils.estimator_checks import parametrize_with_checks  # type: ignore[import-untyped]

from torch_svm_seg import Fourier, Nystroem, SVMClassifier


@parametrize_with_checks(
    [
        SVMClassifier(),
        SVMClassifier(kernel="linear"),
        SVMClassifier(gamma=0.5, class_weight="balanced"),
    ]
)
def test_scikit_learns_checks(estimator: Any, check: Any) -> None:
    check(estimator)


def overlapping(classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    x, y = make_classification(
        200, 6, n_informative=4, n_classes=classes, flip_y=0.1, class_sep=0.7, random_state=0, n_clusters_per_class=1
    )
    return x, np.array(["ape", "bee", "cow"])[y]


@pytest.mark.parametrize("class_weight", [None, "balanced", {"ape": 3.0}])
@pytest.mark.parametrize("kernel", ["linear", "rbf"])
@pytest.mark.parametrize("classes", [2, 3])
def test_decisions_and_attributes_are_those_of_svc(classes: int, kernel: Any, class_weight: Any) -> None:
    x, y = overlapping(classes)
    ours = SVMClassifier(C=2.0, kernel=kernel, approximation=None, class_weight=class_weight, solver={"tol": 1e-8})
    ours.fit(x, y)
    # One-vs-rest of scikit-learn balances classes after the split: the weights are given to each of its problems.
    counts = {label: (y == label).sum() for label in np.unique(y)}
    factors = {label: len(y) / (len(counts) * counts[label]) for label in counts}
    if class_weight != "balanced":
        factors = class_weight or {}
    weights = np.array([factors.get(label, 1.0) for label in y])
    for number, label in enumerate(ours.classes_ if classes > 2 else ours.classes_[1:]):
        theirs = SVC(C=2.0, kernel=kernel, tol=1e-6).fit(x, y == label, weights)
        scores = ours.decision_function(x)
        scores = scores[:, number] if classes > 2 else scores
        np.testing.assert_allclose(scores, theirs.decision_function(x), atol=2e-3)
        np.testing.assert_allclose(ours.intercept_[number], theirs.intercept_[0], atol=2e-3)
        if kernel == "linear":
            np.testing.assert_allclose(ours.coef_[number], theirs.coef_[0], atol=2e-3)
        else:
            dense = np.zeros((2, len(x)))
            dense[0, ours.support_] = ours.dual_coef_[number]
            dense[1, theirs.support_] = theirs.dual_coef_[0]
            np.testing.assert_allclose(dense[0], dense[1], atol=2e-3)
    assert ours.n_iter_.shape == ours.intercept_.shape == ((1,) if classes == 2 else (3,))
    assert hasattr(ours, "coef_") == (kernel == "linear") and hasattr(ours, "support_") == (kernel == "rbf")


@pytest.mark.parametrize("labels", [[3, -7], [2.0, 1.0], [True, False], ["b", "a"]])
def test_lists_and_labels_of_any_type(labels: list[Any]) -> None:
    x, y = [[-2.0], [-1.0], [1.0], [2.0]], [labels[0], labels[0], labels[1], labels[1]]
    classifier = SVMClassifier(kernel="linear").fit(x, y)
    assert classifier.predict(x).tolist() == y
    assert classifier.classes_.tolist() == sorted(labels)
    assert classifier.decision_function([[5.0]]).shape == (1,)


def test_probabilities_of_unseen_samples_are_better_than_raw_scores_and_rank_as_they_do() -> None:
    x, y = make_classification(900, 6, n_informative=4, n_classes=3, flip_y=0.3, random_state=0, n_clusters_per_class=1)
    x, new, y, true = train_test_split(x, y, random_state=0)
    classifier = SVMClassifier(C=30.0, probability=True).fit(x, y)
    found = classifier.predict_proba(new)
    np.testing.assert_allclose(found.sum(1), 1)
    assert np.array_equal(classifier.classes_[found.argmax(1)], classifier.predict(new))
    scores = np.exp(classifier.decision_function(new))
    assert log_loss(true, found) < log_loss(true, scores / scores.sum(1, keepdims=True))
    assert log_loss(true, found) < log_loss(true, np.full_like(found, 1 / 3))
    assert not hasattr(SVMClassifier(), "predict_proba")


def test_a_search_finds_parameters_in_a_pipeline() -> None:
    x, y = load_iris(return_X_y=True)
    grid = {"svmclassifier__C": [0.01, 1.0], "svmclassifier__approximation": [None, Fourier(100)]}
    search = GridSearchCV(make_pipeline(StandardScaler(), SVMClassifier()), grid, cv=3).fit(x, y)
    reference = make_pipeline(StandardScaler(), OneVsRestClassifier(SVC())).fit(x, y)
    assert search.best_score_ > 0.93
    assert np.mean(search.predict(x) == reference.predict(x)) > 0.97


def test_a_segmenter_of_scikit_image_trains_it() -> None:
    future = pytest.importorskip("skimage.future")
    feature = pytest.importorskip("skimage.feature")
    image = np.zeros((32, 32))
    image[:, 16:] = 1
    image += 0.1 * np.random.default_rng(0).normal(size=image.shape)
    labels = np.zeros((32, 32), dtype=int)
    labels[4:8, 2:14], labels[4:8, 18:30] = 1, 2
    segmenter = future.TrainableSegmenter(
        SVMClassifier(), lambda image: feature.multiscale_basic_features(image, sigma_max=4)
    )
    segmenter.fit(image, labels)
    found = segmenter.predict(image)
    assert (found[:, :12] == 1).mean() > 0.95 and (found[:, 20:] == 2).mean() > 0.95


def test_it_is_cloned_and_pickled() -> None:
    x, y = overlapping()
    classifier = SVMClassifier(C=3.0, approximation=Nystroem(20), class_weight={"bee": 2.0}).fit(x, y)
    assert clone(classifier).get_params() == classifier.get_params()
    copied = pickle.loads(pickle.dumps(classifier))
    assert np.array_equal(copied.decision_function(x), classifier.decision_function(x))


def test_errors_and_warnings_are_those_of_scikit_learn() -> None:
    x, y = overlapping()
    with pytest.raises(NotFittedError):
        SVMClassifier().predict(x)
    with pytest.warns(ConvergenceWarning, match="max_iter=1"):
        SVMClassifier(C=100.0, solver={"max_iter": 1}).fit(x, y)
    with pytest.raises(ValueError, match=r"^kernel: expected one of"):
        SVMClassifier(kernel="poly").fit(x, y)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^class_weight: expected"):
        SVMClassifier(class_weight=3).fit(x, y)  # type: ignore[arg-type]
    for factor in (0, -1, np.nan, "heavy"):
        with pytest.raises(ValueError, match=r"^class_weight\['bee'\]: expected a finite number > 0, got"):
            SVMClassifier(class_weight={"bee": factor}).fit(x, y)  # type: ignore[dict-item]
