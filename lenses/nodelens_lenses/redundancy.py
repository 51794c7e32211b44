"""How far a channel repeats what others of its layer say. One matrix product a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nodelens import Lens, MetricLens
from nodelens.errors import InvalidValueError
from nodelens.metrics.formulas import (
    clamped_pairs,
    correlation,
    drawn_clamped_pairs,
    drawn_partners,
    gaussian_information,
    mean_drawn_partner,
    mean_partner,
    nearest_partners,
    partner_draws,
    ratio,
)
from nodelens.model import Layer
from nodelens.statistics import CoMoments, PartnerMoments, Read

__all__ = [
    "AverageRedundancy",
    "LayerRedundancy",
    "NodeRedundancy",
    "PairwiseRedundancyGaussian",
]

_PARTNERS = ("all", "nearest", "random")
_CLAMPED = r"$\lvert\rho\rvert$ is clamped to $1 - \varepsilon$"
_COPIES = (
    r"Exact copies count as $\lvert\rho\rvert = 1 - \varepsilon$; the result's notes say how many "
    "pairs."
)
_BOOK = "Cover and Thomas (2006), Elements of Information Theory, ch. 8"


class _Redundancy(MetricLens):
    """`site="input"` looks at what the layer takes in. abs(rho) is clamped to 1 - `eps`."""

    family = "redundancy"
    unit = "nat"
    importance = -1
    state = "C^2"
    minimum_rows = 2
    by_block = True

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        site: str = "output",
        eps: float = 1e-4,
    ) -> None:
        super().__init__(pattern, layers=layers)
        if site not in ("input", "output"):
            raise InvalidValueError(f"site is {site!r}, expected 'input' or 'output'")
        self.site = site
        self.eps = eps

    def reads(self, layer: Layer) -> dict[str, Read]:
        return {"values": Read(self.site, CoMoments)}

    def tally(self, statistics: Mapping[str, Any], layer: Layer) -> dict[str, int]:
        clamped = (
            clamped_pairs(rho, self.eps, start)
            for rho, start in _correlations(statistics["values"])
        )
        return {"clamped": sum(clamped)}

    def told(self, tally: Mapping[str, int]) -> list[str]:
        pairs = tally["clamped"]
        if not pairs:
            return []
        have = "1 pair of channels has" if pairs == 1 else f"{pairs} pairs of channels have"
        return [f"{have} abs(rho) above 1 - {self.eps:g}, counted as just that"]


class _Sampled(_Redundancy):
    """Means over all partners, or over `max_channels` drawn by seed where C^2 does not fit."""

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        site: str = "output",
        eps: float = 1e-4,
        max_channels: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(pattern, layers=layers, site=site, eps=eps)
        if max_channels is not None and max_channels < 2:
            raise InvalidValueError(f"max_channels is {max_channels}, expected 2 or more, or None")
        self.max_channels = max_channels
        self.seed = seed

    def reads(self, layer: Layer) -> dict[str, Read]:
        size = layer.channels if self.site == "output" else layer.inputs
        if self.max_channels is None or size <= self.max_channels:
            return super().reads(layer)
        drawn = {"count": self.max_channels, "seed": self.seed}
        return {"values": Read(self.site, PartnerMoments, drawn)}

    def tally(self, statistics: Mapping[str, Any], layer: Layer) -> dict[str, int]:
        seen = statistics["values"]
        if isinstance(seen, CoMoments):
            return super().tally(statistics, layer)
        clamped = drawn_clamped_pairs(_drawn_correlation(seen), seen.partners(), self.eps)
        return {"clamped": clamped, "drawn": len(seen.m2), "channels": len(seen.mean)}

    def told(self, tally: Mapping[str, int]) -> list[str]:
        if "drawn" not in tally:
            return super().told(tally)
        drawn = (
            f"partners are {tally['drawn']} of {tally['channels']} channels, drawn with seed "
            f"{self.seed}: max_channels={self.max_channels}"
        )
        return [drawn, *super().told(tally)]

    def _means(self, statistics: Mapping[str, Any]) -> Tensor:
        """The mean over partners of every channel, `(channels,)` or a block's."""
        seen = statistics["values"]
        if isinstance(seen, PartnerMoments):
            return mean_drawn_partner(self._of_pair(_drawn_correlation(seen)), seen.partners())
        scores = [
            mean_partner(self._of_pair(rho), start=start) for rho, start in _correlations(seen)
        ]
        return torch.cat(scores)

    def _of_pair(self, rho: Tensor) -> Tensor:
        """What a pair counts, elementwise."""
        return gaussian_information(rho.square(), self.eps)


@Lens.register("average_redundancy", aliases=("redundancy_gaussian",))
class AverageRedundancy(_Sampled):
    """Mean Gaussian mutual information with every other channel of the layer, `(channels,)`, nats.

    The mean over j != i of -1/2 log(1 - rho_ij^2), over all pairs, exactly. abs(rho) is clamped to
    1 - `eps` (a copy counts as 4.26 nats), and how many pairs that concerns is among the result's
    notes. A constant channel, and the only channel of a layer, score 0. `site="input"` looks at
    what the layer takes in, such as the units of an FFN at its down projection.

    Where C^2 does not fit, `max_channels=` keeps C x max_channels: the partners are that many
    channels drawn with `seed`, the same for every channel, and the result's notes say so.
    """

    cost = "C^2"
    formula = r"\frac{1}{C-1} \sum_{j \ne i} -\tfrac12 \log\bigl(1 - \rho_{ij}^2\bigr)"
    where = _CLAMPED
    degenerate = f"A constant channel, and the only channel of a layer, score 0. {_COPIES}"
    paper = _BOOK

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        return self._means(statistics)


