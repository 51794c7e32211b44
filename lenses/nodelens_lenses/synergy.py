"""What two channels say about a target together and neither says alone, in nats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nodelens import Lens
from nodelens.errors import InvalidValueError, nearest
from nodelens.metrics import targets
from nodelens.metrics.formulas import (
    correlation,
    drawn_partners,
    mean_partner,
    mean_synergy,
    nearest_partners,
    pair_synergy,
    pair_synergy_of_classes,
    partner_draws,
    ratio,
    target_correlation,
)
from nodelens.metrics.synergy import SynergyLens
from nodelens.model import Layer
from nodelens.statistics import ClassMoments, CrossMoments, LabelledCoMoments, Read

__all__ = ["GaussianPidSynergyMmi", "SynergyContinuousTarget", "SynergyGaussianMmi"]

_PARTNERS = ("top_k", "random", "all")


class _Synergy(SynergyLens):
    importance = +1
    state = "C^2 + C T"
    by_block = True


class _AboutTarget(_Synergy):
    """`target` is a batch's own, or one of the model's."""

    target: str

    def reads(self, layer: Layer) -> dict[str, Read]:
        return {
            "pairs": targets.about(self.target, LabelledCoMoments),
            "targets": targets.about(self.target, CrossMoments),
        }


@Lens.register("gaussian_pid_synergy_mmi")
class GaussianPidSynergyMmi(_AboutTarget):
    """Mean over partners of I(T; y_i, y_j) - max(I(T; y_i), I(T; y_j)), `(channels,)`, in nats.

    The minimum-mutual-information synergy of Gaussians (Barrett 2015) in closed form from the three
    correlations, over all pairs. Several target dimensions, and class numbers as one-hot columns,
    are averaged. `target` takes one of the model's own instead: "correct_logit", "logit_margin"
    (correct minus best other) or "logit_pc1". Constant channels and copies add nothing.
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

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        target: str = "targets",
        eps: float = 1e-6,
    ) -> None:
        super().__init__(pattern, layers=layers, eps=eps)
        self.target = targets.checked(target)

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        seen = targets.chosen(statistics["targets"], self.target)
        target = target_correlation(seen.cross, seen.m2, seen.target_m2.diagonal())
        return mean_synergy(statistics["pairs"], target, self.eps)


@Lens.register("synergy_continuous_target")
class SynergyContinuousTarget(_AboutTarget):
    """Mean synergy with chosen partners about the model's own decision, `(channels,)`, in nats.

    I(T; y_i, y_j) - max(I(T; y_i), I(T; y_j)), of Gaussians (Barrett 2015), T being `target`: the
    "logit_margin" (correct minus best other), the "correct_logit" or "logit_pc1", the first
    principal component of the logits. `partners` are "top_k": of the `candidates` channels that are
    most redundant with this one (largest abs(rho)) the `k` that say most about T alone; `k`
    "random" ones drawn with `seed`; or "all".
    """

    formula = (
        r"\frac{1}{\lvert P_i \rvert} \sum_{j \in P_i} I(T; y_i, y_j) "
        r"- \max\bigl(I(T; y_i), I(T; y_j)\bigr)"
    )
    where = "$P_i$ are the partners, $T$ is the target; every $I$ is that of Gaussians"
    degenerate = "Constant channels, copies and a constant target add nothing."
    paper = (
        "Barrett (2015), Exploration of synergistic and redundant information sharing in static "
        "and dynamical Gaussian systems, Phys. Rev. E 91, 052802"
    )
    state = "C^2; C^2 + C K + K^2 for logit_pc1 and K logits"
    cost = "C^2"

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        target: str = "logit_margin",
        partners: str = "top_k",
        k: int = 10,
        candidates: int = 50,
        seed: int = 0,
        eps: float = 1e-6,
    ) -> None:
        super().__init__(pattern, layers=layers, eps=eps)
        if partners not in _PARTNERS:
            raise InvalidValueError(
                f"partners is {partners!r}{nearest(partners, _PARTNERS)}, "
                f"expected one of {', '.join(_PARTNERS)}"
            )
        if not 1 <= k <= candidates:
            raise InvalidValueError(f"k is {k} of {candidates} candidates, expected 1 or more")
        self.target = targets.checked(target, targets.LOGIT_TARGETS)
        self.partners, self.k, self.candidates, self.seed = partners, k, candidates, seed

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        seen = targets.chosen(statistics["targets"], self.target)
        size = (seen.m2.clamp(min=0) * seen.target_m2[0, 0].clamp(min=0)).sqrt()
        target = ratio(seen.cross[:, 0], size).clamp_(-1, 1)
        pairs: LabelledCoMoments = statistics["pairs"]
        draws = partner_draws(self.seed, len(target), pairs.start)
        return torch.cat([self._mean(part, target, draws) for part in pairs.parts()])

    def _mean(self, part: LabelledCoMoments, target: Tensor, draws: torch.Generator) -> Tensor:
        rho = correlation(part.m2, part.squares, part.start)
        synergy = pair_synergy(rho, target, self.eps, part.start)
        chosen = None if len(target) < 2 else self._chosen(rho, target, part.start, draws)
        return mean_partner(synergy, chosen, part.start)

    def _chosen(
        self, rho: Tensor, target: Tensor, start: int, draws: torch.Generator
    ) -> Tensor | None:
        """The partners of every row of a block, None for all."""
        if self.partners == "all":
            return None
        if self.partners == "random":
            return drawn_partners(rho.shape, self.k, start, draws).to(rho.device)
        near = nearest_partners(rho, self.candidates, start)
        best = target.abs()[near].topk(min(self.k, near.shape[1]), dim=1).indices
        return near.gather(1, best)


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
