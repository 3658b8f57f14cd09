"""All that a result comes from: settings, compared with an earlier run's, and a digest of the content of files."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.reading import read_bytes

Value = TypeVar("Value")

_CHECKSUM = "checksum"

Source = Path | str
"""A file, or anything else that a result comes from, as text."""


@dataclass(frozen=True)
class RunSettings:
    """Settings by name, in the plain types of JSON.

    Attributes:
        values: All that results depend on.
        defaults: What a name stands for that an earlier run did not record, since its version did not know it.

    Examples:
        >>> RunSettings({"C": 1.0, "loss": "hinge"}, {"loss": "hinge"}).changes({"C": 10.0})
        'C was 10.0, now 1.0'
    """

    values: Mapping[str, Any]
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def __or__(self, more: Mapping[str, Any]) -> "RunSettings":
        """Return the settings with further values."""
        return replace(self, values={**self.values, **more})

    def with_new(self, name: str, value: Any) -> "RunSettings":
        """Return the settings with a value that an earlier run which did not record it is taken to share.

        Examples:
            >>> RunSettings({"C": 1.0}).with_new("files", "0f3a").changes({"C": 1.0})
            ''
        """
        return replace(self | {name: value}, defaults={**self.defaults, name: value})

    def changes(self, before: Mapping[str, Any]) -> str:
        """Return in which settings an earlier run differs; empty if in none."""
        now = json.loads(json.dumps(dict(self.values)))
        before = {**self.defaults, **before}
        changed = [
            f"{name} was {before.get(name)!r}, now {now[name]!r}" for name in now if before.get(name) != now[name]
        ]
        return "; ".join(changed)


def digest_of(sources: Iterable[Source]) -> str:
    """Return a digest of the content of files, whatever they are called and wherever they lie, and of texts.

    All bytes are read each time: sizes and dates can be kept when a file is changed.

    Raises:
        InputError: A file cannot be read.

    Examples:
        >>> digest_of(["labels [8, 15]"]) == digest_of(["labels [8]"])
        False
    """
    whole = hashlib.sha256()
    for source in sources:
        content = source.encode() if isinstance(source, str) else read_bytes(source)
        whole.update(hashlib.sha256(content).digest())
    return whole.hexdigest()[:32]


def read_with_digest(read: Callable[[], Value], sources: Callable[[], Iterable[Source]]) -> tuple[Value, str]:
    """Return what is read, and the digest of what it is read from.

    The digest is taken first: a file that changes in between has another one the next time.

    Raises:
        InputError: A file cannot be read; by the reader's own words if it fails as well.

    Examples:
        >>> labels, digest = read_with_digest(lambda: [8, 15], lambda: ["labels [8, 15]"])
        >>> labels, digest == digest_of(["labels [8, 15]"])
        ([8, 15], True)
    """
    try:
        digest = digest_of(sources())
    except InputError:
        read()
        raise
    return read(), digest


def with_checksum(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values of JSON with a checksum of all of them, since text has none of its own.

    Examples:
        >>> without_checksum(with_checksum({"images": 2}))
        {'images': 2}
    """
    return {**values, _CHECKSUM: _checksum(values)}


def without_checksum(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values without their checksum; those of earlier versions have none.

    Raises:
        ValueError: Values were changed since.

    Examples:
        >>> without_checksum(with_checksum({"images": 2}) | {"images": 3})
        Traceback (most recent call last):
        ValueError: damaged: its checksum is another one
    """
    rest = {name: value for name, value in values.items() if name != _CHECKSUM}
    if values.get(_CHECKSUM, _checksum(rest)) != _checksum(rest):
        raise ValueError("damaged: its checksum is another one")
    return rest


def _checksum(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
