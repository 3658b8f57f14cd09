"""The step of all free dual variables against systems solved densely, and what it must keep."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.svm import SVC

from torch_svm_seg import SVM
from torch_svm_seg.svm import free_steps, working_sets
from torch_svm_seg.svm.distances import DistancesOfAll, DistancesOfFew
from torch_svm_seg.svm.free_steps import step_of_free
from torch_svm_seg.svm.kernel_rows import KernelRows
from torch_svm_seg.svm.kernels import gaussian_kernel
from torch_svm_seg.svm.pairs import Variables
from torch_svm_seg.svm.samples import GaussianSamples


def random_dual(seed: int, most: float) -> tuple[KernelRows, torch.Tensor, Variables]:
    """Rows and matrix (40, 40) of a kernel, and feasible variables up to ``most``: some at 0, some at ``most``."""
    generator = torch.Generator().manual_seed(seed)
    x, gamma = torch.randn(1, 40, 3, generator=generator).double(), torch.ones(1, 1, 1).double()
    kernel = gaussian_kernel(x, x, gamma)[0]
    targets = np.where(np.arange(40) % 2, 1.0, -1.0)
    # Pairs of one of either sign have the same size, so that they add up to 0.
    sizes = np.repeat(np.random.default_rng(seed).choice([0, 0.3, 0.5, 0.7, 1], 20), 2) * most
    signed = targets * sizes
    lower, upper = np.where(targets > 0, 0, -most), np.where(targets > 0, most, 0)
    return (
        KernelRows(GaussianSamples(x, gamma)),
        kernel,
        Variables(signed, targets - kernel.numpy() @ signed, lower, upper),
    )


@pytest.mark.parametrize("seed", range(4))
def test_far_from_their_bounds_the_free_are_balanced_at_once(seed: int) -> None:
    """Their slopes become those of the dense solution: all the same."""
    rows, kernel, variables = random_dual(seed, most=1e3)
    variables.signed /= 1e3
    variables.slopes = np.sign(variables.upper + variables.lower) - kernel.numpy() @ variables.signed
    variables.lower, variables.upper = variables.signed - 1e3, variables.signed + 1e3
    free = np.arange(0, 40, 3)
    before = variables.slopes[free].copy()
    system = np.block([[kernel.numpy()[np.ix_(free, free)], np.ones((len(free), 1))], [np.ones(len(free)), 0]])
    expected = np.linalg.solve(system, np.append(variables.slopes[free], 0))[:-1] + variables.signed[free]
    assert step_of_free(variables, DistancesOfAll(rows, np.zeros(40)), free)
    assert variables.signed[free] == pytest.approx(expected, rel=0, abs=0.02 * np.abs(expected).max())
    assert np.ptp(variables.slopes[free]) < 0.03 * np.ptp(before)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("few", [False, True])
def test_a_step_keeps_bounds_and_sum_and_the_objective_rises(
    few: bool, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(free_steps, "MOST_LEAVING", 1.0)
    rows, kernel, variables = random_dual(seed, most=1.5)
    targets = np.sign(variables.lower + variables.upper)
    before, ridge = variables.signed.copy(), np.zeros(40)
    distances = DistancesOfFew(rows, np.arange(40), ridge) if few else DistancesOfAll(rows, ridge)
    moved = step_of_free(variables, distances, variables.free())
    after = variables.signed
    assert moved == bool((after != before).any())
    assert bool((after >= variables.lower).all() and (after <= variables.upper).all())
    assert after.sum() == pytest.approx(before.sum(), abs=1e-9)
    assert bool((after == before)[(before == 0) | (np.abs(before) == 1.5)].all())
    difference = variables.slopes - (targets - kernel.numpy() @ after)
    assert np.ptp(difference) < 1e-6, "slopes are known up to a number that all share"

    def dual(signed: NDArray[np.floating]) -> float:
        return float(targets @ signed - signed @ kernel.numpy() @ signed / 2)

    assert dual(after) >= dual(before)


@pytest.mark.parametrize("squared", [False, True])
def test_with_and_without_such_steps_the_solution_is_libsvms(squared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(700, 4, generator=generator, dtype=torch.float64)
    y = ((x[:, 0] + x[:, 1] ** 2 > 0.7) ^ (torch.rand(700, generator=generator) < 0.1)).long()
    loss = "squared_hinge" if squared else "hinge"
    settings: dict[str, Any] = {"C": 100.0, "gamma": 0.3, "approximation": None, "loss": loss, "tol": 1e-5}
    found = SVM(**settings).fit(x, y)
    refused: list[int] = []

    def refuse(_: Variables, __: DistancesOfAll, free: NDArray[np.integer]) -> bool:
        refused.append(len(free))
        return False

    monkeypatch.setattr(working_sets, "step_of_free", refuse)
    without = SVM(**settings).fit(x, y)
    assert max(refused) > 1
    torch.testing.assert_close(found.objective_, without.objective_, rtol=2e-5, atol=0)
    if not squared:
        reference = SVC(C=100.0, gamma=0.3, tol=1e-6).fit(x.numpy(), y.numpy())
        scores = torch.from_numpy(reference.decision_function(x.numpy()))
        torch.testing.assert_close(found.decision_function(x)[:, 1], scores, rtol=0, atol=0.05)
