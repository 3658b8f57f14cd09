r"""Solves batches of binary support vector machines to a certified duality gap.

The problem, with targets y in {+1, -1} and costs c_i = C s_i:

    minimise over w, b:   1/2 |w|^2  +  sum_i c_i loss(y_i (w . phi(x_i) + b)),

loss(m) = max(0, 1 - m) (hinge) or max(0, 1 - m)^2 (squared hinge); the intercept b is not penalised.

The algorithm is a proximal method of multipliers whose subproblems are minimised by a semismooth Newton method (Li,
Sun and Toh, SIAM J. Optim. 2018; Yin and Li, 2019; for the squared hinge it reduces to the finite Newton method of
Keerthi and DeCoste, JMLR 2005, and Chapelle, Neural Computation 2007). With alpha_i = c_i theta_i, it iterates

    theta_i = clamp(shift_i + (1 - m_i) / width, 0, 1)                   (dual variables at the current margins m)
    w      <- w + step * Newton direction of the smoothed objective       (only samples with 0 < theta < 1 enter)
    shift  <- theta                                                       (once the subproblem is solved well enough)

A Newton system has the size of the set of samples inside the smoothing zone, typically a few hundred, so that a
solution takes 10 to 40 cheap steps, and ``theta`` is a feasible dual point at every one of them: the duality gap is
known, and is what the solver stops by. ``solve`` runs this on a growing working set of samples (Joachims, 1999):
only samples that can carry weight in the solution ever meet each other in a kernel matrix.

Problems come in batches: P problems with N samples each are solved at once, and one that is done stands still.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from torch_svm_seg.kernels import gaussian_kernel, multiply_by_kernel
from torch_svm_seg.tensors import first_true, position_hash, spread_rows, take_rows

# Width of the smoothing zone, in units of the margin: starts so wide that all samples are inside at w = 0, and narrows
# while the multipliers settle. It never needs to become small: the multipliers, not the width, make the solution exact.
FIRST_WIDTH, LAST_WIDTH, WIDTH_FACTOR = 2.0, 0.05, 0.5
SHORT_STEP = 0.1
# A subproblem is solved well enough when its own gap is this part of the whole gap and of the multipliers' move.
SUBPROBLEM_TOLERANCE = 0.3
# An intercept balances the two sides' dual variables up to this part of their sum.
BALANCE_TOLERANCE = 1e-9
# Samples in the first working set.
FIRST_WORKING_SET = 1024
ROUGH_TOLERANCE = 0.1
# What single precision has not solved after so many steps is solved in double precision.
SINGLE_PRECISION_STEPS = 200
# Entries of the kernel matrices that problems solved at once may have on a GPU, 4 GB in single precision, and on a CPU.
KERNEL_ENTRIES, CACHED_KERNEL_ENTRIES = 2**30, 2**18


def _product(matrix: Tensor, vector: Tensor) -> Tensor:
    """Matrices (P, n, m), in their own precision, times double vectors (P, m)."""
    return (matrix @ vector.to(matrix.dtype)[..., None])[..., 0].double()


class Space(Protocol):
    """A Hilbert space holding n mapped samples in each of P problems; its elements w have shape (P, E).

    Matrices are in the samples' precision, and all vectors double: they cost nothing beside the matrices, and a
    duality gap is a small difference of large sums.
    """

    def combine(self, coefficients: Tensor) -> Tensor:
        """The element sum_i coefficients_i phi(x_i); coefficients (P, n)."""

    def evaluate(self, element: Tensor) -> Tensor:
        """Its inner products with all samples, (P, n)."""

    def inner(self, first: Tensor, second: Tensor, second_values: Tensor) -> Tensor:
        """Inner products of two elements, (P,); ``second_values`` is ``evaluate(second)``."""

    def evaluate_near(self, element: Tensor, other: Tensor, other_values: Tensor) -> Tensor:
        """``evaluate(element)``, where ``other_values``, those of a similar element, may help."""

    def newton(
        self, rows: Tensor, slopes: Tensor, residual: Tensor, residual_values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Newton's direction of the element, its values, and the direction (P, 1) of the intercept.

        With Phi the samples ``rows`` (P, A) and S their ``slopes`` (P, A; 0 is padding), the Hessian is I + Phi' S Phi
        in the element and [Phi 1]' S [Phi 1] where the intercept takes part. ``residual`` is the gradient in the
        element; that in the intercept is 0.
        """


