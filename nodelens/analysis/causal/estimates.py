"""Numbers with intervals, from seeded resampling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nodelens.analysis.arrays import Array
from nodelens.errors import whole

__all__ = [
    "Estimate",
    "interval",
    "mean_of",
    "rank_correlations",
    "resamples_of",
    "top_recalls",
    "top_shares",
]

_LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A value and the ends of its 95% percentile interval."""

    value: float
    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


def interval(value: float, draws: Array) -> Estimate:
    """Return a value with the percentile interval of its draws, `(draws,)`."""
    tail = (1 - _LEVEL) / 2
    low, high = np.quantile(draws, [tail, 1 - tail]) if len(draws) else (np.nan, np.nan)
    return Estimate(float(value), float(low), float(high))


def resamples_of(n: int, draws: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Return `(draws + 1, n)` picks out of n with replacement; the first row is each once."""
    drawn = generator.integers(0, n, (whole("resamples", draws, 0), n))
    return np.concatenate([np.arange(n)[None], drawn])


def mean_of(values: Array, draws: int, generator: np.random.Generator) -> Estimate:
    """Return the mean of values, `(n,)`, with its bootstrap interval."""
    values = np.asarray(values, float)
    if not len(values):
        return Estimate(np.nan, np.nan, np.nan)
    means = values[resamples_of(len(values), draws, generator)].mean(1)
    return interval(means[0], means[1:])


def rank_correlations(a: Array, b: Array) -> Array:
    """Return the Spearman correlation of every row of two `(draws, n)` tables, `(draws,)`.

    Ties share their mean rank. A row that is all ties orders nothing: its correlation is 0.
    """
    from scipy.stats import rankdata

    x, y = (rankdata(part, axis=1) for part in (a, b))
    x, y = (part - part.mean(1, keepdims=True) for part in (x, y))
    size = np.sqrt((x**2).sum(1) * (y**2).sum(1))
    safe = np.where(size > 0, size, 1.0)
    rho: Array = np.where(size > 0, (x * y).sum(1) / safe, 0.0)
    return rho


def top_shares(values: Array, k: int) -> Array:
    """Return how far each entry of `(draws, n)` is among its row's top k, in [0, 1].

    Entries tied at the border share the places left, which is what drawing lots gives on average.
    """
    border = -np.partition(-values, k - 1, axis=1)[:, k - 1 : k]
    above, tied = values > border, values == border
    left = k - above.sum(1, keepdims=True)
    shares: Array = above + tied * left / tied.sum(1, keepdims=True)
    return shares


def top_recalls(scores: Array, damage: Array, k: int) -> Array:
    """Return the share of the k most damaging that are among the k highest scores, `(draws,)`."""
    recalls: Array = (top_shares(scores, k) * top_shares(damage, k)).sum(1) / k
    return recalls
