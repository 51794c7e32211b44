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
    gaussian_information,
    mean_partner,
)
from nodelens.model import Layer
from nodelens.statistics import CoMoments, Read

__all__ = ["AverageRedundancy", "PairwiseRedundancyGaussian"]

_PARTNERS = ("all", "nearest", "random")


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


@Lens.register("average_redundancy", aliases=("redundancy_gaussian",))
class AverageRedundancy(_Redundancy):
    """Mean Gaussian mutual information with every other channel of the layer, `(channels,)`, nats.

    The mean over j != i of -1/2 log(1 - rho_ij^2), over all pairs, exactly. abs(rho) is clamped to
    1 - `eps` (a copy counts as 4.26 nats), and how many pairs that concerns is among the result's
    notes. A constant channel, and the only channel of a layer, score 0. `site="input"` looks at
    what the layer takes in, such as the units of an FFN at its down projection.
    """

    cost = "C^2"
    formula = r"\frac{1}{C-1} \sum_{j \ne i} -\tfrac12 \log\bigl(1 - \rho_{ij}^2\bigr)"
    where = r"$\lvert\rho\rvert$ is clamped to $1 - \varepsilon$"
    degenerate = (
        "A constant channel, and the only channel of a layer, score 0. Exact copies count "
        r"as $\lvert\rho\rvert = 1 - \varepsilon$; the result's notes say how many pairs."
    )
    paper = "Cover and Thomas (2006), Elements of Information Theory, ch. 8"

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        scores = [
            mean_partner(gaussian_information(rho.square(), self.eps), start=start)
            for rho, start in _correlations(statistics["values"])
        ]
        return torch.cat(scores)


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
    paper = "Cover and Thomas (2006), Elements of Information Theory, ch. 8"

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
        draws = self._draws(statistics["values"])
        for rho, start in _correlations(statistics["values"]):
            pairs = gaussian_information(rho.square(), self.eps)
            pairs.diagonal(start).zero_()
            scores.append(mean_partner(pairs, self._chosen(rho, start, draws), start))
            if self.matrix:
                matrix.append(pairs)
        found = torch.cat(scores)
        return {self.name: found, "matrix": torch.cat(matrix)} if self.matrix else found

    def _draws(self, values: CoMoments) -> torch.Generator:
        """The generator of random partners, past the channels before this block."""
        generator, channels = torch.Generator().manual_seed(self.seed), len(values.mean)
        for _ in range(values.start if self.partners == "random" else 0):
            torch.rand(channels, generator=generator, dtype=torch.float64)
        return generator

    def _chosen(self, rho: Tensor, start: int, draws: torch.Generator) -> Tensor | None:
        channels = rho.shape[1]
        k = min(self.k, channels - 1)
        if self.partners == "all" or channels < 2:
            return None
        if self.partners == "nearest":
            order = rho.abs()
        else:
            order = torch.rand(rho.shape, generator=draws, dtype=rho.dtype).to(rho.device)
        order.diagonal(start).fill_(-1)
        return order.topk(k, dim=1).indices


def _correlations(values: CoMoments) -> Iterator[tuple[Tensor, int]]:
    """Some rows of the matrix at a time, each with the number of its first channel."""
    for part in values.parts():
        yield correlation(part.m2, part.squares, part.start), part.start
