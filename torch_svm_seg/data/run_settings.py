"""The settings that the results of a run depend on, compared with those of an earlier run."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class RunSettings:
    """Settings by name, in the plain types of JSON.

    Attributes:
        values: All that results depend on.
        defaults: What a name stands for that an earlier run did not record, since its version did not know it.

    Example:
        >>> RunSettings({"C": 1.0, "loss": "hinge"}, {"loss": "hinge"}).changes({"C": 10.0})
        'C was 10.0, now 1.0'
    """

    values: Mapping[str, Any]
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def __or__(self, more: Mapping[str, Any]) -> "RunSettings":
        """Return the settings with further values."""
        return replace(self, values={**self.values, **more})

    def changes(self, before: Mapping[str, Any]) -> str:
        """Return in which settings an earlier run differs; empty if in none."""
        now = json.loads(json.dumps(dict(self.values)))
        before = {**self.defaults, **before}
        changed = [
            f"{name} was {before.get(name)!r}, now {now[name]!r}" for name in now if before.get(name) != now[name]
        ]
        return "; ".join(changed)
