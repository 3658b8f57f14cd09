"""Checks of the arguments of an SVM and of its fit."""

import math
from numbers import Integral, Real

import torch
from torch import Tensor

from torch_svm_seg.svm.samples import InnerProducts


def check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Check that an argument is one of several.

    Raises:
        ValueError: It is not.

    Examples:
        >>> check_choice("kernel", "poly", ("linear", "rbf"))
        Traceback (most recent call last):
        ValueError: kernel: expected one of ('linear', 'rbf'), got 'poly'
    """
    if not any(value is choice or (isinstance(value, str) and value == choice) for choice in choices):
        raise ValueError(f"{name}: expected one of {choices}, got {value!r}")


def check_positive(name: str, value: float | Tensor | str, *words: str) -> None:
    """Check that an argument is a finite number > 0, a tensor of one, or one of some words.

    Raises:
        ValueError: It is not.

    Examples:
        >>> check_positive("C", -1.0)
        Traceback (most recent call last):
        ValueError: C: expected a finite number > 0, got -1.0
    """
    number = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
    if not (isinstance(number, Real) and 0 < number < math.inf) and not (isinstance(value, str) and value in words):
        expected = " or ".join(["a finite number > 0", *map(repr, words)])
        raise ValueError(f"{name}: expected {expected}, got {value!r}")


def check_count(name: str, value: int, at_least: int = 1) -> None:
    """Check that an argument is an integer of a smallest value.

    Raises:
        ValueError: It is not.

    Examples:
        >>> check_count("components", 10.0)
        Traceback (most recent call last):
        ValueError: components: expected an integer >= 1, got 10.0
    """
    if not (isinstance(value, Integral) and value >= at_least):
        raise ValueError(f"{name}: expected an integer >= {at_least}, got {value!r}")


def check_seed(value: int) -> None:
    """Check that the argument ``seed`` is an integer of 64 bits.

    Raises:
        ValueError: It is not.

    Examples:
        >>> check_seed(1.5)
        Traceback (most recent call last):
        ValueError: seed: expected an integer of 64 bits, got 1.5
    """
    if not (isinstance(value, Integral) and -(2**63) <= value < 2**63):
        raise ValueError(f"seed: expected an integer of 64 bits, got {value!r}")


def check_tensor(name: str, value: object) -> None:
    """Check that an argument is a tensor.

    Raises:
        ValueError: It is not.

    Examples:
        >>> check_tensor("x", [1.0])
        Traceback (most recent call last):
        ValueError: x: expected a tensor, got list
    """
    if not isinstance(value, Tensor):
        raise ValueError(f"{name}: expected a tensor, got {type(value).__name__}")


def checked_samples(x: Tensor, y: Tensor, sample_weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return the arguments of ``SVM.fit`` in the types it computes with; weights of 1 where none are given.

    Raises:
        ValueError: An argument is not as ``SVM.fit`` documents it.

    Examples:
        >>> x, y, weight = checked_samples(torch.rand(2, 5, 3).half(), torch.ones(2, 5).to(torch.uint8), None)
        >>> x.dtype, y.dtype, tuple(weight.shape)
        (torch.float32, torch.int64, (2, 5))
    """
    x, y = _in_shape(x, y)
    if sample_weight is not None:
        check_tensor("sample_weight", sample_weight)
    weight = torch.ones_like(y, dtype=x.dtype) if sample_weight is None else sample_weight.to(x)
    if weight.shape != y.shape:
        raise ValueError(f"sample_weight: expected {tuple(y.shape)} to match y, got {tuple(weight.shape)}")
    used = (y >= 0) & (weight != 0)
    if not bool((weight[used].isfinite() & (weight[used] > 0)).all()):
        raise ValueError("sample_weight: expected finite weights >= 0, got a negative or non-finite one")
    if bool((y < -1).any()):
        raise ValueError(f"y: expected class ids >= 0, or -1 for padding, got {int(y.min())}")
    _check_values(x, used)
    return x, y, weight


def _in_shape(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    check_tensor("x", x)
    check_tensor("y", y)
    if x.dim() not in (2, 3) or not x.dtype.is_floating_point:
        raise ValueError(f"x: expected floating point (B, N, D) or (N, D), got {x.dtype} {tuple(x.shape)}")
    if 0 in x.shape:
        raise ValueError(f"x: expected at least one image, sample and channel, got {tuple(x.shape)}")
    if y.shape != x.shape[:-1] or y.dtype.is_floating_point or y.dtype.is_complex:
        raise ValueError(f"y: expected integer {tuple(x.shape[:-1])} to match x, got {y.dtype} {tuple(y.shape)}")
    if x.dtype not in (torch.float32, torch.float64):
        x = x.float()  # half precision cannot hold a duality gap
    return x, y.long()  # small types could not be compared with -1


def _check_values(x: Tensor, used: Tensor) -> None:
    spoilt = _images_with(~x.isfinite().all(-1) & used)
    if spoilt:
        raise ValueError(f"x: expected finite samples, got nan or inf in image(s) {spoilt}")
    huge = _images_with(~(torch.linalg.vector_norm(x, dim=-1).square() * x.shape[-2]).isfinite() & used)
    if huge:
        raise ValueError(f"x: expected samples whose squares {x.dtype} can hold, got larger ones in image(s) {huge}")
    empty = _images_with(~used.any(-1, keepdim=True))
    if empty:
        raise ValueError(f"y: expected samples in every image, got none in image(s) {empty}")


def checked_products(products: InnerProducts, x: Tensor) -> InnerProducts:
    """Return inner products, found to be of as many samples as x (B, N, D) and of its type.

    Raises:
        ValueError: They are not.

    Examples:
        >>> from types import SimpleNamespace
        >>> checked_products(SimpleNamespace(squared_norms=torch.ones(1, 4)), torch.rand(1, 5, 2))
        Traceback (most recent call last):
        ValueError: products: expected torch.float32 of (1, 5) samples as x, got torch.float32 of (1, 4)
    """
    found, expected = products.squared_norms, x[..., 0]
    if found.shape != expected.shape or found.dtype != x.dtype:
        raise ValueError(
            f"products: expected {x.dtype} of {tuple(expected.shape)} samples as x, got {found.dtype} of "
            f"{tuple(found.shape)}"
        )
    return products


def _images_with(found: Tensor) -> list[int]:
    """Return the images in which a mask (B, N), or (N,) for a single image, is true anywhere."""
    return [image for image, any_found in enumerate(torch.atleast_2d(found).any(1).tolist()) if any_found]
