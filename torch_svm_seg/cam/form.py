"""Telling what form a file of class activation maps is of; :mod:`~torch_svm_seg.cam.forms` holds the forms."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torch_svm_seg.data.notes import first_few

Content = Mapping[Any, Any]
"""Content of a file, by name or by class."""

# float16 rounds each of many probabilities that are summed.
_TOLERANCE = 2e-2


class Certainty(IntEnum):
    """The certainty that a file is of a form.

    Attributes:
        POSSIBLE: Only if the image's labels or the user say so.
        LIKELY: Unless they say otherwise.
        SURE: The file itself shows it.

    Examples:
        >>> Certainty.SURE > Certainty.LIKELY
        True
    """

    POSSIBLE = 0
    LIKELY = 1
    SURE = 2


@dataclass(frozen=True)
class Found:
    """Maps of some classes.

    Attributes:
        ids: Class id of each map; 0 is the background.
        maps: Activation, float32 (classes, h, w).
        certainty: How certain it is that the file is of the form it was read in.
        are_logits: Whether the maps are scores of which a softmax makes probabilities.

    Examples:
        >>> Found((0, 8), torch.zeros(2, 4, 6)).classes
        frozenset({8})
    """

    ids: tuple[int, ...]
    maps: Tensor
    certainty: Certainty = Certainty.SURE
    are_logits: bool = False

    @property
    def classes(self) -> frozenset[int]:
        """The ids without the background."""
        return frozenset(self.ids) - {0}


class Form(NamedTuple):
    """A form of files of class activation maps.

    Attributes:
        name: Name for ``--cams-form``.
        keys: What a file holds.
        writers: Methods whose code writes it.
        read: Returns the maps; None where the content is of another form. Raises ValueError or TypeError where it is of
            this form but makes no sense.

    Examples:
        >>> form = Form("heat", "{ids, heat}", "NewMethod", lambda content: None)
        >>> form.read({"cam": 1}) is None
        True
    """

    name: str
    keys: str
    writers: str
    read: Callable[[Content], Found | None]


class Choice(NamedTuple):
    """The form that a file is taken to be of.

    Attributes:
        form: The form.
        found: The maps.
        is_doubtful: Whether the file could be of another form, in which its maps are of other classes.

    Examples:
        >>> form = Form("heat", "{ids, heat}", "NewMethod", lambda content: None)
        >>> Choice(form, Found((8,), torch.zeros(1, 4, 6))).is_doubtful
        False
    """

    form: Form
    found: Found
    is_doubtful: bool = False


def choose(
    content: object, forms: Mapping[str, Form], labels: Collection[int] | None = None, number: int = 256
) -> Choice:
    """Tell what form a file is of.

    Args:
        content: What the file holds.
        forms: Forms to choose from, by name.
        labels: Ids of the classes that its image shows, if they are known.
        number: Number of classes, background included: a form in which ids exceed it is none.

    Raises:
        ValueError: The content is of no known form, makes no sense, or is of other classes than the labels in each
            form that it can be of.
        TypeError: It makes no sense.

    Examples:
        >>> from torch_svm_seg.cam.forms import CAM_FORMS
        >>> choice = choose({"keys": np.array([7]), "high_res": np.zeros((1, 4, 6))}, CAM_FORMS)
        >>> choice.form.name, choice.found.ids
        ('irn', (8,))
    """
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"holds a {type(content).__name__}")
    fitting = [Choice(form, found) for form in forms.values() if (found := form.read(content)) is not None]
    if not fitting:
        if "keys" in content and not len(content["keys"]):
            raise ValueError("no class in it")
        keys = first_few(map(repr, content), 8)
        raise ValueError(f"by key or class {keys}; expected one of the forms of docs/files.md")
    possible = [choice for choice in fitting if max(choice.found.ids, default=0) < number]
    if len(possible) == 1 < len(fitting) and labels is None:
        return possible[0]
    best = max(possible or fitting, key=lambda choice: choice.found.certainty)
    if labels is not None:
        return _of_labels([best, *fitting], frozenset(labels))
    if best.found.certainty is Certainty.POSSIBLE:
        number, maps = len(content.get("keys", content)), len(best.found.maps)
        raise ValueError(f"{number} keys for {maps} maps; say what they are by --cams-form {best.form.name}")
    others = {choice.found.ids for choice in fitting} - {best.found.ids}
    return best._replace(is_doubtful=best.found.certainty is not Certainty.SURE and bool(others))


def _of_labels(choices: Sequence[Choice], labels: frozenset[int]) -> Choice:
    """Return the form in which the maps are of the labelled classes: of these, or else of more, or of fewer.

    Raises:
        ValueError: In each form, a labelled class has no map, and a map is of a class that is not labelled.
    """
    for fits in (labels.__eq__, labels.__lt__, labels.__gt__):
        for choice in choices:
            if choice.found.classes and fits(choice.found.classes):
                return choice
    form, found, _ = choices[0]
    raise ValueError(
        f"of the class ids {first_few(sorted(found.classes), 8)}, read as --cams-form {form.name}, but the image is "
        f"labelled {first_few(sorted(labels), 8)}"
    )


def integers(values: object) -> list[int]:
    """Return whole numbers, of an array or a list of them.

    Raises:
        TypeError: A value is none.

    Examples:
        >>> integers(np.array([7, 14]))
        [7, 14]
    """
    return [integer(value) for value in array(values).reshape(-1)]


def integer(value: Any) -> int:
    """Return a whole number as an int.

    Raises:
        TypeError: It is none.

    Examples:
        >>> integer(np.int64(7))
        7
    """
    if isinstance(value, bool | np.bool_ | str | bytes) or not np.isfinite(value) or int(value) != value:
        raise TypeError(f"class {value!r}")
    return int(value)


def array(values: object) -> NDArray[Any]:
    """Return an array of what a file holds in its place.

    Raises:
        TypeError: It is neither an array, a tensor nor a list.

    Examples:
        >>> array([1, 2]).shape
        (2,)
    """
    if isinstance(values, Tensor):
        if values.layout != torch.strided or values.is_quantized:
            raise TypeError(f"a {values.layout} tensor in place of an array")
        values = values.detach()
        numbers: NDArray[Any] = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
        return numbers
    if isinstance(values, list | tuple | np.ndarray):
        return np.asarray(values)
    raise TypeError(f"a {type(values).__name__} in place of an array")


def arrays(values: object) -> list[NDArray[Any]]:
    """Return the maps, each (h, w), of an array (C, h, w), of a single map (h, w), or of a list of maps.

    Examples:
        >>> len(arrays(np.zeros((2, 4, 6))))
        2
    """
    if isinstance(values, list | tuple):
        return [array(map) for map in values]
    found = array(values)
    found = found[0] if found.ndim == 4 and len(found) == 1 else found
    return [found] if found.ndim == 2 else list(found)


def stacked(maps: Sequence[NDArray[Any]]) -> Tensor:
    """Return maps (h, w) of one size as float32 (C, h, w).

    Raises:
        ValueError: There are none, or they are no maps of one size.

    Examples:
        >>> stacked([np.zeros((4, 6)), np.ones((4, 6))]).shape
        torch.Size([2, 4, 6])
    """
    if not maps:
        raise ValueError("no class in it")
    shapes = {map.shape for map in maps}
    if len(shapes) > 1 or any(len(shape) != 2 or 0 in shape for shape in shapes):
        raise ValueError(f"maps of shapes {first_few(shapes)}, expected (h, w)")
    return torch.from_numpy(np.stack(maps).astype(np.float32))


def sum_to_one(maps: Tensor) -> bool:
    """Whether maps (C, h, w) are probabilities: of at least two classes, not negative, with a sum of 1 everywhere.

    Examples:
        >>> sum_to_one(torch.full((2, 4, 6), 0.5))
        True
    """
    return len(maps) > 1 and bool(maps.min() >= 0) and bool(((maps.sum(0) - 1).abs() < _TOLERANCE).all())
