"""Sums, strata and clusters of scores: which kinds of channels go first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from nodelens.errors import InvalidValueError, ShapeError
from nodelens.pruning.config import check_choice, whole
from nodelens.pruning.registry import register_strategy
from nodelens.pruning.strategies.kinds import clustering, kinds_by
from nodelens.pruning.strategies.roles import ROLES, ByRoles, Parts, check_roles, unit

if TYPE_CHECKING:
    from nodelens.analysis.clustering import MetricSpaceClustering

__all__ = ["ClusterAware", "Composite", "Stratified"]

_TIER = 10.0
"""Higher than any sum of normalised scores: units of one tier all come before those of another."""


@register_strategy("composite")
class Composite(ByRoles):
    """Weighted sum of scores normalised within the layer: rq 1, redundancy -1, synergy 1.

    `weights` are `{role: weight}` over rq, redundancy, synergy, mi, taylor, proxy, magnitude.
    """

    options: ClassVar[Mapping[str, Any]] = {"weights": None}
    weights: Mapping[str, float] | None

    def _check(self) -> None:
        if self.weights is not None and not self.weights:
            raise InvalidValueError("weights is empty, expected {role: weight}")
        check_roles("weights", self.weights)
        super()._check()

    @property
    def _weights(self) -> Mapping[str, float]:
        return self.weights or {"rq": 1.0, "redundancy": -1.0, "synergy": 1.0}

    def roles(self) -> tuple[str, ...]:
        return tuple(self._weights)

    def combined(self, parts: Mapping[str, Parts]) -> dict[str, Tensor]:
        found = {}
        for name, own in parts.items():
            terms = [weight * unit(own[role]) for role, weight in self._weights.items()]
            found[name] = sum(terms[1:], terms[0])
        return found


@register_strategy("stratified")
class Stratified(ByRoles):
    """The same part of every stratum of a layer goes, in each what has the smallest weights.

    The `strata` are groups of equal size along `by`, the role "rq" unless another: no kind of
    channel dies out. A score is the rank by magnitude within the stratum, from 0 to below 1.
    """

    options: ClassVar[Mapping[str, Any]] = {"strata": 4, "by": "rq"}
    strata: int
    by: str

    def _check(self) -> None:
        whole("strata", self.strata, 1)
        check_choice("by", self.by, ROLES)
        super()._check()

    def roles(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.by, "magnitude")))

    def combined(self, parts: Mapping[str, Parts]) -> dict[str, Tensor]:
        return {name: self._ranks(own[self.by], own["magnitude"]) for name, own in parts.items()}

    def _ranks(self, by: Tensor, size: Tensor) -> Tensor:
        ranks = torch.zeros(len(by), dtype=torch.float64)
        for stratum in torch.argsort(by, stable=True).tensor_split(self.strata):
            order = stratum[torch.argsort(size[stratum], stable=True)]
            ranks[order] = torch.arange(len(order), dtype=torch.float64) / max(len(order), 1)
        return ranks


@register_strategy("cluster_aware")
class ClusterAware(ByRoles):
    """Normalised rq - redundancy + synergy, with critical channels last to go, redundant first.

    The part `protect` with the highest rq - redundancy of each layer is the last to go. With
    `redundant_first` what is of the redundant kind goes first. Kinds are those that
    `MetricSpaceClustering(n_clusters, seed, type_mapping)` finds in the three scores of a layer,
    but where `types` `{layer: kinds}` gives them. `halo` `{layer: influence}` adds `halo_weight`
    times the normalised influence. Each of `synergy_pairs` `{layer: [(i, j)]}` counts as the higher
    of the two, so that pairs stay together.
    """

    options: ClassVar[Mapping[str, Any]] = {
        "protect": 0.1,
        "redundant_first": True,
        "types": None,
        "n_clusters": 4,
        "type_mapping": "greedy",
        "halo": None,
        "halo_weight": 0.5,
        "synergy_pairs": None,
    }
    protect: float
    redundant_first: bool
    types: Mapping[str, Sequence[str]] | None
    n_clusters: int
    type_mapping: str
    halo: Mapping[str, Tensor] | None
    halo_weight: float
    synergy_pairs: Mapping[str, Sequence[tuple[int, int]]] | None

    def _check(self) -> None:
        if isinstance(self.protect, bool) or not 0 <= self.protect < 1:
            raise InvalidValueError(f"protect is {self.protect!r}, expected 0 to below 1")
        whole("n_clusters", self.n_clusters, 1)
        self._clustering()
        super()._check()

    def _clustering(self) -> MetricSpaceClustering:
        return clustering(self.n_clusters, self.config.seed, self.type_mapping)

    def roles(self) -> tuple[str, ...]:
        return ("rq", "redundancy", "synergy")

    def combined(self, parts: Mapping[str, Parts]) -> dict[str, Tensor]:
        return {name: self._of_layer(name, own) for name, own in parts.items()}

    def _of_layer(self, name: str, own: Parts) -> Tensor:
        critical = unit(own["rq"]) - unit(own["redundancy"])
        score = critical + unit(own["synergy"])
        if self.halo is not None and name in self.halo:
            score = score + self.halo_weight * unit(_sized(self.halo[name], score, name, "halo"))
        for i, j in (self.synergy_pairs or {}).get(name, ()):
            _check_pair(i, j, len(score), name)
            score[[i, j]] = score[[i, j]].max()
        if self.redundant_first:
            kinds = kinds_by(self._clustering(), name, own, self.types)
            score = score - _TIER * torch.tensor([kind == "redundant" for kind in kinds])
        kept = torch.argsort(critical, descending=True, stable=True)
        score[kept[: int(self.protect * len(score))]] += 2 * _TIER
        return score


def _sized(values: Any, score: Tensor, name: str, what: str) -> Tensor:
    tensor = torch.as_tensor(values).double()
    if tensor.shape != score.shape:
        raise ShapeError(
            f"layer {name!r}: {what} of shape {tuple(tensor.shape)} for {len(score)} channels"
        )
    return tensor


def _check_pair(i: int, j: int, size: int, name: str) -> None:
    if not (0 <= i < size and 0 <= j < size):
        raise InvalidValueError(f"layer {name!r}: no pair ({i}, {j}) among {size} channels")
