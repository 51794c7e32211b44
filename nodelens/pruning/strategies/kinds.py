"""The kind of every channel: given, of its clusters, or a quarter of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nodelens.errors import ShapeError
from nodelens.pruning.config import check_choice
from nodelens.pruning.strategies.roles import Parts, unit

if TYPE_CHECKING:
    from nodelens.analysis.clustering import MetricSpaceClustering

__all__ = ["TYPES", "clustering", "given_kinds", "kinds_by", "kinds_of"]

TYPES = ("critical", "redundant", "synergistic", "background")
Types = Mapping[str, Sequence[str]] | None


def kinds_of(rq: Tensor, redundancy: Tensor, synergy: Tensor) -> list[str]:
    """Return a kind for every channel where no clustering is given: a quarter of each.

    Critical has the highest rq - redundancy; redundant the highest redundancy of the rest;
    synergistic the highest synergy of what remains; the others are background.
    """
    kinds, quarter = ["background"] * len(rq), len(rq) // 4
    left = torch.ones(len(rq), dtype=torch.bool)
    for kind, score in (
        ("critical", unit(rq) - unit(redundancy)),
        ("redundant", unit(redundancy)),
        ("synergistic", unit(synergy)),
    ):
        order = torch.argsort(score, descending=True, stable=True)
        for channel in order[left[order]][:quarter].tolist():
            kinds[channel], left[channel] = kind, False
    return kinds


def given_kinds(types: Types, name: str, own: Parts) -> Sequence[str]:
    """Return the kinds given for a layer, checked; those of `kinds_of` where none are."""
    if types is None or name not in types:
        return kinds_of(own["rq"], own["redundancy"], own["synergy"])
    return _checked(types[name], name, len(own["rq"]))


def clustering(n_clusters: int, seed: int, type_mapping: str) -> MetricSpaceClustering:
    """Return the clustering that names kinds, without its test of structure."""
    from nodelens.analysis.clustering import MetricSpaceClustering

    return MetricSpaceClustering(n_clusters, seed, type_mapping, shuffles=0)


def kinds_by(
    clusters: MetricSpaceClustering, name: str, own: Parts, types: Types = None
) -> Sequence[str]:
    """Return the kinds given for a layer, checked; those of its clusters where none are.

    Raises InvalidValueError for a role "rq" below 0, whose logarithm clusters cannot take.
    """
    if types is not None and name in types:
        return _checked(types[name], name, len(own["rq"]))
    rq, redundancy, synergy = (own[role].numpy() for role in ("rq", "redundancy", "synergy"))
    return clusters.fit(rq, redundancy, synergy, layer_name=name).channel_types


def _checked(kinds: Sequence[str], name: str, size: int) -> Sequence[str]:
    if len(kinds) != size:
        raise ShapeError(f"layer {name!r}: {len(kinds)} types for {size} channels")
    for kind in kinds:
        check_choice(f"layer {name!r}: a type", kind, TYPES)
    return kinds
