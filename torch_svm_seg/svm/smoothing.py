"""Problems whose hinge is smoothed around multipliers, as Newton's method needs it."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from torch_svm_seg.svm.problem import Problem

# Width of the smoothing zone, in units of the margin: starts so wide that all samples are inside at w = 0, and narrows
# while the multipliers settle. It never needs to become small: the multipliers, not the width, make the solution exact.
FIRST_WIDTH, LAST_WIDTH, WIDTH_FACTOR = 2.0, 0.05, 0.5


@dataclass(frozen=True)
class Smoothed:
    """P problems with the loss that Newton's method minimises; the squared hinge is smooth as it is.

    Attributes:
        problem: The problems.
        shift: Multipliers, the dual variables that the loss is centred at, (P, n).
        width: Width of the zone where the loss is curved, (P, 1).

    Example:
        >>> problem = Problem(torch.tensor([[1.0, -1.0]]).double(), torch.ones(1, 2).double())
        >>> theta, slopes = Smoothed.around(problem, torch.zeros(1, 2).double()).theta(torch.zeros(1, 2).double())
        >>> theta, slopes
        (tensor([[0.5000, 0.5000]], dtype=torch.float64), tensor([[0.5000, 0.5000]], dtype=torch.float64))
    """

    problem: Problem
    shift: Tensor
    width: Tensor

    @classmethod
    def around(cls, problem: Problem, theta: Tensor) -> "Smoothed":
        """Return problems smoothed around dual variables (P, n): narrowly, unless all of a problem are 0."""
        width = torch.where((theta > 0).any(1, keepdim=True), LAST_WIDTH, FIRST_WIDTH).double()
        return cls(problem, theta, width)

    def theta(self, margins: Tensor) -> tuple[Tensor, Tensor]:
        """Return the dual variables alpha / cost at margins (P, n), and their slopes -d alpha / d margin."""
        return self.problem.theta(margins, self.shift, self.width)

    def moved(self, settled: Tensor, theta: Tensor) -> "Smoothed":
        """Return the settled problems, bool (P,), centred at theta and narrower, the others as they are."""
        narrower = (self.width * WIDTH_FACTOR).clamp(min=LAST_WIDTH)
        chosen = settled[:, None]
        return replace(
            self,
            shift=torch.where(chosen, theta, self.shift),
            width=torch.where(chosen, narrower, self.width),
        )

    def widened(self, problems: Tensor) -> "Smoothed":
        """Return some problems, bool (P,), with a wider zone, the others as they are."""
        wider = (self.width / WIDTH_FACTOR).clamp(max=FIRST_WIDTH)
        return replace(self, width=torch.where(problems[:, None], wider, self.width))

    def worth_of_move(self, theta: Tensor) -> Tensor:
        """Return what moving the multipliers to theta is worth in the objective, (P,)."""
        return (self.width / 2 * self.problem.costs * (theta - self.shift).square()).sum(1)
