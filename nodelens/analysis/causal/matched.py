"""What is lost as channels of each type go, beside as many of the same layers drawn at random."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from nodelens.analysis.arrays import Array, seeded
from nodelens.analysis.causal.calls import checked
from nodelens.analysis.causal.check import CausalCheck, CausalResult
from nodelens.analysis.causal.doses import of_places, pools_of
from nodelens.analysis.causal.estimates import Estimate, interval, resamples_of
from nodelens.analysis.causal.lesions import Damage, Lesion
from nodelens.analysis.causal.sampling import Place

__all__ = ["MatchedCascade", "matched_cascade"]


class MatchedCascade(CausalCheck):
    """n channels of each type go, and so do n random channels of the same layers.

    `types` is `{type: {layer: channels}}`. Each of `draws` sets has a control of its own: as many
    channels of every layer, of any type. What a layer costs is thereby no difference between types.
    A type with fewer than n channels is left out at n.
    """

    name = "matched_cascade"

    def __init__(
        self,
        types: Mapping[str, Mapping[str, Any]],
        *,
        counts: Sequence[int] = (1, 2, 4, 8),
        draws: int = 10,
        resamples: int = 1000,
        seed: int = 0,
    ) -> None:
        pools = pools_of(types, counts, draws)
        everyone = _by_layer({place for pool in pools.values() for place in pool})
        self.resamples, self.seed = resamples, seed
        generator = seeded(seed)
        self.steps: list[tuple[str, int, Lesion, Lesion]] = []
        for name, pool in pools.items():
            for n in (n for n in counts if n <= len(pool)):
                for _ in range(draws):
                    chosen = [pool[i] for i in generator.permutation(len(pool))[:n]]
                    control = _control(chosen, everyone, generator)
                    self.steps.append((name, n, of_places(chosen), of_places(control)))
        self.lesions = [which for *_, mine, control in self.steps for which in (mine, control)]

    def conclude(self, damage: Damage) -> CausalResult:
        """Return the mean loss change of n channels of each type, as `loss_change.TYPE.N`.

        `control.TYPE.N` is that of the controls, `excess.TYPE.N` how far the type is above its own,
        draw by draw; `excess.TYPE` is the mean over all n. Intervals are over draws.
        """
        rows: list[dict[str, Any]] = [
            {
                "type": name,
                "n": n,
                "loss_change": damage.change(mine),
                "control": damage.change(control),
                "accuracy": damage.accuracy(mine),
                "control_accuracy": damage.accuracy(control),
            }
            for name, n, mine, control in self.steps
        ]
        cost: dict[tuple[str, int], list[tuple[float, float]]] = {}
        for row in rows:
            pair = (row["loss_change"], row["control"])
            cost.setdefault((row["type"], row["n"]), []).append(pair)
        return self.result(self._estimates(cost), rows)

    def _estimates(self, cost: Mapping[tuple[str, int], Any]) -> dict[str, Estimate]:
        generator = np.random.default_rng(self.seed + 1)
        estimates: dict[str, Estimate] = {}
        means: dict[str, list[Array]] = {}
        for (name, n), pairs in cost.items():
            mine, control = np.array(pairs).T
            picks = resamples_of(len(mine), self.resamples, generator)
            for label, values in (
                ("loss_change", mine),
                ("control", control),
                ("excess", mine - control),
            ):
                drawn = values[picks].mean(1)
                estimates[f"{label}.{name}.{n}"] = interval(drawn[0], drawn[1:])
            means.setdefault(name, []).append(drawn)
        for name, of_counts in means.items():
            drawn = np.mean(of_counts, 0)
            estimates[f"excess.{name}"] = interval(drawn[0], drawn[1:])
        return estimates


def _by_layer(chosen: Iterable[Place]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for layer, channel in sorted(chosen):
        found.setdefault(layer, []).append(channel)
    return found


def _control(
    chosen: Sequence[Place], everyone: Mapping[str, list[int]], generator: np.random.Generator
) -> list[Place]:
    """As many channels of every layer as are chosen there, whatever their type."""
    sizes = Counter(layer for layer, _ in chosen)
    return [
        (layer, int(channel))
        for layer, size in sorted(sizes.items())
        for channel in generator.permutation(everyone[layer])[:size]
    ]


def matched_cascade(
    model: Any, batches: Iterable[Any], types: Mapping[str, Mapping[str, Any]], **options: Any
) -> CausalResult:
    """Return what n channels of each type cost above controls of theirs; see `MatchedCascade`."""
    return checked(MatchedCascade, model, batches, (types,), options)
