"""Objective and gap are those of what is stored: recomputed in double precision from the weights and coefficients."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from torch_svm_seg import SVM
from torch_svm_seg.svm.approximations import Fourier, Nystroem
from torch_svm_seg.svm.decisions import FourierDecision, GaussianDecision, LinearDecision

KINDS: dict[str, dict[str, Any]] = {
    "linear": {"kernel": "linear"},
    "rbf": {"approximation": None},
    "nystroem": {"approximation": Nystroem(64)},
    "fourier": {"approximation": Fourier(100)},
}


def samples(number: int, channels: int) -> tuple[Tensor, Tensor]:
    """Overlapping classes of two: single precision samples and their ids."""
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(number, channels, generator=generator)
    return x, (x[:, 0] + x[:, 1] ** 2 + 0.5 * torch.randn(number, generator=generator) > 1).long()


def by_hand(svm: SVM, x: Tensor, y: Tensor) -> float:
    """Primal objective, by NumPy, of the first class from what the SVM has stored."""
    decision, points = svm.decision, x.double().numpy()
    intercept = float(decision.intercept[0, 0, 0])
    values: NDArray[np.floating]
    if isinstance(decision, LinearDecision):
        weights = decision.weights[0, :, 0].double().numpy()
        values, norm = points @ weights, weights @ weights
    elif isinstance(decision, GaussianDecision):
        centres, gamma = decision.centres[0].double().numpy(), float(decision.gamma)
        coefficients = decision.coefficients[0, :, 0].double().numpy()
        kernel = lambda a: np.exp(-gamma * np.square(a[:, None] - centres).sum(2))  # noqa: E731
        values, norm = kernel(points) @ coefficients, coefficients @ kernel(centres) @ coefficients
    else:
        assert isinstance(decision, FourierDecision)
        coefficients = decision.coefficients[0, :, 0].double().numpy()
        angles = points @ decision.frequencies[0].double().numpy() + decision.phases[0].double().numpy()
        # The features are cosines times the root of 2 / their number.
        values, norm = np.cos(angles) @ coefficients, coefficients @ coefficients * len(coefficients) / 2
    losses = np.maximum(0, 1 - np.where(y.numpy() == 0, 1, -1) * (values + intercept))
    losses = losses**2 if svm.loss == "squared_hinge" else losses
    return float(norm / 2 + float(svm.C) * losses.sum())


@pytest.mark.parametrize("number", [300, 900], ids=["by Newton", "by pairs"])
@pytest.mark.parametrize("loss", ["hinge", "squared_hinge"])
@pytest.mark.parametrize("C", [1.0, 1e4])
@pytest.mark.parametrize("kind", KINDS)
def test_the_reported_objective_is_that_of_what_is_stored(kind: str, C: float, loss: Any, number: int) -> None:
    """And the gap bounds its distance from the optimum, as a fit in double precision finds it."""
    x, y = samples(number, 8)
    svm = SVM(C=C, loss=loss, **KINDS[kind]).fit(x, y)
    stored, objective, gap = by_hand(svm, x, y), float(svm.objective_[0]), float(svm.duality_gap_[0])
    # A kernel matrix of single values: as exact as these matter to the tolerance.
    precision = 2e-4 if kind == "rbf" else 1e-5
    assert objective == pytest.approx(stored, rel=precision)
    exact = SVM(C=C, loss=loss, tol=1e-7, max_iter=3000, **KINDS[kind]).fit(x.double(), y)
    assert stored - gap <= float(exact.objective_[0]) * (1 + precision)
    assert 0 <= gap <= 1e-3 * objective
