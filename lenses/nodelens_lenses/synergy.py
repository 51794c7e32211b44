"""What two channels say about a target together and neither says alone, in nats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nodelens import Lens, MetricLens
from nodelens.metrics.formulas import (
    mean_partner,
    mean_synergy,
    pair_synergy_of_classes,
    target_correlation,
)
from nodelens.model import Layer
from nodelens.statistics import ClassMoments, CrossMoments, LabelledCoMoments, Read

__all__ = ["GaussianPidSynergyMmi", "SynergyGaussianMmi"]


class _Synergy(MetricLens):
    """No correlation counts as more than 1 - `eps`; pairs above it are copies."""

    family = "synergy"
    unit = "nat"
    importance = +1
    state = "C^2 + C T"
    minimum_rows = 3
    by_block = True

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        eps: float = 1e-6,
    ) -> None:
        super().__init__(pattern, layers=layers)
        self.eps = eps


@Lens.register("gaussian_pid_synergy_mmi")
class GaussianPidSynergyMmi(_Synergy):
    """Mean over partners of I(T; y_i, y_j) - max(I(T; y_i), I(T; y_j)), `(channels,)`, in nats.

    The minimum-mutual-information synergy of Gaussians (Barrett 2015) in closed form from the three
    correlations, over all pairs. Several target dimensions, and class numbers as one-hot columns,
    are averaged. Constant channels and copies add nothing.
    """

    cost = "C^2 + C T"
    formula = r"\frac{1}{C-1} \sum_{j \ne i} I(T; y_i, y_j) - \max\bigl(I(T; y_i), I(T; y_j)\bigr)"
    where = (
        "every $I$ is that of Gaussians, from the three correlations of $y_i$, $y_j$ and "
        "$T$; columns of $T$ are averaged"
    )
    degenerate = "Constant channels, copies and constant target columns add nothing."
    paper = (
        "Barrett (2015), Exploration of synergistic and redundant information sharing in "
        "static and dynamical Gaussian systems, Phys. Rev. E 91, 052802"
    )

    def reads(self, layer: Layer) -> dict[str, Read]:
        return {"pairs": Read("output", LabelledCoMoments), "targets": Read("output", CrossMoments)}

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        seen = statistics["targets"]
        target = target_correlation(seen.cross, seen.m2, seen.target_m2.diagonal())
        return mean_synergy(statistics["pairs"], target, self.eps)


@Lens.register("synergy_gaussian_mmi")
class SynergyGaussianMmi(_Synergy):
    """The same about a class label, `(channels,)`, in nats: mean over all partners.

    Every information is half the log ratio of determinants of the total and of one pooled
    within-class covariance, so synergy is never negative. Needs class numbers as targets.
    """

    state = "C^2 + K C"
    cost = "C^2 + C"
    formula = (
        r"\frac{1}{C-1} \sum_{j \ne i} I(T; y_i, y_j) - \max\bigl(I(T; y_i), I(T; "
        r"y_j)\bigr), \qquad I(T; y) = \tfrac12 \log \frac{\det \Sigma}{\det "
        r"\Sigma_{\text{within}}}"
    )
    where = (
        r"$T$ is the class, $\Sigma$ the covariance of the channels named, "
        r"$\Sigma_{\text{within}}$ the pooled one within classes"
    )
    degenerate = "Constant channels and copies add nothing."
    paper = (
        "Barrett (2015), Exploration of synergistic and redundant information sharing in "
        "static and dynamical Gaussian systems, Phys. Rev. E 91, 052802"
    )

    def reads(self, layer: Layer) -> dict[str, Read]:
        return {"pairs": Read("output", LabelledCoMoments), "classes": Read("output", ClassMoments)}

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        classes: ClassMoments = statistics["classes"]
        counts = classes.counts[:, None].to(classes.mean.dtype)
        gap = classes.mean - (classes.mean * counts).sum(0) / classes.rows
        weighted = gap * counts
        scores = [self._mean(part, gap, weighted) for part in statistics["pairs"].parts()]
        return torch.cat(scores)

    def _mean(self, part: LabelledCoMoments, gap: Tensor, weighted: Tensor) -> Tensor:
        """The mean over partners, `(rows,)`, from classes' means minus the mean `(classes, C)`."""
        rows, variance = slice(part.start, part.start + len(part.m2)), part.diagonal()
        pairs = pair_synergy_of_classes(
            part.m2,
            part.m2 - gap[:, rows].mT @ weighted,
            self.eps,
            variance=variance,
            inner=variance - (gap * weighted).sum(0),
            start=part.start,
        )
        return mean_partner(pairs, start=part.start)
