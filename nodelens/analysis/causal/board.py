"""Many scores against the damage measured once: which one finds the channels that matter?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nodelens.analysis.arrays import Array, array, fraction, seeded
from nodelens.analysis.causal.check import CausalCheck, CausalResult, score_arrays
from nodelens.analysis.causal.estimates import (
    Estimate,
    interval,
    rank_correlations,
    resamples_of,
    top_recalls,
)
from nodelens.analysis.causal.lesions import Damage, Lesion, lesion
from nodelens.analysis.causal.sampling import shuffled_order, stratified
from nodelens.analysis.causal.validation import sampled_damage, top_of
from nodelens.errors import InvalidValueError, ShapeError

__all__ = ["RANDOM", "BoardEntry", "LeaderboardCheck"]

RANDOM = "random"
"""The score drawn by lot that stands on every board."""


@dataclass(frozen=True)
class BoardEntry:
    """A score on the board: `{layer: (channels,)}`, its direction, and what it cost.

    `importance` 0 says neither way: the score is then taken as it is, high for important.
    """

    scores: Mapping[str, Any]
    importance: int = 1
    lens: str = ""
    family: str = ""
    seconds: float | None = None
    bytes: int | None = None


class LeaderboardCheck(CausalCheck):
    """Single channels and pruned sets of every score on the board, measured once for all of them.

    Channels are drawn evenly over the quantiles of the mean rank that the board gives them, so that
    no score chooses its own examination. A pruned set takes the lowest of a score from every layer,
    at each of `fractions`; without fractions there is no curve.
    """

    name = "lens_leaderboard"

    def __init__(
        self,
        board: Mapping[str, BoardEntry | Mapping[str, Any]],
        *,
        per_layer: int = 32,
        strata: int = 8,
        top: float = 0.1,
        fractions: tuple[float, ...] = (0.125, 0.25, 0.5, 0.75),
        resamples: int = 1000,
        seed: int = 0,
    ) -> None:
        _check_fractions(fractions)
        if RANDOM in board:
            raise InvalidValueError(f"a score is named {RANDOM!r}, as the control is: rename it")
        given = {n: e if isinstance(e, BoardEntry) else BoardEntry(e) for n, e in board.items()}
        self.kept = {name: _kept(entry) for name, entry in given.items()}
        self.widths = _widths(self.kept)
        fraction("top", top)
        self.top, self.fractions = top, tuple(fractions)
        self.resamples, self.seed = resamples, seed
        generator = seeded(seed)
        lots = {layer: generator.random(n) for layer, n in self.widths.items()}
        self.drawn = {
            layer: stratified(_mean_rank(self.kept, layer), per_layer, strata, generator)
            for layer in self.widths
        }
        self.entries = {**given, RANDOM: BoardEntry(lots, lens=RANDOM, family="control")}
        self.kept[RANDOM] = lots
        self.curves = {name: self._curve(kept, generator) for name, kept in self.kept.items()}
        self.lesions: list[Lesion] = [
            *(lesion({layer: [c]}) for layer, drawn in self.drawn.items() for c in drawn),
            *(which for curve in self.curves.values() for which in curve),
        ]

    def _curve(self, kept: dict[str, Array], generator: np.random.Generator) -> list[Lesion]:
        order = {layer: shuffled_order(values, generator) for layer, values in kept.items()}
        # A score that leaves layers out would prune less: its curve would not compare.
        if kept.keys() != self.widths.keys():
            return []
        return [
            lesion({layer: low[: round(fraction * len(low))] for layer, low in order.items()})
            for fraction in self.fractions
        ]

    def conclude(self, damage: Damage) -> CausalResult:
        """Return one row a score, best first; estimates are `spearman` of every score."""
        ranked = self._ranked(damage)
        areas = self._areas(damage)
        best = _first_in({name: rho for name, (rho, _, _) in ranked.items()})
        rows = [
            self._row(name, *ranked[name], areas.get(name), best[name], damage)
            for name in self.entries
        ]
        rows.sort(key=lambda row: -row["spearman"])
        estimates = {row["score"]: interval_of(row, "spearman") for row in rows}
        return self.result(estimates, rows, self._reliability(damage))

    def _reliability(self, damage: Damage) -> list[str]:
        """How far the damage agrees with itself, and what a perfect score could reach so."""
        n = len(damage.rows)
        if n < 2:
            return []
        halves = np.stack([np.resize(np.arange(start, n, 2), n // 2) for start in (0, 1)])
        rho = []
        for layer, drawn in self.drawn.items():
            one = damage.resampled([lesion({layer: [c]}) for c in drawn], halves)
            rho.append(float(rank_correlations(one[:1], one[1:])[0]))
        mean = float(np.mean(rho))
        return [
            "the damage measured on one half of the batches correlates by "
            f"{mean:.2f} with that on the other, the mean over layers: a score that knew the true "
            f"damage would reach about {_ceiling(mean):.2f}"
        ]

    def _ranked(self, damage: Damage) -> dict[str, tuple[Array, Array, int]]:
        """Correlation and recall of every score, `(1 + resamples,)`, and how many layers it has.

        All scores see the same resamples, so that they can be compared one by one.
        """
        generator = np.random.default_rng(self.seed + 1)
        parts: dict[str, list[tuple[Array, Array]]] = {name: [] for name in self.entries}
        for layer, (channels, cost) in sampled_damage(damage, self.drawn).items():
            picks = resamples_of(len(cost), self.resamples, generator)
            drawn, k = cost[picks], top_of(len(cost), self.top)
            for name, kept in self.kept.items():
                if layer in kept:
                    mine = kept[layer][channels][picks]
                    parts[name].append(
                        (rank_correlations(mine, drawn), top_recalls(mine, drawn, k))
                    )
        return {
            name: (np.mean([r for r, _ in mine], 0), np.mean([t for _, t in mine], 0), len(mine))
            for name, mine in parts.items()
        }

    def _areas(self, damage: Damage) -> dict[str, Estimate]:
        """The area under each score's curve of the loss change, over batches drawn anew."""
        generator = np.random.default_rng(self.seed + 2)
        picks = resamples_of(len(damage.rows), self.resamples, generator)
        found = {}
        for name, curve in self.curves.items():
            if curve:
                area = _area(damage.resampled(curve, picks), self.fractions)
                found[name] = interval(area[0], area[1:])
        return found

    def _row(
        self,
        name: str,
        rho: Array,
        recall: Array,
        layers: int,
        area: Estimate | None,
        best: float,
        damage: Damage,
    ) -> dict[str, Any]:
        entry = self.entries[name]
        return {
            "score": name,
            "lens": entry.lens or name,
            "family": entry.family,
            "importance": entry.importance,
            "layers": layers,
            **_named("spearman", interval(rho[0], rho[1:])),
            "first_in": best,
            **_named("top_recall", interval(recall[0], recall[1:])),
            **_named("curve_loss", area),
            "curve_accuracy": self._accuracy_area(name, damage),
            "seconds": entry.seconds,
            "bytes": entry.bytes,
        }

    def _accuracy_area(self, name: str, damage: Damage) -> float | None:
        found = [damage.accuracy(which) for which in self.curves[name]]
        base = damage.accuracy(())
        if not found or base is None:
            return None
        lost = np.array([[base - (value or 0.0) for value in found]])
        return base - float(_area(lost, self.fractions)[0])


