"""What the next layer makes of a channel, and scores that weigh it against the channel's own layer.

The next layer is the one called behind it; layers that read one and the same tensor (query, key and
value) stand side by side. `next_layers={"a": "b"}` names another one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from nodelens import Lens, MetricLens
from nodelens.errors import InvalidValueError, nearest
from nodelens.metrics.formulas import (
    correlation,
    gaussian_information,
    mean_partner,
    minmax,
    rayleigh_quotient,
    uniformity,
)
from nodelens.model import Layer, ModelWrapper
from nodelens.statistics import (
    AbsoluteMean,
    CoMoments,
    CrossLayerMoments,
    Read,
    RowNorms,
)

__all__ = [
    "AdaptiveImportance",
    "CrossLayerImportance",
    "CrossLayerRedundancy",
    "LayerTransitionEfficiency",
    "WithinLayerImportance",
]

_NEXT = "$z_j$ are the $C'$ channels of the next layer in the same rows"
_TERMS = (
    r"$\hat{\,\cdot\,}$ brings a term to $[0, 1]$ over the channels of the layer; $R_i$ is the "
    r"mean information with the other channels of the layer, $N_i$ that with those of the next"
)


class _Across(MetricLens):
    """`next_layers` is `{layer: next layer}`, where the order of the pass is not to decide.

    Correlations count as at most 1 - `eps`.
    """

    family = "across"
    importance = +1
    state = "C^2 + C_1 C_2"
    cost = "C^2"
    minimum_rows = 2

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        next_layers: Mapping[str, str] | None = None,
        eps: float = 1e-4,
    ) -> None:
        super().__init__(pattern, layers=layers)
        self.next_layers = dict(next_layers or {})
        self.eps = eps

    def refusal(self, model: ModelWrapper) -> str | None:
        for name in (name for pair in self.next_layers.items() for name in pair):
            if name not in model.layers:
                near = nearest(name, model.layers)
                return f"next_layers names {name!r}, and it has no such layer{near}"
        return super().refusal(model)

    def _next(self, layer: Layer) -> Read:
        beside = self.next_layers.get(layer.name, "next")
        return Read("output", CrossLayerMoments, beside=beside)

    def _downstream(self, seen: CrossLayerMoments) -> Tensor:
        """The mean information with the channels of the next layer, `(channels,)`."""
        parts = [
            gaussian_information(rho.square(), self.eps).mean(1) for rho in seen.correlations()
        ]
        return torch.cat(parts)

    def _within(self, pairs: CoMoments) -> Tensor:
        """The mean information with the other channels of the layer, `(channels,)`."""
        parts = []
        for part in pairs.parts():
            rho = correlation(part.m2, part.squares, part.start)
            information = gaussian_information(rho.square(), self.eps)
            parts.append(mean_partner(information, start=part.start))
        return torch.cat(parts)


@Lens.register("cross_layer_redundancy")
class CrossLayerRedundancy(_Across):
    """Mean Gaussian mutual information with the next layer's channels, `(channels,)`, in nats.

    Over all channels of the next layer, exactly. abs(rho) is clamped to 1 - eps, and the result's
    notes count the pairs. High means that the next layer follows the channel, which argues for it.
    Rows are paired one by one; where the layers have different ones (maps of two sizes, a
    convolution and a linear layer) both are averaged over each sample first. The last layer has no
    next one and is not scored.
    """

    unit = "nat"
    state = "C_1 C_2"
    by_block = True
    formula = r"\frac{1}{C'} \sum_j -\tfrac12 \log\bigl(1 - \rho(y_i, z_j)^2\bigr)"
    where = rf"{_NEXT}; $\lvert\rho\rvert$ is clamped to $1 - \varepsilon$"
    degenerate = "A constant channel scores 0, and a constant channel of the next layer adds 0."
    paper = "Cover and Thomas (2006), Elements of Information Theory, ch. 8"

    def reads(self, layer: Layer) -> dict[str, Read]:
        return {"next": self._next(layer)}

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        return self._downstream(statistics["next"])

    def tally(self, statistics: Mapping[str, Any], layer: Layer) -> dict[str, int]:
        parts = statistics["next"].correlations()
        return {"clamped": sum(int((rho.abs() > 1 - self.eps).sum()) for rho in parts)}

    def told(self, tally: Mapping[str, int]) -> list[str]:
        if not tally["clamped"]:
            return []
        return [
            f"abs(rho) is above 1 - {self.eps:g}, counted as just that, for {tally['clamped']} "
            "pairs of a channel and one of the next layer"
        ]


@Lens.register("layer_transition_efficiency")
class LayerTransitionEfficiency(_Across):
    """Information with the next layer over one plus that within the layer, `(channels,)`, nats.

    High for channels that the next layer follows and that no other channel of the layer repeats.
    The last layer is not scored.
    """

    unit = "nat"
    by_block = True
    formula = r"\frac{N_i}{1 + R_i}"
    where = _TERMS.partition("; ")[2]
    degenerate = "A constant channel scores 0."

    def reads(self, layer: Layer) -> dict[str, Read]:
        return {"next": self._next(layer), "pairs": Read("output", CoMoments)}

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        within = self._within(statistics["pairs"])
        return self._downstream(statistics["next"]) / (1 + within)


class _Weighed(_Across):
    """A weighted sum of terms, each brought to [0, 1] over the channels of its layer."""

    unit = "1"
    degenerate = (
        "A term that is the same for all channels adds 0; a constant channel has no information "
        "with any other."
    )
    defaults: ClassVar[Mapping[str, float]] = {}

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        next_layers: Mapping[str, str] | None = None,
        weights: Mapping[str, float] | None = None,
        eps: float = 1e-4,
    ) -> None:
        super().__init__(pattern, layers=layers, next_layers=next_layers, eps=eps)
        for term in weights or {}:
            if term not in self.defaults:
                raise InvalidValueError(
                    f"weights has {term!r}{nearest(term, self.defaults)}, "
                    f"expected some of {', '.join(self.defaults)}"
                )
        self.weights = {**self.defaults, **(weights or {})}

    def reads(self, layer: Layer) -> dict[str, Read]:
        known = {
            "activation": Read("output", AbsoluteMean),
            "redundancy": Read("output", CoMoments),
            "downstream": self._next(layer),
        }
        return {term: read for term, read in known.items() if term in self.weights}

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        terms = self._terms(statistics)
        return torch.stack([self.weights[k] * minmax(v) for k, v in terms.items()]).sum(0)

    def _terms(self, statistics: Mapping[str, Any]) -> dict[str, Tensor]:
        terms = {
            "activation": statistics["activation"].mean(),
            "redundancy": self._within(statistics["redundancy"]),
        }
        if "downstream" in statistics:
            terms["downstream"] = self._downstream(statistics["downstream"])
        return terms


@Lens.register("within_layer_importance")
class WithinLayerImportance(_Weighed):
    """Active and not repeated by others of the layer: a weighted sum of two terms, `(channels,)`.

    0.6 times the mean absolute activation minus 0.4 times the mean information with the other
    channels, each brought to [0, 1] over the layer; `weights` sets them. Reads one layer alone, so
    the last is scored too.
    """

    state = "C^2"
    defaults: ClassVar[Mapping[str, float]] = {"activation": 0.6, "redundancy": -0.4}
    formula = r"0.6 \, \widehat{\operatorname{E} \lvert y_i \rvert} - 0.4 \, \widehat{R_i}"
    where = _TERMS.partition(", $N_i$")[0]

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        weights: Mapping[str, float] | None = None,
        eps: float = 1e-4,
    ) -> None:
        super().__init__(pattern, layers=layers, weights=weights, eps=eps)


@Lens.register("cross_layer_importance")
class CrossLayerImportance(_Weighed):
    """Aligned, followed by the next layer, active and not repeated, `(channels,)`.

    0.25 times the Rayleigh quotient, plus 0.35 times the mean information with the next layer's
    channels, plus 0.15 times the mean absolute activation, minus 0.25 times the mean information
    with the other channels of the layer, each brought to [0, 1] over the layer; `weights` sets
    them. The last layer is not scored.
    """

    defaults: ClassVar[Mapping[str, float]] = {
        "quotient": 0.25,
        "downstream": 0.35,
        "redundancy": -0.25,
        "activation": 0.15,
    }
    formula = r"""
    0.25 \, \widehat{\frac{w_i^\top S w_i}{w_i^\top w_i}} + 0.35 \, \widehat{N_i}
    - 0.25 \, \widehat{R_i} + 0.15 \, \widehat{\operatorname{E} \lvert y_i \rvert}
    """
    where = f"$S$ is the covariance of the inputs; {_TERMS}"

    def reads(self, layer: Layer) -> dict[str, Read]:
        return {**super().reads(layer), "weights": Read("weight", RowNorms)}

    def _terms(self, statistics: Mapping[str, Any]) -> dict[str, Tensor]:
        pairs, norms = statistics["redundancy"], statistics["weights"]
        variance = pairs.diagonal() / (pairs.rows - 1)
        quotient = rayleigh_quotient(variance, norms.squared, None, norms.width, 0.0)
        return {**super()._terms(statistics), "quotient": quotient}


@Lens.register("adaptive_importance")
class AdaptiveImportance(_Weighed):
    """Active, not repeated, and followed by the next layer where that tells channels apart.

    `(channels,)`: 0.4 times the mean absolute activation minus 0.25 times the mean information with
    the other channels, each brought to [0, 1] over the layer. Where channels are of unlike sizes,
    exp(-sd / mean) of the mean absolute activations below `threshold`, 0.35 times the mean
    information with the next layer's channels is added; the result's notes say where it is not.
    `weights` sets them. The last layer is not scored.
    """

    defaults: ClassVar[Mapping[str, float]] = {
        "activation": 0.4,
        "downstream": 0.35,
        "redundancy": -0.25,
    }
    formula = r"""
    0.4 \, \widehat{\operatorname{E} \lvert y_i \rvert} - 0.25 \, \widehat{R_i}
    + 0.35 \, \widehat{N_i} \, [u < 0.7]
    """
    where = rf"$u = e^{{-s/m}}$ with $m$ and $s$ the mean and standard deviation, over channels, of $\operatorname{{E}} \lvert y_i \rvert$; {_TERMS}"  # noqa: E501

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        next_layers: Mapping[str, str] | None = None,
        weights: Mapping[str, float] | None = None,
        threshold: float = 0.7,
        eps: float = 1e-4,
    ) -> None:
        super().__init__(pattern, layers=layers, next_layers=next_layers, weights=weights, eps=eps)
        self.threshold = threshold

    def remarks(self, statistics: Mapping[str, Any], layer: Layer) -> list[str]:
        even = uniformity(statistics["activation"].mean())
        if even < self.threshold:
            return []
        return [f"channels are of like size ({even:.2f}), so the next layer does not count"]

    def _terms(self, statistics: Mapping[str, Any]) -> dict[str, Tensor]:
        terms = super()._terms(statistics)
        if uniformity(terms["activation"]) >= self.threshold:
            del terms["downstream"]
        return terms
