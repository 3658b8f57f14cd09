"""The forms that files of class activation maps come in.

Each has a name, by which ``--cams-form`` asks for it, and a reader that recognises it in what a file holds. A further
form is one more function::

    @form("new", "{ids, heat}", "NewMethod")
    def _new(content: Content) -> Found | None:
        if not {"ids", "heat"} <= content.keys():
            return None
        return foreground(integers(content["ids"]), arrays(content["heat"]))

Some forms look alike and differ in what a number means. Their witness is in the maps: those that are never negative and
sum to 1 at every pixel are probabilities of all classes in an image, the background among them. Where the maps do not
tell, the image-level labels do, or all files of a folder together.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from torch_svm_seg.cam.form import (
    Certainty,
    Choice,
    Content,
    Form,
    Found,
    arrays,
    integer,
    integers,
    stacked,
    sum_to_one,
)
from torch_svm_seg.data.errors import InputError

Reader = Callable[[Content], Found | None]

CAM_FORMS: dict[str, Form] = {}
"""All forms by name, in the order in which they are tried."""

_MAPS = ("high_res", "highres", "attn_highres", "hr_cam", "rw", "cam")
"""Names of maps beside ``keys``, those of the image's size first."""


IF_0_IS_BACKGROUND = {"irn": "irn_background", "psa": "crf", "background_first": "background_first_ids"}
"""Forms whose numbers count from 0 without the background, and those that look alike but count it."""


def form(name: str, keys: str, writers: str) -> Callable[[Reader], Reader]:
    """Register the decorated reader as a form."""

    def register(read: Reader) -> Reader:
        CAM_FORMS[name] = Form(name, keys, writers, read)
        return read

    return register


def known_form(name: str) -> Form:
    """Return a form by its name.

    Raises:
        InputError: There is none.

    Examples:
        >>> known_form("irn").name
        'irn'
    """
    if name not in CAM_FORMS:
        raise InputError(f"--cams-form: expected one of {', '.join(CAM_FORMS)}, got {name!r}")
    return CAM_FORMS[name]


def read_as(content: object, name: str) -> Choice:
    """Read what a file holds in a form.

    Raises:
        ValueError: It is of another form.

    Examples:
        >>> import numpy as np
        >>> read_as({7: np.zeros((4, 6), np.float32)}, "psa").found.ids
        (8,)
    """
    chosen = known_form(name)
    found = chosen.read(content) if isinstance(content, Mapping) else None
    if found is None:
        raise ValueError(f"expected {chosen.keys}, since --cams-form is {name}")
    return Choice(chosen, found)


def numbers_of(content: Content) -> list[int]:
    """Return the numbers by which a file calls its classes.

    Raises:
        TypeError: They are none.

    Examples:
        >>> numbers_of({"keys": [7, 14]}), numbers_of({7: None, 14: None})
        ([7, 14], [7, 14])
    """
    return integers(content["keys"]) if "keys" in content else [integer(key) for key in content]


def foreground(keys: Sequence[int], maps: Sequence[NDArray[Any]], certainty: Certainty = Certainty.SURE) -> Found:
    """Return maps of classes that count from 0 without the background.

    Raises:
        ValueError: There are not as many keys as maps.

    Examples:
        >>> import numpy as np
        >>> foreground([7], [np.zeros((4, 6))]).ids
        (8,)
    """
    _check_number(keys, maps)
    return Found(tuple(key + 1 for key in keys), stacked(maps), certainty)


def with_background(ids: Sequence[int], maps: Sequence[NDArray[Any]]) -> Found:
    """Return maps of classes and the background, id 0; sure if they are probabilities.

    Raises:
        ValueError: There are not as many ids as maps.

    Examples:
        >>> import numpy as np
        >>> with_background([0, 8], [np.zeros((4, 6)), np.ones((4, 6))]).ids
        (0, 8)
    """
    _check_number(ids, maps)
    values = stacked(maps)
    return Found(tuple(ids), values, Certainty.SURE if sum_to_one(values) else Certainty.POSSIBLE)


def _check_number(keys: Sequence[int], maps: Sequence[NDArray[Any]]) -> None:
    if len(keys) != len(maps):
        raise ValueError(f"{len(keys)} keys for {len(maps)} maps")


def _keys_and_maps(content: Content) -> tuple[list[int], list[NDArray[Any]]] | None:
    """Return ``keys`` and the maps beside them; None where there are none."""
    name = next((name for name in _MAPS if content.get(name) is not None), None)
    return None if name is None or "keys" not in content else (integers(content["keys"]), arrays(content[name]))


def _if_zero(keys: Sequence[int]) -> Certainty:
    """Return how certain it is that keys count from 0 without the background: 0 could be the background."""
    return Certainty.LIKELY if 0 in keys else Certainty.SURE


