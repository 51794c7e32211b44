"""What the values of a channel are like: size, spread, shape, outliers. State O(C)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nodelens import Lens, MetricLens
from nodelens.errors import InvalidValueError
from nodelens.metrics.formulas import ratio
from nodelens.statistics import (
    AbsoluteMean,
    Extremes,
    Moments,
    NearZero,
    QuantileSketch,
    Read,
)

__all__ = [
    "ActivationKurtosis",
    "ActivationL2Norm",
    "ActivationLens",
    "ActivationMax",
    "ActivationMean",
    "ActivationOutlierIndex",
    "ActivationSparsity",
    "ActivationVariance",
]


class ActivationLens(MetricLens):
    """A metric of the values a layer returns, or with `site="input"` of those it takes in."""

    family = "activation"
    unit = "activation"
    importance = +1

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        site: str = "output",
    ) -> None:
        super().__init__(pattern, layers=layers)
        if site not in ("input", "output"):
            raise InvalidValueError(f"site is {site!r}, expected 'input' or 'output'")
        self.site = site


@Lens.register("activation_mean")
class ActivationMean(ActivationLens):
    """Mean absolute value of every channel, `(channels,)`, in activation units.

    `absolute=False` gives the plain mean.
    """

    formula = r"\tfrac1n \textstyle\sum_r \lvert y_r \rvert"
    degenerate = "A dead channel scores 0."

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        site: str = "output",
        absolute: bool = True,
    ) -> None:
        super().__init__(pattern, layers=layers, site=site)
        self.absolute = absolute

    def reads(self, layer: Any) -> dict[str, Read]:
        return {"values": Read(self.site, AbsoluteMean if self.absolute else Moments)}

    def score(self, statistics: Mapping[str, Any], layer: Any) -> Tensor:
        values = statistics["values"]
        mean: Tensor = values.mean() if self.absolute else values.mean
        return mean


@Lens.register("activation_variance")
class ActivationVariance(ActivationLens):
    """Variance (n - 1) of every channel, `(channels,)`, in squared activation units."""

    unit = "activation^2"
    minimum_rows = 2
    cost = "C"
    formula = r"\tfrac1{n-1} \textstyle\sum_r (y_r - \bar y)^2"
    degenerate = "A constant channel scores 0."
    paper = (
        "merging: Chan, Golub and LeVeque (1979), Updating formulae and a pairwise "
        "algorithm for computing sample variances, Stanford STAN-CS-79-773"
    )

    def reads(self, layer: Any) -> dict[str, Read]:
        return {"values": Read(self.site, Moments)}

    def score(self, statistics: Mapping[str, Any], layer: Any) -> Tensor:
        variance: Tensor = statistics["values"].variance()
        return variance


@Lens.register("activation_l2_norm", aliases=("activation_norm",))
class ActivationL2Norm(ActivationLens):
    """Root mean square of every channel, `(channels,)`, in activation units.

    A mean over rows, so that it does not grow with their number.
    """

    cost = "C"
    formula = r"\sqrt{\tfrac1n \textstyle\sum_r y_r^2}"
    degenerate = "A dead channel scores 0."

    def reads(self, layer: Any) -> dict[str, Read]:
        return {"values": Read(self.site, Moments)}

    def score(self, statistics: Mapping[str, Any], layer: Any) -> Tensor:
        return torch.sqrt(statistics["values"].mean_square())


@Lens.register("activation_max")
class ActivationMax(ActivationLens):
    """Largest absolute value of every channel, `(channels,)`, in activation units."""

    formula = r"\max_r \lvert y_r \rvert"
    degenerate = "A dead channel scores 0."

    def reads(self, layer: Any) -> dict[str, Read]:
        return {"values": Read(self.site, Extremes)}

    def score(self, statistics: Mapping[str, Any], layer: Any) -> Tensor:
        return torch.maximum(statistics["values"].high.abs(), statistics["values"].low.abs())


@Lens.register("activation_sparsity")
class ActivationSparsity(ActivationLens):
    """Fraction of rows in which a channel is at most `eps` in size, `(channels,)`.

    A dead channel scores 1. Layers return values before their activation function: read the
    inputs of the layer behind (`site="input"`) to see what a ReLU silences.
    """

    unit = "fraction of rows"
    importance = -1
    formula = r"\tfrac1n \textstyle\sum_r \bigl[ \lvert y_r \rvert \le \varepsilon \bigr]"
    degenerate = "A dead channel scores 1."

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        site: str = "output",
        eps: float = 0.0,
    ) -> None:
        super().__init__(pattern, layers=layers, site=site)
        if eps < 0:
            raise InvalidValueError(f"eps is {eps}, expected 0 or more")
        self.eps = eps

    def reads(self, layer: Any) -> dict[str, Read]:
        return {"values": Read(self.site, NearZero, {"eps": self.eps})}

    def score(self, statistics: Mapping[str, Any], layer: Any) -> Tensor:
        fraction: Tensor = statistics["values"].fraction()
        return fraction


@Lens.register("activation_kurtosis")
class ActivationKurtosis(ActivationLens):
    """Excess kurtosis of every channel, `(channels,)`, no unit: 0 for a Gaussian.

    Fourth central moment over the squared variance (both with n), minus 3. A constant channel
    scores 0.
    """

    unit = "1"
    importance = 0
    minimum_rows = 2
    cost = "C"
    formula = (
        r"\frac{\frac1n \sum_r (y_r - \bar y)^4}{\bigl(\frac1n \sum_r (y_r - \bar "
        r"y)^2\bigr)^2} - 3"
    )
    degenerate = "A constant channel scores 0."
    paper = (
        "merging: Pébay (2008), Formulas for robust, one-pass parallel computation of "
        "covariances and arbitrary-order statistical moments, Sandia report SAND2008-6212"
    )

    def reads(self, layer: Any) -> dict[str, Read]:
        return {"values": Read(self.site, Moments, {"order": 4})}

    def score(self, statistics: Mapping[str, Any], layer: Any) -> Tensor:
        values = statistics["values"]
        kurtosis = ratio(values.m4 * values.rows, values.m2.square()) - 3
        return torch.where(values.m2 > 0, kurtosis, torch.zeros_like(kurtosis))


@Lens.register("activation_outlier_index")
class ActivationOutlierIndex(ActivationLens):
    """The q-quantile of a channel's absolute values over their mean, `(channels,)`, no unit.

    `q` is from 0 to 1. The quantile comes from a log-spaced sketch and is within 1% of the true
    one (Masson, Rim and Lee 2019). `eps` is added to the mean, in activation units: a dead channel
    scores 0.
    """

    unit = "1"
    cost = "C"
    formula = (
        r"\frac{Q_q\bigl(\lvert y \rvert\bigr)}{\frac1n \sum_r \lvert y_r \rvert + "
        r"\varepsilon}"
    )
    where = "$Q_q$ is the $q$-quantile, to 1%"
    degenerate = "A dead channel scores 0."
    paper = "Masson, Rim and Lee (2019), DDSketch, PVLDB 12(12)"

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        site: str = "output",
        q: float = 0.999,
        eps: float = 1e-8,
    ) -> None:
        super().__init__(pattern, layers=layers, site=site)
        if not 0 <= q <= 1:
            raise InvalidValueError(f"q is {q}, expected a number from 0 to 1")
        self.q = q
        self.eps = eps

    def reads(self, layer: Any) -> dict[str, Read]:
        return {"sizes": Read(self.site, QuantileSketch), "mean": Read(self.site, AbsoluteMean)}

    def score(self, statistics: Mapping[str, Any], layer: Any) -> Tensor:
        mean: Tensor = statistics["mean"].mean()
        quantile: Tensor = statistics["sizes"].quantile(self.q)
        return quantile / (mean + self.eps)