def interval_of(row: Mapping[str, Any], name: str) -> Estimate:
    """Return the estimate that a row holds under a name."""
    return Estimate(row[name], row[f"{name}_low"], row[f"{name}_high"])


def _named(name: str, found: Estimate | None) -> dict[str, float | None]:
    if found is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def _kept(entry: BoardEntry) -> dict[str, Array]:
    """The scores turned so that a high one argues for keeping the channel."""
    sign = -1 if entry.importance < 0 else 1
    return {layer: sign * values for layer, values in score_arrays(entry.scores).items()}


def _widths(board: Mapping[str, Mapping[str, Array]]) -> dict[str, int]:
    widths: dict[str, int] = {}
    for name, kept in board.items():
        for layer, values in kept.items():
            if widths.setdefault(layer, len(values)) != len(values):
                raise ShapeError(
                    f"score {name!r} has {len(values)} channels in layer {layer!r}, "
                    f"and others have {widths[layer]}"
                )
    if not widths:
        raise InvalidValueError("the board holds no score, expected {name: {layer: (channels,)}}")
    return widths


def _mean_rank(board: Mapping[str, Mapping[str, Array]], layer: str) -> Array:
    from scipy.stats import rankdata

    ranks = [rankdata(kept[layer]) for name, kept in board.items() if layer in kept]
    return np.asarray(np.mean(ranks, 0), float)


def _area(changes: Array, fractions: tuple[float, ...]) -> Array:
    """Return the mean height, `(draws,)`, of curves `(draws, fractions)` that start at 0."""
    from scipy.integrate import trapezoid

    heights = np.concatenate([np.zeros((len(changes), 1)), changes], 1)
    area: Array = trapezoid(heights, [0.0, *fractions], axis=1) / fractions[-1]
    return area


def _first_in(rho: Mapping[str, Array]) -> dict[str, float]:
    """The share of resamples in which each score has the highest correlation."""
    names = list(rho)
    winners = np.stack([rho[name] for name in names])[:, 1:].argmax(0)
    return {n: float((winners == i).mean()) if len(winners) else 0.0 for i, n in enumerate(names)}


def _ceiling(reliability: float) -> float:
    """Return the root of the whole's reliability, by Spearman (1910) and Brown (1910).

    >>> round(_ceiling(0.65), 2)
    0.89
    """
    whole = 2 * reliability / (1 + reliability) if reliability > 0 else 0.0
    return float(whole**0.5)


def _check_fractions(fractions: tuple[float, ...]) -> None:
    values = array(fractions, "fractions")
    rising = np.diff(values, prepend=0.0) > 0
    if values.ndim != 1 or not rising.all() or (values > 1).any():
        raise InvalidValueError(
            f"fractions are {fractions}, expected rising numbers above 0 and up to 1"
        )
