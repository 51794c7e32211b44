"""Taylor scores weighed by what else is known of a channel, and the weighing that data choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from nodelens.errors import InvalidValueError, nearest
from nodelens.metrics.formulas import zscore
from nodelens.pruning.config import check_choice
from nodelens.pruning.registry import register_strategy
from nodelens.pruning.strategies.kinds import given_kinds
from nodelens.pruning.strategies.roles import ROLES, ByRoles, Parts, unit

__all__ = ["VARIANTS", "GeneralizedTaylor", "LossProxyOptimal", "ridge_scores"]

VARIANTS: dict[str, tuple[str, ...]] = {
    "taylor": ("taylor",),
    "rq_weighted": ("taylor", "rq"),
    "redundancy_discounted": ("taylor", "redundancy"),
    "synergy_boosted": ("taylor", "synergy"),
    "mi": ("taylor", "mi"),
    "structural": ("taylor", "magnitude"),
    "gated": ("taylor", "rq", "redundancy"),
    "cluster_type": ("taylor", "rq", "redundancy", "synergy"),
    "full": ("taylor", "rq", "redundancy", "synergy"),
    "optimal": ("taylor", "rq", "redundancy", "synergy", "magnitude", "proxy"),
}
"""The roles that each variant is made of."""

_OF_TYPE = {"critical": 2.0, "synergistic": 1.5, "background": 1.0, "redundant": 0.5}


@register_strategy("generalized_taylor")
class GeneralizedTaylor(ByRoles):
    """Taylor scores T times a factor; n is a score normalised to 0..1 within its layer.

    `variant` "taylor" T; "rq_weighted" T n(rq); "redundancy_discounted" T (1 - n(red));
    "synergy_boosted" T (1 + n(syn)); "mi" T n(mi); "structural" T n(magnitude); "gated" T times
    the logistic of z(rq) - z(red); "cluster_type" T times 2, 1.5, 1 or 0.5 for critical,
    synergistic, background and redundant channels (`types` as of cluster_aware); "full"
    T n(rq) (1 - n(red)) (1 + n(syn)); "optimal" as lp_optimal, with T among its metrics.
    """

    options: ClassVar[Mapping[str, Any]] = {"variant": "full", "types": None, "alpha": 1.0}
    needs = ("inputs", "loss", "targets")
    variant: str
    types: Mapping[str, Sequence[str]] | None
    alpha: float

    def _check(self) -> None:
        check_choice("variant", self.variant, VARIANTS)
        super()._check()

    def roles(self) -> tuple[str, ...]:
        return VARIANTS[self.variant]

    def combined(self, parts: Mapping[str, Parts]) -> dict[str, Tensor]:
        if self.variant == "optimal":
            return ridge_scores(parts, [r for r in self.roles() if r != "proxy"], self.alpha)
        return {name: own["taylor"] * self._factor(name, own) for name, own in parts.items()}

    def _factor(self, name: str, own: Parts) -> Tensor:
        if self.variant == "gated":
            return torch.sigmoid(zscore(own["rq"]) - zscore(own["redundancy"]))
        if self.variant == "cluster_type":
            kinds = given_kinds(self.types, name, own)
            return torch.tensor([_OF_TYPE[kind] for kind in kinds], dtype=torch.float64)
        factor = torch.ones_like(own["taylor"])
        for role in self.roles()[1:]:
            known = unit(own[role])
            factor = factor * {"redundancy": 1 - known, "synergy": 1 + known}.get(role, known)
        return factor


@register_strategy("lp_optimal")
class LossProxyOptimal(ByRoles):
    """What a ridge regression of the loss proxy on the metrics predicts; high is kept.

    `metrics` are roles, `alpha` the strength of the ridge. All are z-scored within their layer and
    the layers pooled, so one set of weights is fitted, with the sign that the data give each.
    """

    options: ClassVar[Mapping[str, Any]] = {
        "metrics": ("rq", "redundancy", "synergy", "magnitude"),
        "alpha": 1.0,
    }
    needs = ("inputs", "loss", "targets")
    metrics: Sequence[str]
    alpha: float

    def _check(self) -> None:
        for role in self.metrics:
            if role not in ROLES or role == "proxy":
                raise InvalidValueError(
                    f"metrics has {role!r}{nearest(str(role), ROLES)}, "
                    f"expected some of {', '.join(ROLES[:-2])} and magnitude"
                )
        if not self.metrics:
            raise InvalidValueError("metrics is empty, expected at least one role")
        super()._check()

    def roles(self) -> tuple[str, ...]:
        return (*self.metrics, "proxy")

    def combined(self, parts: Mapping[str, Parts]) -> dict[str, Tensor]:
        return ridge_scores(parts, self.metrics, self.alpha)


def ridge_scores(
    parts: Mapping[str, Parts], metrics: Sequence[str], alpha: float
) -> dict[str, Tensor]:
    """Return the loss proxy of every unit as a ridge regression on `metrics` predicts it.

    Of z-scores within each layer, layers pooled; `(units,)` each, in standard deviations.
    """
    from sklearn.linear_model import Ridge

    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or alpha < 0:
        raise InvalidValueError(f"alpha is {alpha!r}, expected a number from 0 on")
    features = {
        name: torch.stack([zscore(own[role].double()) for role in metrics], dim=1)
        for name, own in parts.items()
    }
    wanted = torch.cat([zscore(own["proxy"].double()) for own in parts.values()])
    fitted = Ridge(alpha=alpha).fit(torch.cat(list(features.values())).numpy(), wanted.numpy())
    return {name: torch.from_numpy(fitted.predict(x.numpy())) for name, x in features.items()}
