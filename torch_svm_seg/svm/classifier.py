"""The SVM as an estimator of scikit-learn, which this module alone needs."""

import warnings
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import Tensor

from torch_svm_seg.svm.approximations import Approximation
from torch_svm_seg.svm.arguments import check_positive
from torch_svm_seg.svm.decisions import GaussianDecision, LinearDecision
from torch_svm_seg.svm.slopes import likeliest_slopes
from torch_svm_seg.svm.svm import SVM, Kernel
from torch_svm_seg.tensors import hash_integers

_FOLDS, _LARGEST_SLOPE = 5, 64.0


class SVMClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """One-vs-rest SVM for scikit-learn's pipelines and searches, on arrays and lists.

    It differs from ``sklearn.svm.SVC`` in that several classes are one-vs-rest; in that ``gamma="scale"`` is
    1 / (D * variance) with the variance weighted by the sample weights, and ``class_weight="balanced"`` counts samples
    by their weights, so that a weight of 2 is as good as the sample twice (without weights, both are the same); and in
    that it stops by the relative duality gap. ``sample_weight`` scales C per sample, as there.

    Args:
        C: Weight of the loss, > 0.
        kernel: ``"rbf"`` or ``"linear"``.
        gamma: Coefficient of the RBF kernel, > 0, or ``"scale"``.
        approximation: Approximation of the RBF kernel; see ``SVM``.
        class_weight: Factor > 0 of C for each label, 1 for those not named; ``"balanced"``, n / (K * n_k); or None.
        probability: Calibrate probabilities in ``fit``, by five further fits.
        solver: Further arguments of ``SVM`` by name: ``loss``, ``tol``, ``max_iter``.
        device: Device to compute on, such as ``"cuda"``.

    Attributes (after ``fit``):
        classes_: Labels, ascending, (K,).
        intercept_: Intercepts, (K,), or (1,) for two classes.
        coef_: Weights, (K, D) or (1, D); of the linear kernel.
        support_: Indices of the samples that carry weight for any class, ascending, (S,); of the exact RBF kernel.
        dual_coef_: Their coefficients y_i alpha_i, (K, S) or (1, S).
        n_iter_: Steps of the solver, (K,) or (1,).
        svm_: The fitted ``SVM``.

    Examples:
        >>> x, y = [[-2.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [2.0, 0.0]], ["cat", "cat", "dog", "dog"]
        >>> SVMClassifier(kernel="linear").fit(x, y).predict([[0.5, 3.0]]).tolist()
        ['dog']
    """

    def __init__(
        self,
        C: float = 1.0,
        kernel: Kernel = "rbf",
        gamma: float | Literal["scale"] = "scale",
        approximation: Approximation = "auto",
        class_weight: Mapping[Any, float] | Literal["balanced"] | None = None,
        probability: bool = False,
        solver: Mapping[str, Any] | None = None,
        device: str = "cpu",
    ) -> None:
        self.C, self.kernel, self.gamma, self.approximation = C, kernel, gamma, approximation
        self.class_weight, self.probability, self.solver, self.device = class_weight, probability, solver, device

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> "SVMClassifier":
        """Fit the SVM to samples.

        Args:
            X: Samples, (N, D).
            y: Labels of any type, (N,).
            sample_weight: Factors >= 0 of C, (N,); 0 takes a sample out.

        Raises:
            ValueError: The arguments are not as above, or there is no second class of weight > 0.
        """
        samples, labels = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(labels)
        factors = _check_sample_weight(sample_weight, samples, dtype=samples.dtype)
        known, index = np.unique(labels, return_inverse=True)
        used = factors != 0
        if len(np.unique(index[used])) < 2:
            raise ValueError("y: expected samples of weight > 0 of two classes or more, got one class")
        # Classes without weight are not learned.
        self.classes_ = known[np.unique(index[used])]
        index = np.where(used, np.searchsorted(self.classes_, labels).clip(max=len(self.classes_) - 1), -1)
        gamma = _scale_gamma(samples, factors) if self.gamma == "scale" else self.gamma
        factors = factors * self._class_factors(index, factors)[index]
        x, ids, weight = (torch.tensor(part, device=self.device) for part in (samples, index, factors))
        self.svm_ = _fit(self._svm(gamma), x, ids, weight)
        self.slope_ = self._calibrate(x, ids, weight, gamma) if self.probability else 1.0
        self._describe()
        return self

    def decision_function(self, X: ArrayLike) -> NDArray[Any]:
        """Return decision values (M, K) of samples (M, D), or (M,) for two classes, positive for the second.

        Raises:
            NotFittedError: The classifier is not fitted.
        """
        scores = self._scores(X)
        values: NDArray[Any] = (scores[:, 1] if len(self.classes_) == 2 else scores).cpu().numpy()
        return values

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the labels (M,) of samples (M, D).

        Raises:
            NotFittedError: The classifier is not fitted.
        """
        best = self._scores(X).argmax(1).cpu().numpy()
        labels: NDArray[Any] = self.classes_[best]
        return labels

    @available_if(lambda self: self.probability)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Return probabilities (M, K) of samples (M, D), which rank as the decision values do.

        They are the softmax of the decision values times the slope that makes labels most likely (Platt, 1999, with one
        parameter), by decision values that each sample gets from the four fifths of the samples it is not in.

        Raises:
            NotFittedError: The classifier is not fitted.
        """
        scores = self._scores(X)
        probabilities: NDArray[Any] = (self.slope_ * scores).softmax(1).cpu().numpy()
        return probabilities

    def _svm(self, gamma: float) -> SVM:
        return SVM(self.kernel, self.C, gamma, approximation=self.approximation, **dict(self.solver or {}))

    def _scores(self, X: ArrayLike) -> Tensor:
        check_is_fitted(self)
        x = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return self.svm_.decision_function(torch.tensor(x, device=self.device))

    def _class_factors(self, index: NDArray[Any], weight: NDArray[Any]) -> NDArray[Any]:
        """Return the factor of C of each class, (K,)."""
        if self.class_weight is None:
            return np.ones(len(self.classes_))
        if self.class_weight == "balanced":
            sums = np.bincount(index[index >= 0], weight[index >= 0])
            return np.asarray(sums.sum() / (len(sums) * sums))
        if not isinstance(self.class_weight, Mapping):
            raise ValueError(f"class_weight: expected a mapping, 'balanced' or None, got {self.class_weight!r}")
        for label, factor in self.class_weight.items():
            check_positive(f"class_weight[{label!r}]", factor)
        return np.array([self.class_weight.get(label, 1) for label in self.classes_.tolist()], dtype=float)

    def _calibrate(self, x: Tensor, y: Tensor, weight: Tensor, gamma: float) -> float:
        """Return the slope of the probabilities: one fit per fold, all at once, on the other folds' samples."""
        order = hash_integers(0, torch.arange(len(y), device=y.device)).argsort()
        order = order[y[order].argsort(stable=True)]
        folds = min(_FOLDS, int((y >= 0).sum()))
        fold = torch.empty_like(y)
        fold[order] = torch.arange(len(y), device=y.device) % folds
        held_out = fold == torch.arange(folds, device=y.device)[:, None]
        scores = x.new_full((len(y), len(self.classes_)), -torch.inf)
        for out in held_out & (y >= 0):
            if bool(out.any()) and bool(((y >= 0) & ~out).any()):
                svm = _fit(self._svm(gamma), x, torch.where(out, -1, y), weight)
                scores[out.nonzero(), svm.classes_] = svm.decision_function(x[out])
        scored = torch.where((scores > -torch.inf).any(1), y, -1)
        return float(likeliest_slopes(scores.mT[None], scored[None], _LARGEST_SLOPE, weight[None]))

    def _describe(self) -> None:
        """Set the attributes that scikit-learn's SVMs have."""
        decision, binary = self.svm_.decision, len(self.classes_) == 2
        rows = slice(1, None) if binary else slice(None)
        self.intercept_ = decision.intercept[0, 0, rows].cpu().numpy()
        self.n_iter_ = self.svm_.n_iter_[rows].cpu().numpy()
        for name in ("coef_", "support_", "dual_coef_"):
            self.__dict__.pop(name, None)
        if isinstance(decision, LinearDecision):
            self.coef_ = decision.weights[0].mT[rows].cpu().numpy()
        if isinstance(decision, GaussianDecision) and decision.samples is not None:
            carrying = (decision.coefficients[0] != 0).any(1)
            self.support_ = decision.samples[0][carrying].cpu().numpy()
            self.dual_coef_ = decision.coefficients[0][carrying].mT[rows].cpu().numpy()


def _scale_gamma(samples: NDArray[Any], weight: NDArray[Any]) -> float:
    """Return 1 / (D * variance of all entries), weighted; 1 where the samples are constant."""
    share = weight / weight.sum()
    variance = float(share @ np.square(samples - share @ samples.mean(1)).mean(1))
    return 1 / (samples.shape[1] * variance) if variance > 0 else 1.0


def _fit(svm: SVM, x: Tensor, y: Tensor, weight: Tensor) -> SVM:
    """Fit an SVM; what it did not solve is a warning of scikit-learn's kind."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        svm.fit(x, y, weight)
    for warning in caught:
        unsolved = "max_iter" in str(warning.message)
        warnings.warn(str(warning.message), ConvergenceWarning if unsolved else warning.category, stacklevel=3)
    return svm
