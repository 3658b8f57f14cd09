"""Solves the problems of a batch of images from quick to sure: by pair steps, by Newton's, and in double precision."""

from collections.abc import Callable

import torch
from torch import Tensor

from torch_svm_seg.svm.kernel_rows import KernelRows
from torch_svm_seg.svm.problem import Problem, Solution
from torch_svm_seg.svm.samples import KernelSamples, Samples
from torch_svm_seg.svm.solver import solve
from torch_svm_seg.svm.working_sets import solve_by_pairs
from torch_svm_seg.tensors import on_cpu

# Newton steps after which what single precision has not solved goes on in double precision.
SINGLE_PRECISION_STEPS = 200
# Relative gap above which a solution is no better start than 0.
USELESS_GAP = 0.5
# Entries of the kernel matrices that problems solved at once may have on a CPU; and the bytes of a GPU's free memory
# that one takes: four, some seven times as much for the solution, and as much again is left free.
CACHED_KERNEL_ENTRIES, BYTES_PER_ENTRY = 2**18, 64


def solve_in_stages(
    samples: Callable[[Tensor], Samples],
    image: Tensor,
    problem: Problem,
    tol: float = 1e-3,
    max_iter: int = 1000,
    by_pairs: bool = True,
) -> Solution:
    """Solve problems until primal - dual <= tol * primal in each.

    On a CPU, problems of an exact kernel that are not tiny are first solved by pair steps, one at a time. What these
    have not solved, and all other problems, are solved by Newton's steps, a few at once: a CPU takes as many as their
    kernel matrices would fit its cache even if every sample carried weight, and a GPU as many as would fit its memory.

    Args:
        samples: Returns the samples of problems of the images (P,).
        image: The image of each problem, (P,), ascending.
        problem: What to solve.
        tol: Relative duality gap to reach.
        max_iter: Steps at most; the solution's gap tells whether they sufficed.
        by_pairs: Whether pair steps may be taken. Newton's leave the free samples closer to the margin than the gap
            asks for, which a gradient needs.
    """
    number, size = problem.targets.shape
    problem = Problem(problem.targets.double(), problem.costs.double(), problem.squared)
    at_once = max(_kernel_entries(image) // size**2, 1)
    if number and by_pairs and on_cpu(image) and at_once == 1 and isinstance(samples(image[:1]), KernelSamples):
        found = _solve_by_pairs(samples, image, problem, tol, max_iter)
        for part in found.unfinished(tol).nonzero():
            found.replace(part, _solve_by_newton(samples, image[part], problem.of(part), tol, max_iter, found.of(part)))
        return found
    parts = torch.arange(number, device=image.device).split(at_once)
    return Solution.joined([_solve_by_newton(samples, image[part], problem.of(part), tol, max_iter) for part in parts])


def _kernel_entries(image: Tensor) -> int:
    """Return how many entries the kernel matrices of problems solved at once may have, on a tensor's device."""
    if on_cpu(image):
        return CACHED_KERNEL_ENTRIES
    free, _ = torch.cuda.mem_get_info(image.device)
    return free // BYTES_PER_ENTRY


def _solve_by_pairs(
    samples: Callable[[Tensor], Samples], image: Tensor, problem: Problem, tol: float, max_iter: int
) -> Solution:
    """Return solutions by pair steps alone; the problems of an image share the rows of its kernel matrix."""
    solutions: list[Solution] = []
    for one, count in zip(*image.unique(return_counts=True), strict=True):
        chosen = samples(one[None])
        assert isinstance(chosen, KernelSamples)
        kernel = KernelRows(chosen)
        for index in range(len(solutions), len(solutions) + int(count)):
            solutions.append(solve_by_pairs(kernel, problem.of(torch.tensor([index])), tol, max_iter))
    return Solution.joined(solutions)


def _solve_by_newton(
    samples: Callable[[Tensor], Samples],
    image: Tensor,
    problem: Problem,
    tol: float,
    max_iter: int,
    start: Solution | None = None,
) -> Solution:
    """Return solutions in the samples' precision, and in double where that does not suffice."""
    chosen, start = samples(image), _worth(start)
    taken = 0 if start is None else int(start.iterations.max())
    most = max_iter if chosen.dtype == torch.float64 else min(max_iter, taken + SINGLE_PRECISION_STEPS)
    found = solve(chosen, problem, tol, most, start)
    hard = found.unfinished(tol).nonzero()[:, 0]
    if len(hard) and most < max_iter:
        in_double = samples(image[hard]).double()
        found.replace(hard, solve(in_double, problem.of(hard), tol, max_iter, _worth(found.of(hard))))
    return found


def _worth(start: Solution | None) -> Solution | None:
    """Return a start, or None where it is so far from a solution that steps from 0 are fewer."""
    return None if start is None or bool(start.unfinished(USELESS_GAP).any()) else start
