"""Scores as NumPy arrays: what scikit-learn and SciPy work on, checked where they come in."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nodelens.errors import InvalidValueError, NonFiniteError, ShapeError, whole

__all__ = [
    "Array",
    "Integers",
    "array",
    "channel_scores",
    "fraction",
    "indices",
    "seeded",
    "whole_numbers",
]

Array = NDArray[np.float64]
Integers = NDArray[np.int64]


def seeded(seed: Any) -> np.random.Generator:
    """Return NumPy's generator of a seed, a whole number from 0 on."""
    return np.random.default_rng(whole("seed", seed, 0))


def fraction(name: str, value: Any) -> float:
    """Return a number above 0 and up to 1; InvalidValueError when it is not one."""
    if not isinstance(value, Real) or not 0 < float(value) <= 1:
        raise InvalidValueError(f"{name} is {value!r}, expected a fraction above 0 and up to 1")
    return float(value)


def array(values: Any, what: str) -> Array:
    """Return tensors, arrays or lists as a float64 array.

    Raises NonFiniteError or, for what are no real numbers, InvalidValueError, with `what` it is.
    """
    if isinstance(values, Tensor) and not values.is_complex():
        values = values.detach().to("cpu", torch.float64).numpy()
    try:
        found = np.asarray(values)
        # NumPy would read text, and drop imaginary parts.
        if found.dtype.kind in "cSU":
            raise TypeError(f"they are of type {found.dtype}")
        found = found.astype(np.float64)
    except (TypeError, ValueError) as failure:
        raise InvalidValueError(f"{what}: expected real numbers: {failure}") from failure
    if bad := int((~np.isfinite(found)).sum()):
        raise NonFiniteError(f"{bad} of {found.size} values of {what} are not finite")
    return found


def channel_scores(values: Any, what: str, channels: int | None = None) -> Array:
    """Return scores `(channels,)`; ShapeError where they have another shape."""
    found = array(values, what)
    if found.ndim != 1 or (channels is not None and len(found) != channels):
        expected = "(channels,)" if channels is None else f"({channels},)"
        raise ShapeError(f"{what} has shape {found.shape}, expected {expected}")
    return found


def whole_numbers(values: Any, what: str, size: int | None = None) -> Integers:
    """Return numbers from 0 on, and below `size`, as int64 of their shape."""
    found = array(values, what)
    wrong = (found != np.floor(found)) | (found < 0) | (found >= (np.inf if size is None else size))
    if wrong.any():
        last = "on" if size is None else f"to {size - 1}"
        raise InvalidValueError(f"{what} holds {found[wrong][0]:g}, expected numbers from 0 {last}")
    return found.astype(np.int64)


def indices(chosen: Any, size: int | None, what: str) -> Integers:
    """Return a mask `(size,)`, or numbers below `size`, as ascending numbers, each once."""
    if isinstance(chosen, Tensor):
        chosen = chosen.detach().cpu().numpy()
    found = np.atleast_1d(np.asarray(chosen))
    if found.dtype == bool:
        if found.shape != (len(found) if size is None else size,):
            raise ShapeError(f"the mask of {what} has shape {found.shape}, expected ({size},)")
        found = np.flatnonzero(found)
    return np.unique(whole_numbers(found, what, size))
