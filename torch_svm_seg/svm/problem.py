"""Binary problems, in batches: their losses, dual variables and objectives; and their solutions."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import torch
from torch import Tensor

from torch_svm_seg.tensors import dot


@dataclass
class Problem:
    """P binary problems over N samples each.

    Attributes:
        targets: (P, N) of +1 and -1.
        costs: (P, N), C times the sample's weight, at least 0; 0 takes a sample out of a problem.
        squared: Squared hinge instead of the hinge.

    Examples:
        >>> import torch
        >>> problem = Problem(torch.tensor([[1.0, -1.0]]), torch.tensor([[2.0, 2.0]]))
        >>> problem.primal(torch.tensor([1.0]), margins=torch.tensor([[0.5, 3.0]]))
        tensor([1.5000])
    """

    targets: Tensor
    costs: Tensor
    squared: bool = False

    @cached_property
    def signed_costs(self) -> Tensor:
        """The costs times the targets, (P, N)."""
        return self.costs * self.targets

    @cached_property
    def _sides(self) -> Tensor:
        """Which class each sample is of, 0 or 1, (P, N, 2)."""
        return torch.stack([self.targets > 0, self.targets < 0], -1).to(self.costs.dtype)

    def select(self, problems: Tensor) -> "Problem":
        """Return a few of the problems, by their indices."""
        return Problem(self.targets[problems], self.costs[problems], self.squared)

    def restrict(self, rows: Tensor, valid: Tensor) -> "Problem":
        """Return the problems on the samples ``rows`` (P, n) alone; those not ``valid`` (P, n) are padding."""
        return Problem(self.targets.gather(1, rows), self.costs.gather(1, rows) * valid, self.squared)

    def balanced(self, theta: Tensor) -> Tensor:
        """Return dual variables (P, n) where sum_i y_i alpha_i = 0: those of the heavier class made smaller."""
        sums = torch.bmm((self.costs * theta)[:, None], self._sides)
        shares = sums.amin(2, keepdim=True) / sums.clamp(min=torch.finfo(sums.dtype).tiny)
        return theta * torch.bmm(shares, self._sides.mT)[:, 0]

    def loss(self, margins: Tensor) -> Tensor:
        """Return the loss of each sample at these margins."""
        loss = (1 - margins).clamp(min=0)
        return loss.square() if self.squared else loss

    def total_loss(self, margins: Tensor, chosen: Tensor | None = None) -> Tensor:
        """Return the sum (P,) of the costs times the losses of all samples, or of those chosen, bool (P, N)."""
        loss = self.loss(margins)
        return dot(self.costs, loss if chosen is None else loss * chosen)

    def primal(self, squared_norm: Tensor, margins: Tensor) -> Tensor:
        """Return the primal objective (P,), from |w|^2 (P,) and the margins."""
        return torch.add(self.total_loss(margins), squared_norm, alpha=0.5)

    def dual(self, squared_norm: Tensor, theta: Tensor) -> Tensor:
        """Return the dual objective (P,); ``squared_norm`` (P,) is |sum_i y_i alpha_i phi(x_i)|^2."""
        gain = theta - theta.square() / 4 if self.squared else theta
        return torch.sub(dot(self.costs, gain), squared_norm, alpha=0.5)


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

    Examples:
        >>> import torch
        >>> zero, gap = torch.zeros(2, 1), torch.tensor([0.01, 1e-4])
        >>> solution = Solution(zero, zero, zero, torch.ones(2), gap, torch.tensor([7, 12]))
        >>> solution.unfinished(1e-3)
        tensor([ True, False])
    """

    element: Tensor
    intercept: Tensor
    theta: Tensor
    objective: Tensor
    gap: Tensor
    iterations: Tensor

    def unfinished(self, tol: float) -> Tensor:
        """Return which problems' relative gap is above the tolerance, bool (P,)."""
        return ~(self.gap <= tol * self.objective)

    @classmethod
    def joined(cls, parts: Sequence["Solution"]) -> "Solution":
        """Return the solutions of several batches as one."""
        return cls(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def select(self, problems: Tensor) -> "Solution":
        """Return those of a few problems, by their indices."""
        return Solution(*(getattr(self, field.name)[problems] for field in fields(self)))

    def replace(self, problems: Tensor, better: "Solution") -> None:
        """Put better solutions in the place of those of a few problems."""
        for field in fields(self):
            getattr(self, field.name)[problems] = getattr(better, field.name)