@dataclass
class KernelSpace:
    """Samples given by their kernel matrix (P, n, n); elements are the coefficients of expansions in the samples."""

    kernel: Tensor

    def combine(self, coefficients: Tensor) -> Tensor:
        return coefficients

    def evaluate(self, element: Tensor) -> Tensor:
        # Most elements are combinations of few samples: only their rows of the matrix are read, and none is copied.
        rows, _ = first_true(element != 0)
        problems, size = element.shape
        table = rows + size * torch.arange(problems, device=rows.device)[:, None]
        coefficients = element.gather(1, rows).to(self.kernel.dtype)
        return F.embedding_bag(table, self.kernel.flatten(0, 1), per_sample_weights=coefficients, mode="sum").double()

    def evaluate_near(self, element: Tensor, other: Tensor, other_values: Tensor) -> Tensor:
        change = element - other
        if 2 * int((change != 0).sum()) > int((element != 0).sum()):
            return self.evaluate(element)
        return other_values + self.evaluate(change)

    def inner(self, first: Tensor, second: Tensor, second_values: Tensor) -> Tensor:
        return (first * second_values).sum(1)

    def newton(
        self, rows: Tensor, slopes: Tensor, residual: Tensor, residual_values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        entries = rows[:, :, None] * self.kernel.shape[-1] + rows[:, None, :]
        gram = self.kernel.flatten(1).gather(1, entries.flatten(1)).view(entries.shape)
        multipliers, turn = _newton_by_samples(gram, slopes, residual_values.gather(1, rows))
        correction = spread_rows(multipliers, rows, residual.shape[1])
        return correction - residual, self.evaluate(correction) - residual_values, turn


@dataclass
class FeatureSpace:
    """Samples given by explicit features (P, n, E); elements are weight vectors."""

    features: Tensor

    def combine(self, coefficients: Tensor) -> Tensor:
        return _product(self.features.mT, coefficients)

    def evaluate(self, element: Tensor) -> Tensor:
        return _product(self.features, element)

    def evaluate_near(self, element: Tensor, other: Tensor, other_values: Tensor) -> Tensor:
        return self.evaluate(element)

    def inner(self, first: Tensor, second: Tensor, second_values: Tensor) -> Tensor:
        return (first * second).sum(1)

    def newton(
        self, rows: Tensor, slopes: Tensor, residual: Tensor, residual_values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        direction, turn = self._newton(
            take_rows(self.features, rows), slopes, residual, residual_values.gather(1, rows)
        )
        return direction, self.evaluate(direction), turn

    @staticmethod
    def _newton(chosen: Tensor, slopes: Tensor, residual: Tensor, residual_values: Tensor) -> tuple[Tensor, Tensor]:
        if chosen.shape[1] <= chosen.shape[2]:
            multipliers, turn = _newton_by_samples(chosen @ chosen.mT, slopes, residual_values)
            return _product(chosen.mT, multipliers) - residual, turn
        # Fewer features than samples: their own system is the smaller one.
        hessian = chosen.mT @ (chosen * slopes.to(chosen.dtype)[..., None])
        hessian.diagonal(dim1=1, dim2=2).add_(1)
        mixed = _product(chosen.mT, slopes)
        by_residual, by_mixed = _solve_positive(hessian, torch.stack([residual, mixed], -1)).unbind(-1)
        curvature = (slopes.sum(1) - (mixed * by_mixed).sum(1))[:, None]
        turn = _quotient((mixed * by_residual).sum(1, keepdim=True), curvature)
        return -by_residual - turn * by_mixed, turn


def _newton_by_samples(gram: Tensor, slopes: Tensor, residual_values: Tensor) -> tuple[Tensor, Tensor]:
    """Newton's step by Woodbury's identity: coefficients (P, A) to take from the zone's samples; the intercept's."""
    real = slopes > 0
    columns = with_ones(residual_values) * real[..., None]
    return without_border(_solve_gram(gram, 1 / torch.where(real, slopes, 1), real, columns))


def with_ones(right: Tensor) -> Tensor:
    """A right side (P, A) and, beside it, that of the border: (P, A, 2)."""
    return torch.stack([right, torch.ones_like(right)], -1)


def without_border(solutions: Tensor, total: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
    """From solutions (P, A, 2) of M s = (right, 1), that of [M, 1; 1', 0] (solution, border) = (right, total).

    Returns:
        The solution (P, A), and the border's unknown (P, 1), 0 in a problem without rows.
    """
    by_right, by_one = solutions.unbind(-1)
    border = _quotient(by_right.sum(1, keepdim=True) - total, by_one.sum(1, keepdim=True))
    return by_right - border * by_one, border


def _solve_gram(gram: Tensor, diagonal: Tensor, real: Tensor, right: Tensor) -> Tensor:
    """Solve (gram + diag(diagonal)) s = right, (P, A, m) and 0 where not real, on the real rows and columns; double."""
    gram = gram * (real[:, :, None] & real[:, None, :])
    gram.diagonal(dim1=1, dim2=2).add_(torch.where(real, diagonal, 1).to(gram.dtype))
    return _solve_positive(gram, right)


def _quotient(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Their quotient; 0, with a derivative of 0, where the denominator is not positive."""
    positive = denominator > 0
    return numerator * positive / torch.where(positive, denominator, 1)


def _solve_positive(system: Tensor, right: Tensor) -> Tensor:
    """Solve positive definite systems; rounding that made one indefinite is met with just enough of a ridge.

    The factor is in the system's precision, the right side (P, n, m) and the solution double.
    """
    factor, info = torch.linalg.cholesky_ex(system)
    ridge = torch.finfo(system.dtype).eps * system.diagonal(dim1=1, dim2=2).sum(1)[:, None]
    while bool((info > 0).any()):
        system.diagonal(dim1=1, dim2=2).add_(ridge)
        factor, info = torch.linalg.cholesky_ex(system)
        ridge = ridge * 10
    return torch.cholesky_solve(right.to(factor.dtype), factor).double()


class Samples(Protocol):
    """All N samples of P problems: gives the space of any few of them, and evaluates its elements at all of them."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the samples and of the matrices made from them."""

    def double(self) -> "Samples":
        """The same samples in double precision."""

    def detach(self) -> "Samples":
        """The same samples without a graph."""

    def space(self, rows: Tensor) -> Space:
        """The space of the samples ``rows`` (P, n)."""

    def evaluate(self, rows: Tensor, element: Tensor) -> Tensor:
        """Inner products (P, N) of an element of ``space(rows)`` with all samples."""

    def combine(self, coefficients: Tensor) -> Tensor:
        """The element sum_i coefficients_i phi(x_i) of the space of all samples; coefficients (P, N)."""

    def evaluate_at(self, rows: Tensor, element: Tensor) -> Tensor:
        """Inner products (P, n) of the samples ``rows`` (P, n) with an element of the space of all samples."""

    def solve(self, rows: Tensor, diagonal: Tensor, real: Tensor, right: Tensor) -> Tensor:
        """Solve (M + diag(diagonal)) s = right, M the inner products of few samples, in double precision.

        Args:
            rows: The samples, (P, A).
            diagonal: > 0, (P, A).
            real: Which of them take part, bool (P, A).
            right: (P, A, m), 0 where not real, as the solution is.
        """

    def whole(self, rows: Tensor, element: Tensor) -> Tensor:
        """An element of ``space(rows)`` as one of the space of all samples."""

    def part(self, rows: Tensor, element: Tensor) -> Tensor:
        """An element of the space of all samples as one of ``space(rows)``, as far as that holds it."""


@dataclass
class FeatureSamples:
    """Samples with explicit features (P, N, E)."""

    features: Tensor

    @property
    def dtype(self) -> torch.dtype:
        return self.features.dtype

    def double(self) -> "FeatureSamples":
        return FeatureSamples(self.features.double())

    def detach(self) -> "FeatureSamples":
        return FeatureSamples(self.features.detach())

    def space(self, rows: Tensor) -> FeatureSpace:
        return FeatureSpace(take_rows(self.features, rows))

    def evaluate(self, rows: Tensor, element: Tensor) -> Tensor:
        return _product(self.features, element)

    def combine(self, coefficients: Tensor) -> Tensor:
        return _product(self.features.mT, coefficients)

    def evaluate_at(self, rows: Tensor, element: Tensor) -> Tensor:
        return _product(take_rows(self.features, rows), element)

    def solve(self, rows: Tensor, diagonal: Tensor, real: Tensor, right: Tensor) -> Tensor:
        chosen = take_rows(self.features, rows).double() * real[..., None]
        if chosen.shape[1] <= chosen.shape[2]:
            return _solve_gram(chosen @ chosen.mT, diagonal, real, right)
        # Fewer features than samples: their own system is the smaller one (Woodbury's identity).
        scaled = chosen / diagonal[..., None]
        system = chosen.mT @ scaled
        system.diagonal(dim1=1, dim2=2).add_(1)
        return right / diagonal[..., None] - scaled @ _solve_positive(system, scaled.mT @ right)

    def whole(self, rows: Tensor, element: Tensor) -> Tensor:
        return element

    def part(self, rows: Tensor, element: Tensor) -> Tensor:
        return element


@dataclass
class GaussianSamples:
    """Samples x (P, N, D) under the kernel exp(-gamma |x - z|^2), gamma (P, 1, 1)."""

    x: Tensor
    gamma: Tensor

    @property
    def dtype(self) -> torch.dtype:
        return self.x.dtype

    def double(self) -> "GaussianSamples":
        return GaussianSamples(self.x.double(), self.gamma.double())

    def detach(self) -> "GaussianSamples":
        return GaussianSamples(self.x.detach(), self.gamma.detach())

    def space(self, rows: Tensor) -> KernelSpace:
        chosen = take_rows(self.x, rows)
        return KernelSpace(gaussian_kernel(chosen, chosen, self.gamma))

    def evaluate(self, rows: Tensor, element: Tensor) -> Tensor:
        return self._evaluate(self.x, self.whole(rows, element))

    def combine(self, coefficients: Tensor) -> Tensor:
        return coefficients

    def evaluate_at(self, rows: Tensor, element: Tensor) -> Tensor:
        return self._evaluate(take_rows(self.x, rows), element)

    def _evaluate(self, points: Tensor, element: Tensor) -> Tensor:
        carrying, _ = first_true(element != 0)
        coefficients = element.gather(1, carrying)[..., None].to(self.x.dtype)
        return multiply_by_kernel(points, take_rows(self.x, carrying), self.gamma, coefficients)[..., 0].double()

    def solve(self, rows: Tensor, diagonal: Tensor, real: Tensor, right: Tensor) -> Tensor:
        chosen = take_rows(self.x, rows).double()
        return _solve_gram(gaussian_kernel(chosen, chosen, self.gamma.double()), diagonal, real, right)

    def whole(self, rows: Tensor, element: Tensor) -> Tensor:
        return spread_rows(element, rows, self.x.shape[1])

    def part(self, rows: Tensor, element: Tensor) -> Tensor:
        return element.gather(1, rows)


@dataclass
class Problem:
    """P binary problems over N samples each.

    Attributes:
        targets: (P, N) of +1 and -1.
        costs: (P, N), C times the sample's weight, at least 0; 0 takes a sample out of a problem.
        squared: Squared hinge instead of the hinge.
    """

    targets: Tensor
    costs: Tensor
    squared: bool = False

    def of(self, problems: Tensor) -> "Problem":
        """A few of the problems, by their indices."""
        return Problem(self.targets[problems], self.costs[problems], self.squared)

    def restrict(self, rows: Tensor, real: Tensor) -> "Problem":
        """The problems on the samples ``rows`` (P, n) alone; those not ``real`` (P, n) are padding."""
        return Problem(self.targets.gather(1, rows), self.costs.gather(1, rows) * real, self.squared)

    def theta(self, margins: Tensor, shift: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
        """Dual variables alpha / cost at these margins, and their slopes -d alpha / d margin."""
        if self.squared:
            theta = (2 * (1 - margins)).clamp(min=0)
            return theta, self.costs * 2 * (theta > 0)
        theta = shift + (1 - margins) / width
        return theta.clamp(0, 1), self.costs / width * ((theta > 0) & (theta < 1))

    def loss(self, margins: Tensor) -> Tensor:
        """Loss of each sample at these margins."""
        loss = (1 - margins).clamp(min=0)
        return loss.square() if self.squared else loss

    def primal(self, norm: Tensor, margins: Tensor) -> Tensor:
        """Primal objective (P,), from |w|^2 (P,) and the margins."""
        return norm / 2 + (self.costs * self.loss(margins)).sum(1)

    def dual(self, norm: Tensor, theta: Tensor) -> Tensor:
        """Dual objective (P,); ``norm`` (P,) is |sum_i y_i alpha_i phi(x_i)|^2."""
        return (self.costs * (theta - theta.square() / 4 if self.squared else theta)).sum(1) - norm / 2


@dataclass
class Solution:
    """Solutions of P problems.

    Attributes:
        element: w, (P, E): weights of the features, or the coefficients of an expansion in the samples.
        intercept: (P, 1).
        theta: Dual variables alpha / cost, (P, N).
        objective: Primal objective, (P,).
        gap: Primal minus dual objective, an upper bound on the objective's error, (P,).
        iterations: Newton steps and multiplier updates taken, (P,).
    """

    element: Tensor
    intercept: Tensor
    theta: Tensor
    objective: Tensor
    gap: Tensor
    iterations: Tensor

    def unfinished(self, tol: float) -> Tensor:
        """Which problems' relative gap is above the tolerance, bool (P,)."""
        return ~(self.gap <= tol * self.objective)

    def replace(self, problems: Tensor, better: "Solution") -> None:
        """Put better solutions in the place of those of a few problems; their iterations add up."""
        better = replace(better, iterations=better.iterations + self.iterations[problems])
        for field in fields(self):
            getattr(self, field.name)[problems] = getattr(better, field.name)


def solve_in_parts(
    samples: Callable[[Tensor], Samples], problem: Problem, tol: float = 1e-3, max_iter: int = 1000
) -> Solution:
    """``solve`` for a few problems at a time, as many as the device gains by; ``samples`` gives those of any few.

    A CPU takes as many as their kernel matrices would fit its cache even if every sample carried weight, and a GPU as
    many as would fit its memory.
    """
    number, size = problem.targets.shape
    entries = CACHED_KERNEL_ENTRIES if problem.targets.device.type == "cpu" else KERNEL_ENTRIES
    at_once = max(entries // size**2, 1)
    solutions = []
    for part in torch.arange(number, device=problem.targets.device).split(at_once):
        steps = max_iter if samples(part).dtype == torch.float64 else min(max_iter, SINGLE_PRECISION_STEPS)
        solution = solve(samples(part), problem.of(part), tol, steps)
        hard = solution.unfinished(tol).nonzero()[:, 0]
        if len(hard) and steps < max_iter:
            again = part[hard]
            solution.replace(hard, solve(samples(again).double(), problem.of(again), tol, max_iter - steps))
        solutions.append(solution)
    return Solution(*(torch.cat([getattr(one, field.name) for one in solutions]) for field in fields(Solution)))


def solve(samples: Samples, problem: Problem, tol: float = 1e-3, max_iter: int = 1000) -> Solution:
    """Solve a batch of problems until primal - dual <= tol * primal in each.

    Args:
        samples: The mapped samples.
        problem: What to solve.
        tol: Relative duality gap to reach.
        max_iter: Steps at most; the solution's gap tells whether they sufficed.
    """
    problem = Problem(problem.targets.double(), problem.costs.double(), problem.squared)
    number = problem.targets.shape[1]
    kept, whole = _first_working_set(problem.costs)
    rows, real = first_true(kept)
    part, space = problem.restrict(rows, real), samples.space(rows)
    found = _zero(space, part)
    while True:
        # Until all samples have had their say, more than a rough solution is wasted.
        found = _minimise(space, part, found, tol / 2 if whole else max(tol, ROUGH_TOLERANCE), max_iter)
        theta = spread_rows(found.theta * real, rows, number)
        margins = problem.targets * (samples.evaluate(rows, found.element) + found.intercept)
        # Samples outside the working set add to the primal objective alone: their dual variables are 0.
        outside = (problem.costs * problem.loss(margins) * ~kept).sum(1)
        objective, gap = found.objective + outside, found.gap + outside
        element = samples.whole(rows, found.element)
        unfinished = gap > tol * objective
        if not bool(unfinished.any()) or int(found.iterations.max()) >= max_iter:
            break
        kept, whole = (margins < 1) & (problem.costs > 0) | (kept if whole else theta > 0), True
        rows, real = first_true(kept)
        del space  # its matrix makes room for the next one's
        part, space = problem.restrict(rows, real), samples.space(rows)
        found = replace(found, element=samples.part(rows, element), theta=theta.gather(1, rows) * real)
    return Solution(element, found.intercept, theta, objective, gap, found.iterations)


def _first_working_set(costs: Tensor) -> tuple[Tensor, bool]:
    """A scattered part of the samples, bool (P, N), and whether that is all of them."""
    usable = costs > 0
    number = usable.sum(1, keepdim=True)
    if bool((number <= 2 * FIRST_WORKING_SET).all()):
        return usable, True
    rank = position_hash(usable).argsort(1).argsort(1)
    return usable & (rank < FIRST_WORKING_SET), False


def _zero(space: Space, problem: Problem) -> Solution:
    """The start of everything: w = 0."""
    theta = torch.zeros_like(problem.targets)
    zero = theta.sum(1)
    return Solution(space.combine(theta), zero[:, None], theta, zero, zero, zero.long())


def _minimise(space: Space, problem: Problem, start: Solution, tol: float, max_iter: int) -> Solution:
    """The method of multipliers on one working set."""
    targets, costs = problem.targets, problem.costs
    element, intercept, shift, iterations = start.element, start.intercept, start.theta, start.iterations
    width = torch.where((shift > 0).any(1, keepdim=True), LAST_WIDTH, FIRST_WIDTH).double()
    dual_element = space.combine(torch.zeros_like(shift))
    values, dual_values = space.evaluate(element), space.evaluate(dual_element)
    while True:
        intercept = _best_intercept(problem, values, intercept, shift, width)
        margins = targets * (values + intercept)
        theta, slopes = problem.theta(margins, shift, width)
        before, dual_element = dual_element, space.combine(costs * theta * targets)
        dual_values = space.evaluate_near(dual_element, before, dual_values)
        objective = problem.primal(space.inner(element, element, values), margins)
        gap = objective - problem.dual(space.inner(dual_element, dual_element, dual_values), theta)
        running = gap > tol * objective
        if not bool(running.any()) or int(iterations.max()) >= max_iter:
            return Solution(element, intercept, theta, objective, gap, iterations)
        iterations = iterations + running
        residual, residual_values = element - dual_element, values - dual_values
        if not problem.squared:
            subproblem_gap = space.inner(residual, residual, residual_values) / 2
            # What the multipliers' last move was worth: moving them on the ground of a coarser solution can circle.
            move = (width / 2 * costs * (theta - shift).square()).sum(1)
            settled = running & (subproblem_gap <= SUBPROBLEM_TOLERANCE * torch.minimum(gap, move))
            shift = torch.where(settled[:, None], theta, shift)
            width = torch.where(settled[:, None], (width * WIDTH_FACTOR).clamp(min=LAST_WIDTH), width)
            running = running & ~settled
            if not bool(running.any()):
                continue
        rows, real = first_true((slopes > 0) & running[:, None])
        direction, change, turn = space.newton(rows, slopes.gather(1, rows) * real, residual, residual_values)
        slope, curvature = space.inner(element, direction, change), space.inner(direction, direction, change)
        step = _line_search(problem, margins, targets * (change + turn), slope, curvature, shift, width)
        # A short step: many samples outside the zone were about to enter it, and a wider one has to know of them.
        short = running & (step < SHORT_STEP)
        width = torch.where(short[:, None], (width / WIDTH_FACTOR).clamp(max=FIRST_WIDTH), width)
        step = torch.where(running, step, 0)[:, None]
        element, values, intercept = element + step * direction, values + step * change, intercept + step * turn


@torch.no_grad()
def _line_search(
    problem: Problem, margins: Tensor, change: Tensor, slope: Tensor, curvature: Tensor, shift: Tensor, width: Tensor
) -> Tensor:
    """Step (P,) in [0, 1] that nearly minimises the smoothed objective along the direction."""

    def derivative(step: Tensor) -> Tensor:
        theta, _ = problem.theta(margins + step[:, None] * change, shift, width)
        return slope + step * curvature - (problem.costs * theta * change).sum(1)

    low, high = torch.zeros_like(slope), torch.ones_like(slope)
    falling, rising = derivative(low), derivative(high)
    # Newton's step is nearly always good: only look for a shorter one where the objective rises again before it.
    too_long = rising > 0.1 * falling.abs()
    if not bool(too_long.any()):
        return high
    for turn in range(16):
        # The secant's zero and the middle by turns: the one is quick, the other sure.
        share = (-falling / (rising - falling)).clamp(0.001, 0.999).nan_to_num(0.5) if turn % 2 == 0 else 0.5
        middle = low + share * (high - low)
        value = derivative(middle)
        up = value > 0
        low, falling = torch.where(up, low, middle), torch.where(up, falling, value)
        high, rising = torch.where(up, middle, high), torch.where(up, value, rising)
    return torch.where(too_long, (low + high) / 2, 1)


def _best_intercept(problem: Problem, values: Tensor, intercept: Tensor, shift: Tensor, width: Tensor) -> Tensor:
    """Intercept (P, 1) that minimises the smoothed objective: where sum_i y_i alpha_i, which falls, crosses 0.

    Newton's method inside a bracket; a bracket open to one side is searched by doubling steps.
    """
    targets, costs = problem.targets, problem.costs
    low, high = torch.full_like(intercept, -torch.inf), torch.full_like(intercept, torch.inf)
    stride = torch.ones_like(intercept)
    done = torch.zeros_like(intercept, dtype=torch.bool)
    for _ in range(100):
        theta, slopes = problem.theta(targets * (values + intercept), shift, width)
        alpha = costs * theta
        balance = (alpha * targets).sum(1, keepdim=True)
        done = done | (balance.abs() <= BALANCE_TOLERANCE * alpha.sum(1, keepdim=True))
        low = torch.where(balance > 0, intercept, low)
        high = torch.where(balance < 0, intercept, high)
        total = slopes.sum(1, keepdim=True)
        newton = intercept + _quotient(balance, total)
        inside = (newton > low) & (newton < high) & (total > 0)
        closed = low.isfinite() & high.isfinite()
        fallback = torch.where(closed, (low + high) / 2, intercept + stride * balance.sign())
        stride = torch.where(closed | inside, stride, 2 * stride)
        moved = torch.where(done, intercept, torch.where(inside, newton, fallback))
        done = done | (moved == intercept)
        if bool(done.all()):
            break
        intercept = moved
    return intercept
