"""Would any sources of that number have such a halo? Clusters are drawn anew to find out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nodelens.analysis.arrays import Array

__all__ = ["Contrast", "contrast", "halo_mask", "shares"]

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Contrast:
    """A number of a halo beside those of halos of randomly drawn sources.

    `p_greater` is (r + 1) / (n + 1), r of n random halos having at least as much, `p_value` is two
    sided. `z` is 0 where the random ones are all the same.
    """

    observed: float
    null_mean: float
    null_std: float
    p_greater: float
    p_value: float
    permutations: int

    @property
    def z(self) -> float:
        """Return how many of the null's standard deviations the observed number is above it."""
        return (self.observed - self.null_mean) / self.null_std if self.null_std > 0 else 0.0


def contrast(observed: float, null: Array) -> Contrast:
    """Return an observed number beside those of the null, `(permutations,)`."""
    slack = _ROUNDING * max(abs(observed), float(np.abs(null).max()))
    above = _p_value(int((null >= observed - slack).sum()), len(null))
    below = _p_value(int((null <= observed + slack).sum()), len(null))
    spread = float(null.std())
    return Contrast(
        observed,
        float(null.mean()),
        spread if spread > slack else 0.0,
        above,
        min(1.0, 2 * min(above, below)),
        len(null),
    )


def shares(influence: Array, members: Array) -> Array:
    """Return the share of each target's influence that members hold, `(targets, sets)`.

    `members` `(sources, sets)` holds 1 for a source that belongs to a set. A target that nothing
    reaches has 0.
    """
    total = influence.sum(1, keepdims=True)
    held = influence @ members
    found: Array = np.divide(held, total, out=np.zeros_like(held), where=total > 0)
    return found


def halo_mask(relative: Array, percentile: float) -> NDArray[np.bool_]:
    """Return who is at or above the percentile of each set, and above 0, `(targets, sets)`."""
    edge = np.percentile(relative, percentile, axis=0)
    # The percentile is interpolated, and may miss by a bit the value it falls upon.
    found: NDArray[np.bool_] = (relative >= edge * (1 - _ROUNDING)) & (relative > 0)
    return found


def _p_value(reached: int, drawn: int) -> float:
    return (reached + 1) / (drawn + 1)
