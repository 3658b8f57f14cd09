"""Content of a dot plot: one row per method with several marks, on one scale from 0 or more to 100 percent.

Positions are percentages of the row's width, so that the plot fills any width and its text keeps its size.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

DISC, CROSS, DIAMOND = (
    "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0",
    "M-4.5-4.5L4.5 4.5M-4.5 4.5L4.5-4.5",
    "M0-6.5L6.5 0L0 6.5L-6.5 0Z",
)


@dataclass(frozen=True)
class MarkKind:
    """A kind of mark.

    Attributes:
        style: Its class in the style sheet.
        path: Its outline around (0, 0), as SVG.
        height: Its position in the row, so that marks of one value do not hide each other.

    Examples:
        >>> MarkKind("mask", "M0 0h4v4h-4z").height
        '50%'
    """

    style: str
    path: str
    height: str = "50%"


@dataclass(frozen=True)
class DotRow:
    """A row of the plot.

    Attributes:
        name: Name of the method.
        small_print: Source of the figures.
        marks: The figures in percent with their kinds; later ones lie above.
        figures: The same in words.
    """

    name: str
    small_print: str
    marks: Sequence[tuple[MarkKind, float]]
    figures: str


@dataclass(frozen=True)
class Scale:
    """The plot's scale, which ends at 100 percent.

    Attributes:
        low: Its start, in percent.

    Examples:
        >>> scale = Scale.of([63.5, 98.1])
        >>> scale.low, scale.ticks, scale.x(80.0)
        (60, [60, 70, 80, 90, 100], '50.00%')
    """

    low: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Scale":
        """Return the scale that starts at the ten below the smallest value."""
        smallest = min((value for value in values if not math.isnan(value)), default=0)
        return cls(10 * min(9, math.floor(smallest / 10)))

    @property
    def ticks(self) -> list[int]:
        """The marked values, in percent."""
        return [tick for tick in range(0, 101, 10 if self.low >= 40 else 20) if tick >= self.low]

    def x(self, value: float) -> str:
        """Return the position of a value in the row."""
        return f"{100 * (value - self.low) / (100 - self.low):.2f}%"


@dataclass(frozen=True)
class DotPlot:
    """A plot.

    Attributes:
        legend: Meaning of each kind of mark.
        groups: Heading -> rows.

    Examples:
        >>> disc = MarkKind("masks", DISC)
        >>> row = DotRow("IRN", "Ahn et al., CVPR 2019", [(disc, 66.5)], "masks 66.5")
        >>> DotPlot({"pseudo masks": disc}, {"Published": [row]}).scale.ticks
        [60, 70, 80, 90, 100]
    """

    legend: Mapping[str, MarkKind]
    groups: Mapping[str, Sequence[DotRow]]

    @property
    def scale(self) -> Scale:
        """The scale that fits all rows."""
        return Scale.of(value for rows in self.groups.values() for row in rows for _, value in row.marks)
