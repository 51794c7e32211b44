"""How evenly the channels of a layer are used."""

from __future__ import annotations

import math

from torch import Tensor

__all__ = ["uniformity"]


def uniformity(sizes: Tensor) -> float:
    """Return exp(-sd / mean) of the channels' mean absolute values, in [0, 1].

    1 where all are of one size, or dead; one channel alone has no spread.
    """
    mean = float(sizes.mean())
    if mean == 0 or len(sizes) < 2:
        return 1.0
    return math.exp(-float(sizes.std()) / mean)
