"""The forms that masks of class ids come in, and how they are told apart.

- ``ids``: the stored values are class ids, 255 is no label;
- ``binary``: of two classes, 255 is the object;
- ``colors``: colours of a known palette stand for the classes, whatever ids are stored.

A mask is read as ids unless there is a witness that it is not: every mask of a set of two classes holds only 0 and 255;
an image in colour has only colours of the palette; or the colours that a palette image stores are those of other ids,
which is what programs that optimise images leave.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import ImageFile
from torch import Tensor

from torch_svm_seg.data.constants import VOID
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.io import stored_ids
from torch_svm_seg.data.notes import first_few
from torch_svm_seg.data.palette import voc_palette
from torch_svm_seg.data.reading import PathLike

Colour = tuple[int, int, int]
Colours = Mapping[Colour, int]
"""Class id of each colour of a palette."""


def voc_colours() -> dict[Colour, int]:
    """Return the class ids of the colours of PASCAL VOC, which labelme uses too.

    Examples:
        >>> voc_colours()[64, 0, 0]
        8
    """
    values = voc_palette()
    return {(values[3 * id], values[3 * id + 1], values[3 * id + 2]): id for id in range(256)}


GREYS: Colours = {(value, value, value): value for value in range(256)}
"""The ids of a greyscale mask that a program which optimises images has made a palette image of."""


class StoredMask(NamedTuple):
    """A mask file as it is stored.

    Attributes:
        path: The file, for messages.
        values: Stored values, int64 (H, W); of an image in colour, the numbers of its colours.
        colours: Colour of each value that occurs, by value; empty for greyscale, and for a palette that says no
            more than the values.
        in_colour: Whether the file is an image in colour, without ids.
        mode: Pillow's name of the kind of pixels.
        is_compact: Whether every colour of the palette occurs, as programs that optimise images see to.

    Examples:
        >>> mask = StoredMask("a.png", torch.tensor([[0, 255]]), colours={}, in_colour=False, mode="L")
        >>> mask.values.shape
        torch.Size([1, 2])
    """

    path: PathLike
    values: Tensor
    colours: dict[int, Colour]
    in_colour: bool
    mode: str
    is_compact: bool = False

    @classmethod
    def of(cls, image: ImageFile.ImageFile, path: PathLike, usual: Sequence[int] = ()) -> "StoredMask":
        """Return what a mask opened by :func:`~torch_svm_seg.data.pillow.open_image` stores.

        Args:
            image: The mask.
            path: Its file.
            usual: A palette, red, green and blue by id, whose colours are not listed: they say no more than the ids.
        """
        if image.mode in ("RGB", "RGBA", "LA", "PA"):
            values, colours = _numbered(np.array(image.convert("RGB")))
            return cls(path, values, colours, True, image.mode)
        palette = (image.getpalette("RGB") or []) if image.mode == "P" else []
        values = stored_ids(image, path)
        if not palette or palette == list(usual[: len(palette)]):
            return cls(path, values, {}, False, image.mode)
        triples = list(zip(palette[::3], palette[1::3], palette[2::3], strict=True))
        colours = {id: triples[id] for id in used_values(values) if id < len(triples)}
        return cls(path, values, colours, False, image.mode, set(triples) <= {*colours.values(), (0, 0, 0)})


def as_ids(mask: StoredMask, colours: Colours, number: int) -> Tensor:
    """Return the stored values.

    Raises:
        InputError: The file is an image in colour.

    Examples:
        >>> mask = StoredMask("a.png", torch.tensor([[0, 8, 255]]), colours={}, in_colour=False, mode="L")
        >>> as_ids(mask, voc_colours(), 21).tolist()
        [[0, 8, 255]]
    """
    if mask.in_colour:
        raise InputError(
            f"{mask.path}: a colour image (mode {mask.mode}) is not a mask of class ids; "
            "save ids as a palette or greyscale PNG"
        )
    return mask.values


def as_binary(mask: StoredMask, colours: Colours, number: int) -> Tensor:
    """Return 1 where 255 is stored.

    Raises:
        InputError: Other values than 0 and 255 are stored, or there are more than two classes.

    Examples:
        >>> mask = StoredMask("a.png", torch.tensor([[0, 255]]), colours={}, in_colour=False, mode="L")
        >>> as_binary(mask, {}, 2).tolist()
        [[0, 1]]
    """
    if number != 2:
        raise InputError(f"{mask.path}: masks of 0 and 255 are of two classes, but there are {number}")
    if not only_0_and_255(as_ids(mask, colours, number)):
        raise InputError(f"{mask.path}: expected a mask of 0 and 255, got {first_few(used_values(mask.values))}")
    return (mask.values == VOID).long()


def as_colours(mask: StoredMask, colours: Colours, number: int) -> Tensor:
    """Return the classes that the colours stand for.

    Raises:
        InputError: A colour is none of the palette, or of a class that the data set lacks.

    Examples:
        >>> colours = {0: (0, 0, 0), 1: (64, 0, 0)}
        >>> mask = StoredMask("a.png", torch.tensor([[0, 1]]), colours, in_colour=True, mode="RGB")
        >>> as_colours(mask, voc_colours(), 21).tolist()
        [[0, 8]]
    """
    ids = {value: colours.get(colour, -1) for value, colour in mask.colours.items()}
    strange = next((value for value, id in ids.items() if not (0 <= id < number or id == VOID)), None)
    if strange is not None:
        id = ids[strange]
        found = "none of the known palette" if id < 0 else f"of class {id}, but there are {number}"
        kind = f"a colour image (mode {mask.mode})" if mask.in_colour else "a palette image"
        raise InputError(f"{mask.path}: {kind} is not a mask of class ids: colour {mask.colours[strange]} is {found}")
    if not mask.colours:
        raise InputError(f"{mask.path}: a greyscale image has no colours to tell classes by")
    table = torch.full((max(ids) + 1,), -1)
    table[list(ids)] = torch.tensor(list(ids.values()))
    return table[mask.values]


MASK_FORMS: dict[str, Callable[[StoredMask, Colours, int], Tensor]] = {
    "ids": as_ids,
    "binary": as_binary,
    "colors": as_colours,
}
"""Readers of masks by the name of their form, given the ids of known colours and the number of classes."""


def is_renumbered(mask: StoredMask, colours: Colours, number: int) -> bool:
    """Whether a palette image stores, for the ids it uses, distinct known colours that belong to other ids.

    Examples:
        >>> colours = {0: (0, 0, 0), 1: (64, 0, 0)}  # the second is that of class 8
        >>> mask = StoredMask("a.png", torch.tensor([[0, 1]]), colours, in_colour=False, mode="P")
        >>> is_renumbered(mask, voc_colours(), 21)
        True
    """
    if mask.in_colour or not mask.colours or len(mask.colours) < len(used_values(mask.values)):
        return False
    meant = [colours.get(colour, -1) for colour in mask.colours.values()]
    known = all(0 <= id < number or id == VOID for id in meant) and len(set(meant)) == len(meant)
    return known and meant != list(mask.colours)


def is_renumbered_grey(mask: StoredMask, number: int) -> bool:
    """Whether a palette image stores no colours but greys whose values are class ids, for other ids.

    Black and white do not tell: they may be the colours of two classes.

    Examples:
        >>> greys = {0: (0, 0, 0), 1: (8, 8, 8), 2: (15, 15, 15)}
        >>> mask = StoredMask("a.png", torch.tensor([[0, 1, 2]]), greys, False, mode="P", is_compact=True)
        >>> is_renumbered_grey(mask, 21)
        True
    """
    is_black_and_white = set(mask.colours.values()) <= {(0, 0, 0), (VOID, VOID, VOID)}
    return mask.is_compact and is_renumbered(mask, GREYS, number) and not is_black_and_white


def used_values(values: Tensor) -> list[int]:
    """Return the values that occur in a mask (H, W), ascending; quicker than sorting where they are small.

    Examples:
        >>> import torch
        >>> used_values(torch.tensor([[255, 3], [0, 3]]))
        [0, 3, 255]
    """
    if values.min() < 0 or values.max() > 65535:
        used = values.unique()
    else:
        used = torch.bincount(values.flatten()).nonzero().flatten()
    return [int(value) for value in used]


def only_0_and_255(values: Tensor) -> bool:
    """Whether a mask holds no other values than 0 and 255.

    Examples:
        >>> import torch
        >>> only_0_and_255(torch.tensor([[0, 255], [0, 0]]))
        True
    """
    return bool(((values == 0) | (values == VOID)).all())


def _numbered(pixels: np.ndarray) -> tuple[Tensor, dict[int, Colour]]:
    """Return the colours (H, W, 3) as numbers (H, W), and the colour of each number."""
    codes = pixels.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    used, numbers = np.unique(codes, return_inverse=True)
    colours = {number: (code >> 16, code >> 8 & 255, code & 255) for number, code in enumerate(used.tolist())}
    return torch.from_numpy(numbers.reshape(codes.shape)), colours
