"""Scores as NumPy arrays: what scikit-learn and SciPy work on, checked where they come in."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nodelens.errors import InvalidValueError, NonFiniteError, ShapeError

__all__ = ["Array", "Integers", "array", "channel_scores", "indices"]

Array = NDArray[np.float64]
Integers = NDArray[np.int64]


def array(values: Any, what: str) -> Array:
    """Return tensors, arrays or lists as a float64 array; NonFiniteError names `what`."""
    if isinstance(values, Tensor):
        values = values.detach().to("cpu", torch.float64).numpy()
    found = np.asarray(values, dtype=np.float64)
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


def indices(chosen: Any, size: int, what: str) -> Integers:
    """Return a mask `(size,)`, or numbers, as ascending numbers from 0 to size - 1."""
    if isinstance(chosen, Tensor):
        chosen = chosen.detach().cpu().numpy()
    found = np.asarray(chosen)
    if found.dtype == bool:
        if found.shape != (size,):
            raise ShapeError(f"the mask of {what} has shape {found.shape}, expected ({size},)")
        found = np.flatnonzero(found)
    numbers = np.unique(found.astype(np.int64))
    if len(numbers) and not 0 <= numbers[0] <= numbers[-1] < size:
        wrong = numbers[0] if numbers[0] < 0 else numbers[-1]
        raise InvalidValueError(f"{what} holds {wrong}, expected numbers from 0 to {size - 1}")
    return numbers
