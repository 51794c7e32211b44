"""Do two channels that a score calls synergistic need each other?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nodelens.analysis.arrays import Array, array, seeded
from nodelens.analysis.causal.calls import checked
from nodelens.analysis.causal.check import CausalCheck, CausalResult, Scores, score_arrays
from nodelens.analysis.causal.estimates import interval, resamples_of
from nodelens.analysis.causal.lesions import Damage, Lesion, lesion
from nodelens.analysis.causal.sampling import check_scored
from nodelens.errors import InvalidValueError, ShapeError, whole

__all__ = ["PairLesion", "pair_lesion"]

_NEAREST = 3


@dataclass(frozen=True)
class _Pair:
    """Channels of one layer, and what they go by in the table."""

    layer: str
    i: int
    j: int
    synergy: float

    @property
    def lesions(self) -> tuple[Lesion, Lesion, Lesion]:
        return tuple(lesion({self.layer: c}) for c in ([self.i], [self.j], [self.i, self.j]))  # type: ignore[return-value]


class PairLesion(CausalCheck):
    """The pairs of highest synergy go, alone and together, and so does a control for each.

    `synergy` is `{layer: (channels, channels)}`, symmetric. The control of (i, j) is (i, k), k
    drawn from the channels with which i has at most its median synergy, among the three nearest to
    j in `scores` where they are given.
    """

    name = "pair_lesion"

    def __init__(
        self,
        synergy: Mapping[str, Any],
        *,
        pairs: int = 16,
        scores: Scores | None = None,
        resamples: int = 1000,
        seed: int = 0,
    ) -> None:
        given = {layer: _symmetric(matrix, layer) for layer, matrix in synergy.items()}
        self.widths = {layer: len(matrix) for layer, matrix in given.items()}
        whole("pairs", pairs, 1)
        by = None if scores is None else score_arrays(scores)
        check_scored([(layer, width - 1) for layer, width in self.widths.items()], by)
        generator = seeded(seed)
        self.resamples, self.seed = resamples, seed
        self.high = _highest(given, pairs)
        self.control = [
            _control(pair, given[pair.layer], None if by is None else by[pair.layer], generator)
            for pair in self.high
        ]
        self.lesions: list[Lesion] = [
            which for pair in (*self.high, *self.control) for which in pair.lesions
        ]

    def conclude(self, damage: Damage) -> CausalResult:
        """Return means over pairs and their gaps to the controls, with bootstrap intervals.

        `excess` is what a pair costs together above the sum of what each costs alone: below 0
        where two need each other (losing one loses both), above 0 where either can stand in.
        `interaction` is its size, `joint` what the pair costs together. Each `_gap` is a high pair
        against its own control, `p` of a test that turns the signs of the interactions' gaps.
        """
        found = {kind: _measures(damage, getattr(self, kind)) for kind in ("high", "control")}
        generator = np.random.default_rng(self.seed + 1)
        picks = resamples_of(len(self.high), self.resamples, generator)
        estimates = {}
        for name, mine in found["high"].items():
            for label, values in ((name, mine), (f"{name}_gap", mine - found["control"][name])):
                means = values[picks].mean(1)
                estimates[label] = interval(means[0], means[1:])
        gap = found["high"]["interaction"] - found["control"]["interaction"]
        p = _sign_test(gap, self.resamples, generator)
        estimates["p"] = interval(p, np.array([p]))
        return self.result(estimates, self._rows(found))

    def _rows(self, found: Mapping[str, Mapping[str, Array]]) -> list[dict[str, Any]]:
        return [
            {
                "kind": kind,
                "layer": pair.layer,
                "i": pair.i,
                "j": pair.j,
                "synergy": pair.synergy,
                **{name: float(values[n]) for name, values in found[kind].items()},
            }
            for kind in ("high", "control")
            for n, pair in enumerate(getattr(self, kind))
        ]


def _measures(damage: Damage, pairs: list[_Pair]) -> dict[str, Array]:
    one, two, both = (damage.changes([pair.lesions[n] for pair in pairs]) for n in range(3))
    excess = both - one - two
    return {"joint": both, "excess": excess, "interaction": np.abs(excess)}


def _sign_test(gaps: Array, draws: int, generator: np.random.Generator) -> float:
    """One-sided p-value, (r + 1) / (n + 1), of a mean above 0 under turned signs."""
    signs = generator.choice([-1.0, 1.0], (draws, len(gaps)))
    return (int(((signs * gaps).mean(1) >= gaps.mean()).sum()) + 1) / (draws + 1)


def _symmetric(matrix: Any, layer: str) -> Array:
    found = array(matrix, f"the synergy of layer {layer!r}")
    if found.ndim != 2 or found.shape[0] != found.shape[1] or len(found) < 3:
        raise ShapeError(
            f"layer {layer!r}: synergy of shape {found.shape}, expected (channels, channels) "
            "of at least 3 channels"
        )
    if not np.allclose(found, found.T):
        raise InvalidValueError(f"layer {layer!r}: the synergy is not symmetric")
    return found


def _highest(synergy: Mapping[str, Array], pairs: int) -> list[_Pair]:
    found = []
    for layer, matrix in synergy.items():
        for i, j in zip(*np.triu_indices(len(matrix), 1), strict=True):
            found.append(_Pair(layer, int(i), int(j), float(matrix[i, j])))
    if not found:
        raise InvalidValueError("no layer has synergies, expected {layer: (channels, channels)}")
    return sorted(found, key=lambda pair: (-pair.synergy, pair.layer, pair.i, pair.j))[:pairs]


def _control(
    pair: _Pair, matrix: Array, scores: Array | None, generator: np.random.Generator
) -> _Pair:
    others = np.array([k for k in range(len(matrix)) if k not in (pair.i, pair.j)])
    row = matrix[pair.i, others]
    low = others[row <= np.median(row)]
    if scores is not None:
        low = low[np.argsort(np.abs(scores[low] - scores[pair.j]), kind="stable")[:_NEAREST]]
    k = int(low[int(generator.integers(len(low)))])
    return _Pair(pair.layer, pair.i, k, float(matrix[pair.i, k]))


def pair_lesion(
    model: Any, batches: Iterable[Any], synergy: Mapping[str, Any], **options: Any
) -> CausalResult:
    """Return whether pairs of high synergy need each other; see `PairLesion`."""
    return checked(PairLesion, model, batches, (synergy,), options)