@Lens.register("layer_redundancy")
class LayerRedundancy(_Sampled):
    """Mean Gaussian mutual information of two channels of the layer, `()`, in nats.

    The mean of `average_redundancy` over the channels: one number a layer. `max_channels=` draws
    the partners as it does there.
    """

    importance = 0
    formula = (
        r"\frac{1}{C(C-1)} \sum_i \sum_{j \ne i} "
        r"-\tfrac12 \log\bigl(1 - \rho_{ij}^2\bigr)"
    )
    where = _CLAMPED
    degenerate = f"A constant channel adds nothing, a layer of one channel scores 0. {_COPIES}"
    paper = _BOOK

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        return self._means(statistics).sum() / len(statistics["values"].mean)


@Lens.register("node_redundancy", aliases=("input_redundancy",))
class NodeRedundancy(_Sampled):
    """Mean abs(rho) of every input feature with the others, `(inputs,)`, no unit, in [0, 1].

    Of what the layer takes in: features of a linear layer, channels of a convolution's input.
    `site="output"` looks at the layer's own channels. `max_channels=` draws the partners as in
    `average_redundancy`.
    """

    unit = "1"
    state = "D^2"
    cost = "D^2"
    formula = r"\frac{1}{D-1} \sum_{j \ne i} \lvert \rho_{ij} \rvert"
    where = "$i$ and $j$ are input features (channels of the input of a convolution), $D$ of them"
    degenerate = "A constant feature, and the only one, score 0; a copy counts as 1."

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        site: str = "input",
        max_channels: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(pattern, layers=layers, site=site, max_channels=max_channels, seed=seed)

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        return self._means(statistics)

    def told(self, tally: Mapping[str, int]) -> list[str]:
        return super().told({**tally, "clamped": 0})

    def _of_pair(self, rho: Tensor) -> Tensor:
        return rho.abs()


@Lens.register("pairwise_redundancy_gaussian")
class PairwiseRedundancyGaussian(_Redundancy):
    """Mean Gaussian mutual information with chosen partners, `(channels,)`, in nats.

    `partners` are "all" other channels, the `k` "nearest" (largest abs(rho)), or `k` "random" ones
    drawn with `seed`. `matrix=True` adds the `(channels, channels)` matrix, its diagonal 0.
    """

    cost = "C^2"
    formula = (
        r"\frac{1}{\lvert P_i \rvert} \sum_{j \in P_i} -\tfrac12 \log\bigl(1 - "
        r"\rho_{ij}^2\bigr)"
    )
    where = r"$P_i$ are the partners chosen; $\lvert\rho\rvert$ is clamped to $1 - \varepsilon$"
    degenerate = (
        "A constant channel, and the only channel of a layer, score 0. The result's notes "
        "count clamped pairs."
    )
    paper = _BOOK

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        site: str = "output",
        eps: float = 1e-4,
        partners: str = "all",
        k: int = 10,
        seed: int = 0,
        matrix: bool = False,
    ) -> None:
        super().__init__(pattern, layers=layers, site=site, eps=eps)
        if partners not in _PARTNERS:
            raise InvalidValueError(
                f"partners is {partners!r}, expected one of {', '.join(_PARTNERS)}"
            )
        if k < 1:
            raise InvalidValueError(f"k is {k}, expected 1 or more")
        self.partners = partners
        self.k = k
        self.seed = seed
        self.matrix = matrix

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor | dict[str, Tensor]:
        scores, matrix = [], []
        values: CoMoments = statistics["values"]
        draws = partner_draws(self.seed, len(values.mean), values.start)
        for rho, start in _correlations(statistics["values"]):
            pairs = gaussian_information(rho.square(), self.eps)
            pairs.diagonal(start).zero_()
            scores.append(mean_partner(pairs, self._chosen(rho, start, draws), start))
            if self.matrix:
                matrix.append(pairs)
        found = torch.cat(scores)
        return {self.name: found, "matrix": torch.cat(matrix)} if self.matrix else found

    def _chosen(self, rho: Tensor, start: int, draws: torch.Generator) -> Tensor | None:
        if self.partners == "all" or rho.shape[1] < 2:
            return None
        if self.partners == "nearest":
            return nearest_partners(rho, self.k, start)
        return drawn_partners(rho.shape, self.k, start, draws).to(rho.device)


def _correlations(values: CoMoments) -> Iterator[tuple[Tensor, int]]:
    """Some rows of the matrix at a time, each with the number of its first channel."""
    for part in values.parts():
        yield correlation(part.m2, part.squares, part.start), part.start


def _drawn_correlation(values: PartnerMoments) -> Tensor:
    """Correlations of the partners drawn with every channel, `(partners, channels)`."""
    spread = values.squares.clamp(min=0).sqrt()
    scale = ratio(torch.ones_like(spread), spread)
    return (values.m2 * scale[values.partners()][:, None]).mul_(scale).clamp_(-1, 1)
