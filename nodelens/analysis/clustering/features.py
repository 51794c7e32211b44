"""The space that channels are clustered in: log Rayleigh quotient, redundancy, synergy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nodelens.analysis.arrays import Array, channel_scores
from nodelens.errors import InvalidValueError, nearest

__all__ = ["FEATURE_SETS", "METRICS", "MetricSpace", "checked_importance", "standardised"]

METRICS = ("log_rq", "redundancy", "synergy")
FEATURE_SETS = {
    "all": METRICS,
    "rq_red": ("log_rq", "redundancy"),
    "rq_syn": ("log_rq", "synergy"),
    "red_syn": ("redundancy", "synergy"),
    "rq_only": ("log_rq",),
    "red_only": ("redundancy",),
    "syn_only": ("synergy",),
}
"""The metrics that each set of features clusters by."""

_DEAD = 1e-12
_CONSTANT = 1e-9
_TIE = 1e-7


@dataclass(frozen=True)
class MetricSpace:
    """The features of a layer's channels, `points` `(channels, features)`, each z-scored."""

    points: Array
    names: tuple[str, ...]

    @classmethod
    def of(cls, rq: Any, redundancy: Any, synergy: Any, features: str) -> MetricSpace:
        """Return the space of a set of features, by its name in `FEATURE_SETS`.

        Raises ShapeError, NonFiniteError, or InvalidValueError for a negative Rayleigh quotient.
        """
        if features not in list(FEATURE_SETS):
            raise InvalidValueError(
                f"features is {features!r}{nearest(str(features), FEATURE_SETS)}, "
                f"expected one of {', '.join(FEATURE_SETS)}"
            )
        quotient = channel_scores(rq, "rq")
        if not len(quotient):
            raise InvalidValueError("rq has no channel, expected at least one")
        known = {
            "log_rq": _log(quotient),
            "redundancy": channel_scores(redundancy, "redundancy", len(quotient)),
            "synergy": channel_scores(synergy, "synergy", len(quotient)),
        }
        names = FEATURE_SETS[features]
        return cls(np.column_stack([standardised(known[name]) for name in names]), names)

    def with_feature(self, name: str, values: Array) -> MetricSpace:
        """Return the space with one more feature in front."""
        return MetricSpace(
            np.column_stack([standardised(values), self.points]), (name, *self.names)
        )

    def triples(self, centroids: Array) -> Array:
        """Return centroids as `(clusters, 3)` in the order of `METRICS`, 0 for one not used."""
        found = np.zeros((len(centroids), len(METRICS)))
        for column, name in enumerate(self.names):
            if name in METRICS:
                found[:, METRICS.index(name)] = centroids[:, column]
        return found


def standardised(values: Array) -> Array:
    """Return (v - mean) / standard deviation (n), `(channels,)`; 0 where all are the same.

    Values that differ by no more than rounding become equal, so that copies stay copies.
    """
    spread = np.ptp(values) if len(values) else 0.0
    if spread <= _CONSTANT * np.abs(values).max(initial=0.0):
        return np.zeros_like(values)
    # Divided by their spread first: squares of 1e-200 and of 1e200 are no floats.
    values = (values - values.mean()) / spread
    return _with_ties(values / values.std())


def _with_ties(values: Array) -> Array:
    order = np.argsort(values, kind="stable")
    new = np.diff(values[order], prepend=values[order[0]]) > _TIE
    group = np.empty(len(values), dtype=np.int64)
    group[order] = np.cumsum(new)
    means: Array = np.bincount(group, values) / np.bincount(group)
    return means[group]


def _log(quotient: Array) -> Array:
    """The log of Rayleigh quotients; dead channels stand beside the smallest that is not."""
    if (quotient < 0).any():
        raise InvalidValueError(
            f"rq has the value {quotient.min():g}, expected none below 0: its logarithm is taken"
        )
    largest = quotient.max()
    if largest == 0:
        return np.zeros_like(quotient)
    living = quotient > _DEAD * largest
    # A difference of logs is a ratio: around 0, so that rounding is told from spread.
    logs = np.log(np.where(living, quotient, quotient[living].min())) - np.log(largest)
    return logs if np.ptp(logs) > _CONSTANT else np.zeros_like(logs)


def checked_importance(mode: str, importance: Any, channels: int) -> Array:
    """Return the importance that a mode needs, `(channels,)`."""
    if importance is None:
        raise InvalidValueError(f"mode {mode!r} needs importance=, a score of every channel")
    return channel_scores(importance, "importance", channels)
