"""Does a type speak to one type of the next layer? Those types are dealt out anew to find out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nodelens.analysis.arrays import Array, seeded
from nodelens.analysis.clustering.influence import checked_influence
from nodelens.analysis.clustering.permutation import Contrast, contrast
from nodelens.errors import ShapeError, whole

__all__ = ["Flow", "flow_test"]


@dataclass(frozen=True)
class Flow:
    """The share of a source type's influence that goes to a target type, beside the null's.

    `per_unit` is that share with every target type counted per channel.
    """

    source_type: str
    target_type: str
    share: Contrast
    per_unit: float


def flow_test(
    influence: Any,
    source_types: Sequence[str],
    target_types: Sequence[str],
    *,
    permutations: int = 999,
    seed: int = 42,
) -> list[Flow]:
    """Return the flow between every two types, in the order in which the types are first met.

    `influence` is `(targets, sources)`, types are one a channel. The null deals the target types
    out anew, so that a large type expects a large share. A source type that reaches nothing has
    shares of 0, and a p-value of 1.

    Raises ShapeError, or InvalidValueError for no permutation.
    """
    found = checked_influence(influence)
    if found.shape != (len(target_types), len(source_types)):
        raise ShapeError(
            f"influence has shape {found.shape}, expected ({len(target_types)}, "
            f"{len(source_types)}): one type a target and a source"
        )
    whole("permutations", permutations, 1)
    sources, targets = (_members(types) for types in (source_types, target_types))
    reached = found @ np.stack(list(sources.values()), 1)
    total = reached.sum(0)
    shares = np.divide(reached, total, out=np.zeros_like(reached), where=total > 0)
    dealt = _dealt(np.stack(list(targets.values()), 1), permutations, seed)
    flows = np.einsum("pjt,js->pst", dealt, shares)
    units = flows[0] / dealt[0].sum(0)
    size = units.sum(1, keepdims=True)
    units = np.divide(units, size, out=np.zeros_like(units), where=size > 0)
    return [
        Flow(s, t, contrast(float(flows[0, i, j]), flows[1:, i, j]), float(units[i, j]))
        for i, s in enumerate(sources)
        for j, t in enumerate(targets)
    ]


def _members(types: Sequence[str]) -> dict[str, Array]:
    """The channels of each type, 1 where a channel is of it."""
    named = np.asarray(types)
    return {name: (named == name).astype(np.float64) for name in dict.fromkeys(types)}


def _dealt(members: Array, permutations: int, seed: int) -> Array:
    """The targets' types, then the same in other orders, `(1 + permutations, targets, types)`."""
    random = seeded(seed)
    order = np.tile(np.arange(len(members)), (permutations, 1))
    return np.concatenate([members[None], members[random.permuted(order, axis=1)]])
