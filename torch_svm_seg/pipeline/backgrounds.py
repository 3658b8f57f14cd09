"""The background that class activation maps lack, by a rule, and maps as activation of an image's pixels."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from torch_svm_seg.cam.activation import ActivationMaps, constant_background, own_background, power_background

Background = Callable[[ActivationMaps], Tensor]
"""Returns the activation of the background, (h, w), of the maps of an image."""


def activation_of(maps: ActivationMaps, background: Background) -> Tensor:
    """Return maps as activation at the image's size.

    Args:
        maps: Of the classes present.
        background: Gives the background's activation.

    Returns:
        Activation of the background and the maps' classes, (n, H, W).

    Raises:
        ValueError: The rule does not suit the maps, or these are not finite.

    Examples:
        >>> maps = ActivationMaps((8,), torch.full((1, 15, 20), 0.5), size=(60, 80))
        >>> activation_of(maps, usual_background).shape
        torch.Size([2, 60, 80])
    """
    if not bool(maps.maps.isfinite().all()):
        raise ValueError("maps: expected finite activation, got nan or inf")
    # At the image's size, the background is that of the coarse maps, interpolated as they are.
    resized = ActivationMaps(maps.classes, maps.maps, maps.size, background(maps)).resized()
    assert resized.background is not None
    return torch.cat([resized.background[None], resized.maps])


@dataclass(frozen=True)
class _Rule:
    """A rule with its number: unlike a lambda, it can be sent to other processes."""

    rule: Callable[[ActivationMaps, float], Tensor]
    value: float

    def __call__(self, maps: ActivationMaps) -> Tensor:
        return self.rule(maps, self.value)


def usual_background(maps: ActivationMaps) -> Tensor:
    """Return the method's own background map, or (1 - the largest activation)^4 where it has none.

    Examples:
        >>> usual_background(ActivationMaps((8,), torch.full((1, 1, 2), 0.5), size=(4, 8)))
        tensor([[0.0625, 0.0625]])
    """
    return power_background(maps, 4) if maps.background is None else own_background(maps)


def background_rule(text: str) -> Background:
    """Return the rule that a command line's ``auto``, ``own``, ``power:EXPONENT`` or ``constant:THRESHOLD`` asks for.

    Raises:
        ValueError: The text is none of these, or the number is out of its range.

    Examples:
        >>> background_rule("constant:0.25")(ActivationMaps((8,), torch.zeros(1, 1, 2), size=(4, 8)))
        tensor([[0.2500, 0.2500]])
    """
    name, _, number = text.partition(":")
    rules: dict[str, Callable[[ActivationMaps, float], Tensor]] = {
        "power": power_background,
        "constant": constant_background,
    }
    if text in ("auto", "own"):
        return usual_background if text == "auto" else own_background
    try:
        rule = _Rule(rules[name], float(number))
    except (KeyError, ValueError) as error:
        raise ValueError(f"expected auto, own, power:EXPONENT or constant:THRESHOLD, got {text!r}") from error
    # Out of its range it would spoil every image.
    if not bool(rule(ActivationMaps((1,), torch.tensor([[[0.0, 1.0]]]), (1, 2))).isfinite().all()):
        raise ValueError(f"expected finite activation from 0 to 1, as powers from 0 on make it, got {text!r}")
    return rule
