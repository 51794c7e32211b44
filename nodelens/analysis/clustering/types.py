"""From clusters to types: which is the critical one, the redundant, the synergistic."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nodelens.analysis.arrays import Array
from nodelens.errors import InvalidValueError, nearest

__all__ = ["TYPES", "TYPE_MAPPINGS", "check_mapping", "types_by_importance", "types_of"]

TYPES = ("background", "redundant", "synergistic", "critical")
"""In the order in which modes by importance rank them, the lowest first."""

_COLUMNS = ("critical", "redundant", "synergistic", "background")
_MILD = 0.25
# Columns: log Rayleigh quotient, redundancy, synergy; rows as in _COLUMNS.
_PROTOTYPES = np.array([[1.0, -1, 0], [0, 1, -1], [0, -1, 1], [-1, -1, -1]])


def types_of(centroids: Array, used: Array, how: str) -> list[str]:
    """Return the type of every cluster from its centroid, `(clusters, 3)`, z-scored.

    `used` `(3,)` is 1 for metrics that were clustered by, 0 for others. `how` is one of
    `TYPE_MAPPINGS`. Of more than four clusters the rest are background; of fewer, not every type
    is there, and one cluster alone is background.
    """
    check_mapping(how)
    if len(centroids) == 1:
        return ["background"]
    return TYPE_MAPPINGS[how](centroids * used, used)


def check_mapping(how: str) -> None:
    """Raise InvalidValueError for a name that is none of `TYPE_MAPPINGS`."""
    if how not in list(TYPE_MAPPINGS):
        raise InvalidValueError(
            f"type_mapping is {how!r}{nearest(str(how), TYPE_MAPPINGS)}, "
            f"expected one of {', '.join(TYPE_MAPPINGS)}"
        )


def types_by_importance(importance: Array) -> list[str]:
    """Return the type of every cluster by its mean importance: the highest is critical."""
    order = np.argsort(-importance, kind="stable")
    types = ["background"] * len(importance)
    for cluster, name in zip(order, reversed(TYPES), strict=False):
        types[cluster] = name
    return types


def _greedy(centroids: Array, used: Array) -> list[str]:
    """Critical has the highest rq - red; of the rest redundant the highest red, and so on."""
    rq, red, syn = centroids.T
    types = ["background"] * len(centroids)
    rest = list(range(len(centroids)))
    for name, wanted in (("critical", rq - red), ("redundant", red), ("synergistic", syn)):
        if rest:
            best = max(rest, key=lambda cluster: wanted[cluster])
            types[best] = name
            rest.remove(best)
    return types


def _penalised(centroids: Array, used: Array) -> list[str]:
    rq, red, syn = centroids.T
    away = np.abs(centroids).sum(1)
    return _assigned(
        np.column_stack([rq - red, red - _MILD * rq, syn - _MILD * red, -away]),
    )


def _simple(centroids: Array, used: Array) -> list[str]:
    rq, red, syn = centroids.T
    return _assigned(np.column_stack([rq - red, red, syn, -np.abs(centroids).sum(1)]))


def _prototype(centroids: Array, used: Array) -> list[str]:
    """By the cosine with what each type is like."""
    return _assigned(_unit(centroids) @ _unit(_PROTOTYPES * used).T)


def _unit(rows: Array) -> Array:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    found: Array = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
    return found


def _assigned(scores: Array) -> list[str]:
    """The types with the highest sum of scores `(clusters, 4)`, each type given once."""
    from scipy.optimize import linear_sum_assignment

    types = ["background"] * len(scores)
    for cluster, column in zip(*linear_sum_assignment(scores, maximize=True), strict=True):
        types[cluster] = _COLUMNS[column]
    return types


TYPE_MAPPINGS: dict[str, Callable[[Array, Array], list[str]]] = {
    "greedy": _greedy,
    "global": _penalised,
    "global_simple": _simple,
    "prototype": _prototype,
}
"""From standardised centroids, and which metrics were used, to the type of every cluster."""