@form("sipe", "{keys, IS_CAM}, keys from 0 with the background", "SIPE")
def _sipe(content: Content) -> Found | None:
    if "keys" not in content or content.get("IS_CAM") is None:
        return None
    keys, maps = integers(content["keys"]), arrays(content["IS_CAM"])
    _check_number(keys, maps)
    return Found(tuple(keys), stacked(maps))


@form(
    "irn",
    "{keys, high_res or cam or attn_highres}, as many keys as maps, from 0 without the background",
    "IRN, AdvCAM, RIB, LPCAM, AFA, ToCo, CLIP-ES, WeCLIP",
)
def _irn(content: Content) -> Found | None:
    found = _keys_and_maps(content)
    if found is None:
        return None
    keys, maps = found
    if len(maps) == len(keys) + 1 or (len(keys) == len(maps) + 1 and keys[0] == 0):
        return None  # of one of the forms below
    return foreground(keys, maps, _if_zero(keys))


@form("irn_background", "{keys, cam}, as many keys as maps, 0 is the background", "AMN")
def _irn_background(content: Content) -> Found | None:
    found = _keys_and_maps(content)
    if found is None or len(found[0]) != len(found[1]) or 0 not in found[0]:
        return None
    return with_background(*found)


@form("padded_keys", "{keys, hr_cam or rw}, one more key than maps: 0, then ids from 1", "PuzzleCAM, CLIMS")
def _padded_keys(content: Content) -> Found | None:
    found = _keys_and_maps(content)
    if found is None or len(found[0]) != len(found[1]) + 1 or found[0][0] != 0:
        return None
    return Found(tuple(found[0][1:]), stacked(found[1]))


@form(
    "background_first",
    "{keys, cam}, one more map than keys: the background, then keys from 0 without it",
    "AMN's heirs",
)
def _background_first(content: Content) -> Found | None:
    found = _keys_and_maps(content)
    if found is None or len(found[0]) + 1 != len(found[1]):
        return None
    read = with_background([0, *(key + 1 for key in found[0])], found[1])
    # Without a 0, keys could count the background.
    return read if 0 in found[0] else replace(read, certainty=min(read.certainty, Certainty.LIKELY))


@form("background_first_ids", "{keys, cam}, one more map than keys: the background, then ids from 1", "AMN's heirs")
def _background_first_ids(content: Content) -> Found | None:
    found = _keys_and_maps(content)
    if found is None or len(found[0]) + 1 != len(found[1]) or 0 in found[0]:
        return None
    return Found((0, *found[0]), stacked(found[1]), Certainty.POSSIBLE)


@form("excel", "{keys_gt, valid_lam}, the first map is the background's, keys from 0 without it", "ExCEL")
def _excel(content: Content) -> Found | None:
    if not {"keys_gt", "valid_lam"} <= content.keys():
        return None
    keys, maps = integers(content["keys_gt"]), arrays(content["valid_lam"])
    keys = keys[1:] if len(keys) == len(maps) and keys[:1] == [0] else [key + 1 for key in keys]
    return Found((0, *keys), stacked(maps)) if len(keys) + 1 == len(maps) else foreground(keys, maps)


@form("fma", "{fg_cls, cam}, from 0 without the background", "FMA-WSSS, as .npz")
def _fma(content: Content) -> Found | None:
    if not {"fg_cls", "cam"} <= content.keys():
        return None
    keys, maps = integers(content["fg_cls"]), arrays(content["cam"])
    if len(keys) + 1 == len(maps):
        return Found((0, *(key + 1 for key in keys)), stacked(maps))
    return foreground(keys, maps)


@form("scores", "{msc_seg}, scores of all classes, the background first", "ToCo, DuPL, SeCo")
def _scores(content: Content) -> Found | None:
    if content.get("msc_seg") is None:
        return None
    maps = stacked(arrays(content["msc_seg"]))
    return Found(tuple(range(len(maps))), maps, are_logits=True)


@form("psa", "{class: map}, classes from 0 without the background", "PSA, SEAM, EPS, L2G, MCTformer, PMM, S2C")
def _psa(content: Content) -> Found | None:
    if any(isinstance(key, str) for key in content):
        return None
    keys = [integer(key) for key in content]
    return foreground(keys, arrays(list(content.values())), _if_zero(keys))


@form("crf", "{0: background, id: map}, ids from 1", "the CRF's output of PSA, SEAM, EPS, PMM, MCTformer, S2C")
def _crf(content: Content) -> Found | None:
    if 0 not in content or any(isinstance(key, str) for key in content):
        return None
    return with_background([integer(key) for key in content], arrays(list(content.values())))
