"""How much of each unit lies along the directions in which a layer varies most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from nodelens.errors import InvalidValueError
from nodelens.metrics import MetricLens
from nodelens.model import Layer
from nodelens.pruning.registry import register_strategy
from nodelens.pruning.strategies.metric import MetricStrategy
from nodelens.statistics import CoMoments
from nodelens.statistics.read import Read

__all__ = ["Eigenvector", "explained_by_top"]


def explained_by_top(covariance: Tensor, threshold: float) -> Tensor:
    """Return the variance of each unit along the top eigenvectors, `(channels,)`.

    The fewest are taken that hold `threshold` of all variance: sum over them of lambda_k v_ik^2.
    With all of them it would be the variance; 0 where nothing varies.
    """
    values, vectors = torch.linalg.eigh(covariance)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    held = values.cumsum(0)
    top = int((held < threshold * held[-1] * (1 - 1e-12)).sum()) + 1
    explained: Tensor = vectors[:, :top].square() @ values[:top]
    return explained


class _TopVariance(MetricLens):
    """The lens behind the strategy; of an FFN it reads the units themselves."""

    name = "eigenvector"
    unit = "activation^2"
    importance = 1
    minimum_rows = 2
    of_units = True

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def reads(self, layer: Layer) -> dict[str, Read]:
        return {"units": Read("input" if layer.in_ffn else "output", CoMoments)}

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        return explained_by_top(statistics["units"].covariance(), self.threshold)


@register_strategy("eigenvector")
class Eigenvector(MetricStrategy):
    """Variance of a unit along the directions that hold `variance_threshold` of Cov(y)."""

    options: ClassVar[Mapping[str, Any]] = {"variance_threshold": 0.9}
    variance_threshold: float

    def _check(self) -> None:
        super()._check()
        share = self.variance_threshold
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1:
            raise InvalidValueError(
                f"variance_threshold is {share!r}, expected a number above 0, up to 1"
            )
        self.lens = _TopVariance(float(share))
