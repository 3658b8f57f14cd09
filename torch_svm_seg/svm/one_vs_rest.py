"""The binary problems that make one classifier of several classes, for a batch of images."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class OneVsRest:
    """The P binary problems, each class against the rest, of B images with K classes between them.

    An image's only class needs none, and two classes need one: the other's solution is its negative.

    Attributes:
        present: Which classes an image has, bool (B, K).
        image: The image of each problem, (P,).
        index: The class of each problem, as an index into the K, (P,).

    Examples:
        >>> problems = OneVsRest.of(torch.tensor([[True, True, True], [True, False, True], [False, True, False]]))
        >>> problems.image.tolist(), problems.index.tolist()
        ([0, 0, 0, 1], [0, 1, 2, 0])
    """

    present: Tensor
    image: Tensor
    index: Tensor

    @classmethod
    def of(cls, present: Tensor) -> "OneVsRest":
        """Return the problems of images that have the classes ``present``, bool (B, K)."""
        number = present.sum(1, keepdim=True)
        first_of_two = (number == 2) & (present.cumsum(1) == 1)
        image, index = (present & ((number > 2) | first_of_two)).nonzero(as_tuple=True)
        return cls(present, image, index)

    def targets(self, y: Tensor, classes: Tensor) -> Tensor:
        """Return +1 for a problem's class and -1 for the rest, (P, N), from class ids (B, N) and those of the K."""
        return torch.where(y[self.image] == classes[self.index][:, None], 1.0, -1.0)

    def by_class(self, values: Tensor, sign: int = 1) -> Tensor:
        """Return values (P, E) as (B, K, E): 0 where there is no problem, ``sign`` times the first's for a second."""
        result = values.new_zeros(*self.present.shape, values.shape[1])
        result[self.image, self.index] = values
        second_of_two = (self.present.sum(1, keepdim=True) == 2) & (self.present.cumsum(1) == 2) & self.present
        return torch.where(second_of_two[..., None], sign * result.sum(1, keepdim=True), result)

    def planes(self, element: Tensor, intercept: Tensor) -> tuple[Tensor, Tensor]:
        """Return elements (B, E, K) and intercepts (B, 1, K) of all classes from those (P, E) and (P, 1) of problems.

        The intercept is -inf for a class that an image does not have, and 1 for its only class.
        """
        joined = self.by_class(torch.cat([element, intercept], 1), sign=-1).mT
        elements, intercepts = joined.tensor_split((-1,), dim=1)
        intercepts = intercepts + torch.where(self.present, 0.0, -torch.inf)[:, None]
        return elements, torch.where(self.present.sum(1)[:, None, None] > 1, intercepts, intercepts + 1)

    def facts(self, values: Tensor) -> Tensor:
        """Return floating point values (P,) as (B, K); nan where an image does not have the class or has no other."""
        solved = self.present & (self.present.sum(1, keepdim=True) > 1)
        return torch.where(solved, self.by_class(values[:, None])[..., 0], torch.nan)
