"""Solves the problems of a batch of images from quick to sure: by pair steps, by Newton's, and in double precision."""

from collections.abc import Callable

import torch
from torch import Tensor

from torch_svm_seg.svm.certificates import as_stored, is_imprecise
from torch_svm_seg.svm.kernel_rows import KernelRows
from torch_svm_seg.svm.problem import Problem, Solution
from torch_svm_seg.svm.samples import KernelSamples, Samples
from torch_svm_seg.svm.solver import solve
from torch_svm_seg.svm.working_sets import solve_by_pairs
from torch_svm_seg.tensors import on_cpu

# Newton steps after which what single precision has not solved goes on in double precision: all, and in a row without
# a smaller gap.
SINGLE_PRECISION_STEPS, PATIENCE = 200, 25
# Relative gap above which a solution is no better start than 0.
USELESS_GAP = 0.5
# Part of the tolerance that solutions of explicit features have to reach; decision functions may round them once more.
FEATURES_TOLERANCE = 0.9
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
            chosen, start = samples(image[part]), found.select(part)
            found.replace(part, _solve_in_double(chosen, problem.select(part), tol, max_iter, start))
        return found
    parts = torch.arange(number, device=image.device).split(at_once)
    return Solution.joined(
        [_solve_by_newton(samples, image[part], problem.select(part), tol, max_iter) for part in parts]
    )


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
    for one in image.unique():
        chosen = samples(one[None])
        assert isinstance(chosen, KernelSamples)
        solutions += _image_by_pairs(chosen, problem.select((image == one).nonzero()[:, 0]), tol, max_iter)
    return Solution.joined(solutions)


def _image_by_pairs(samples: KernelSamples, problem: Problem, tol: float, max_iter: int) -> list[Solution]:
    """Return the solutions of one image's problems; where single precision does not suffice, they go on in double."""
    kernel = KernelRows(samples)
    problems = [problem.select(one) for one in torch.arange(len(problem.targets))[:, None]]
    solutions = [solve_by_pairs(kernel, one, tol, max_iter) for one in problems]
    if samples.dtype == torch.float64:
        return solutions
    in_double, stored = samples.double(), kernel.dtype
    assert isinstance(in_double, KernelSamples)
    pairs = enumerate(zip(problems, solutions, strict=True))
    hard = [
        place for place, (one, found) in pairs if bool(found.unfinished(tol) | is_imprecise(samples, one, found, tol))
    ]
    if hard:
        kernel = KernelRows(in_double)
    for place in hard:
        solutions[place] = solve_by_pairs(kernel, problems[place], tol, max_iter, solutions[place], stored)
    return solutions


def _solve_by_newton(
    samples: Callable[[Tensor], Samples], image: Tensor, problem: Problem, tol: float, max_iter: int
) -> Solution:
    """Return solutions in the samples' precision, and in double where that does not suffice."""
    chosen = samples(image)
    if chosen.dtype == torch.float64:
        return solve(chosen, problem, tol, max_iter)
    found = solve(chosen, problem, tol, min(max_iter, SINGLE_PRECISION_STEPS), patience=PATIENCE)
    if not isinstance(chosen, KernelSamples):
        tol = FEATURES_TOLERANCE * tol
        found = as_stored(chosen.double(), problem, found, chosen.dtype, tol)
    hard = (found.unfinished(tol) | is_imprecise(chosen, problem, found, tol)).nonzero()[:, 0]
    if len(hard):
        start = found.select(hard)
        found.replace(hard, _solve_in_double(samples(image[hard]), problem.select(hard), tol, max_iter, start))
    return found


def _solve_in_double(samples: Samples, problem: Problem, tol: float, max_iter: int, start: Solution) -> Solution:
    """Return solutions that Newton's steps go on with in double precision, as they are stored in the samples' own."""
    in_double = samples.double()
    # To be stored adds to the gap.
    room = tol if samples.dtype == torch.float64 else tol / 2
    found = solve(in_double, problem, room, max_iter, _worth(start))
    return as_stored(in_double, problem, found, samples.dtype, tol)


def _worth(start: Solution | None) -> Solution | None:
    """Return a start, or None where it is so far from a solution that steps from 0 are fewer."""
    return None if start is None or bool(start.unfinished(USELESS_GAP).any()) else start
