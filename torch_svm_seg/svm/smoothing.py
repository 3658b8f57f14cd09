"""Problems whose loss is smooth, as Newton's method needs it: the hinge smoothed around multipliers, or its square."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from torch_svm_seg.svm.problem import Problem
from torch_svm_seg.tensors import dot

# Width of the smoothing zone, in units of the margin: starts so wide that all samples are inside at w = 0, and narrows
# while the multipliers settle. It never needs to become small: the multipliers, not the width, make the solution exact.
FIRST_WIDTH, LAST_WIDTH, WIDTH_FACTOR = 2.0, 0.05, 0.5
# The width with which the squared hinge, smooth as it is, has theta = 2 (1 - m).
SQUARED_WIDTH = 0.5


@dataclass(frozen=True)
class Smoothed:
    """P problems with the loss that Newton's method minimises.

    Dual variables are ramps of the margins m, clamped at 0 and, for the hinge, at 1:

        theta = clamp(ramp),    ramp = shift + (1 - m) / width.

    Attributes:
        problem: The problems.
        shift: Multipliers, the dual variables that the loss is centred at, (P, n); 0 for the squared hinge.
        width: Width of the zone where the loss is curved, (P, 1); 1/2 for the squared hinge.

    Examples:
        >>> problem = Problem(torch.tensor([[1.0, -1.0]]).double(), torch.ones(1, 2).double())
        >>> smoothed = Smoothed.around(problem, torch.zeros(1, 2).double())
        >>> smoothed.theta(smoothed.ramp(torch.zeros(1, 2).double()))
        tensor([[0.5000, 0.5000]], dtype=torch.float64)
    """

    problem: Problem
    shift: Tensor
    width: Tensor

    @classmethod
    def around(cls, problem: Problem, theta: Tensor) -> "Smoothed":
        """Return problems smoothed around dual variables (P, n): narrowly, unless all of a problem are 0."""
        if problem.squared:
            return cls(problem, torch.zeros_like(theta), torch.full_like(theta[:, :1], SQUARED_WIDTH))
        width = torch.where((theta > 0).any(1, keepdim=True), LAST_WIDTH, FIRST_WIDTH).double()
        return cls(problem, theta, width)

    def ramp(self, margins: Tensor) -> Tensor:
        """Return the dual variables at margins (P, n) before they are clamped."""
        return torch.addcdiv(self.shift, 1 - margins, self.width)

    def theta(self, ramp: Tensor) -> Tensor:
        """Return the dual variables alpha / cost, of any shape, from what they are before they are clamped."""
        return ramp.clamp(min=0) if self.problem.squared else ramp.clamp(0, 1)

    def slopes(self, ramp: Tensor, theta: Tensor) -> Tensor:
        """Return the slopes -d alpha / d margin, (P, n): not 0 in the zone alone, where theta is not clamped."""
        return self.problem.costs / self.width * (ramp == theta)

    def moved(self, settled: Tensor, theta: Tensor) -> "Smoothed":
        """Return the settled problems, bool (P, 1), centred at theta and narrower, the others as they are."""
        narrower = (self.width * WIDTH_FACTOR).clamp(min=LAST_WIDTH)
        shift, width = torch.where(settled, theta, self.shift), torch.where(settled, narrower, self.width)
        return replace(self, shift=shift, width=width)

    def widened(self, problems: Tensor) -> "Smoothed":
        """Return some problems, bool (P, 1), with a wider zone, the others as they are."""
        if self.problem.squared:
            return self
        wider = (self.width / WIDTH_FACTOR).clamp(max=FIRST_WIDTH)
        return replace(self, width=torch.where(problems, wider, self.width))

    def worth_of_move(self, theta: Tensor) -> Tensor:
        """Return twice what moving the multipliers to theta is worth in the objective, (P,)."""
        return self.width[:, 0] * dot(self.problem.costs, (theta - self.shift).square())
