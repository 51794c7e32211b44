"""What all channels of a layer share at once, in nats: beyond pairs, from one matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from nodelens import Lens, MetricLens
from nodelens.errors import InvalidValueError
from nodelens.metrics.formulas import Dependence, determined_directions, independent_information
from nodelens.model import Layer
from nodelens.statistics import CoMoments, Read

__all__ = ["DualTotalCorrelation", "OInformation", "TotalCorrelation"]

_BIAS = 0.01
"""Nats: a bias above is worth a note."""


class _HigherOrder(MetricLens):
    family = "higher order"
    unit = "nat"
    state = "C^2"
    cost = "C^2"
    minimum_rows = 3
    where = (
        r"$R$ is the correlation matrix of the channels that vary, shrunk to "
        r"$(1 - \varepsilon) R + \varepsilon I$, and $P = R^{-1}$"
    )
    degenerate = (
        "A constant channel scores 0 and is left out of the layer's number, the only channel of a "
        "layer scores 0. Copies, channels that others add up to, and fewer rows than channels make "
        "$R$ singular: the score is finite, but set by the shrinkage, and the notes say so."
    )

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        eps: float = 1e-4,
    ) -> None:
        super().__init__(pattern, layers=layers)
        if not 0 < eps < 1:
            raise InvalidValueError(f"eps is {eps}, expected a number between 0 and 1")
        self.eps = eps

    def reads(self, layer: Layer) -> dict[str, Read]:
        # The inverse makes a thousandfold of the rounding of float32 products.
        return {"values": Read("output", CoMoments, {"precise": True})}

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> dict[str, Tensor]:
        found = Dependence.of(statistics["values"].m2, self.eps)
        return {self.name: found.spread(self._gain(found)), "layer": self._whole(found)}

    def _gain(self, found: Dependence) -> Tensor:
        """By how much the layer's number grows with a channel, `(varying,)`."""
        raise NotImplementedError

    def _whole(self, found: Dependence) -> Tensor:
        """The layer's number, `()`."""
        raise NotImplementedError

    def score_units(self, score: str) -> tuple[str, int]:
        return self.unit, 0 if score.endswith(".layer") else self.importance

    def remarks(self, statistics: Mapping[str, Any], layer: Layer) -> list[str]:
        seen = statistics["values"]
        determined, channels = determined_directions(seen.m2, self.eps)
        remarks = []
        if determined:
            remarks.append(
                f"channels depend on each other in {determined} of {channels} directions "
                f"({seen.rows} rows): what those count for is set by eps={self.eps:g}"
            )
        elif (bias := independent_information(seen.rows, channels)) > _BIAS:
            remarks.append(
                f"{seen.rows} rows are few for {channels} channels: independent ones would give "
                f"{bias:.2g} nats of information with all others"
            )
        return remarks


@Lens.register("total_correlation")
class TotalCorrelation(_HigherOrder):
    """Gaussian mutual information with all other channels at once, `(channels,)`, in nats.

    I(y_i; all others), by which the total correlation of the layer grows with the channel. `.layer`
    is the total correlation itself, the sum of all entropies minus the joint one: a number of the
    layer, 0 for independent channels. The correlations are shrunk by `eps`, as copies would
    otherwise share infinitely much: two of them share 4.26 nats, as in `average_redundancy`.
    """

    importance = -1
    formula = (
        r"\tfrac12 \log\bigl(R_{ii} P_{ii}\bigr), \qquad "
        r"\text{layer: } -\tfrac12 \log \det R"
    )
    paper = (
        "Watanabe (1960), Information theoretical analysis of multivariate correlation, IBM "
        "Journal of Research and Development 4"
    )

    def _gain(self, found: Dependence) -> Tensor:
        return found.about_others

    def _whole(self, found: Dependence) -> Tensor:
        return found.total_correlation


@Lens.register("dual_total_correlation")
class DualTotalCorrelation(_HigherOrder):
    """What a channel shares with each other beyond all the rest, summed, `(channels,)`, in nats.

    The sum over k of I(y_i; y_k | all others), by which the dual total correlation of the layer
    grows with the channel. `.layer` is the dual total correlation, the joint entropy minus what
    every channel has to itself: a number of the layer, 0 for independent channels. The correlations
    are shrunk by `eps` first.
    """

    formula = (
        r"-\tfrac12 \sum_{k \ne i} \log\Bigl(1 - \frac{P_{ik}^2}{P_{ii} P_{kk}}\Bigr), \qquad "
        r"\text{layer: } \tfrac12 \log \det R + \tfrac12 \textstyle\sum_k \log(R_{kk} P_{kk})"
    )
    paper = (
        "Han (1978), Nonnegative entropy measures of multivariate symmetric correlations, "
        "Information and Control 36"
    )

    def _gain(self, found: Dependence) -> Tensor:
        return found.given_the_rest

    def _whole(self, found: Dependence) -> Tensor:
        return found.dual_total_correlation


@Lens.register("o_information")
class OInformation(_HigherOrder):
    """By how much a channel makes its layer more redundant than synergistic, `(channels,)`, nats.

    The change of the layer's O-information when the channel joins: above 0 it repeats what others
    say, below 0 it makes others say more together. `.layer` is the O-information, total minus dual
    total correlation: above 0 where redundancy prevails, below 0 where synergy does, and 0 for
    pairs. The correlations are shrunk by `eps` first.
    """

    importance = -1
    formula = (
        r"\tfrac12 \log\bigl(R_{ii} P_{ii}\bigr) + "
        r"\tfrac12 \sum_{k \ne i} \log\Bigl(1 - \frac{P_{ik}^2}{P_{ii} P_{kk}}\Bigr), \qquad "
        r"\text{layer: } -\log \det R - \tfrac12 \textstyle\sum_k \log(R_{kk} P_{kk})"
    )
    paper = (
        "Rosas et al. (2019), Quantifying high-order interdependencies via multivariate extensions "
        "of the mutual information, Phys. Rev. E 100, 032305; Scagliarini et al. (2023), Gradients "
        "of O-information, Phys. Rev. Research 5, 013025"
    )

    def _gain(self, found: Dependence) -> Tensor:
        return found.about_others - found.given_the_rest

    def _whole(self, found: Dependence) -> Tensor:
        return found.total_correlation - found.dual_total_correlation
