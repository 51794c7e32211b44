"""Dose and response, and what is lost as channels of each type go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import exp
from typing import Any

import numpy as np

from nodelens.analysis.arrays import array, seeded
from nodelens.analysis.causal.calls import checked
from nodelens.analysis.causal.check import CausalCheck, CausalResult
from nodelens.analysis.causal.estimates import Estimate, interval, mean_of, resamples_of
from nodelens.analysis.causal.lesions import Damage, Lesion, channel_numbers, lesion
from nodelens.analysis.causal.sampling import Place, places
from nodelens.errors import InvalidValueError, whole

__all__ = ["ANY", "Cascade", "HitRateSweep", "cascade", "hit_rate_sweep", "of_places"]

ANY = "any"
"""The control of a cascade: channels of all types together."""


class HitRateSweep(CausalCheck):
    """As many channels go at every dose; the dose is the fraction of the core that is among them.

    `core` and `others` are `{layer: channels}`. Each layer loses as many channels as it has in the
    core, at dose f that fraction of the core and for the rest channels out of `others`, drawn
    `draws` times.
    """

    name = "hit_rate_sweep"

    def __init__(
        self,
        core: Mapping[str, Any],
        others: Mapping[str, Any],
        *,
        fractions: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
        draws: int = 5,
        resamples: int = 1000,
        seed: int = 0,
    ) -> None:
        self.core, self.others = by_layer(core), _without(by_layer(others), by_layer(core))
        if not self.core:
            raise InvalidValueError("the core has no channel, expected at least one")
        doses = array(fractions, "fractions")
        if doses.ndim != 1 or not doses.size or doses.min() < 0 or doses.max() > 1:
            raise InvalidValueError(f"fractions are {fractions}, expected numbers from 0 to 1")
        whole("draws", draws, 1)
        for layer, mine in self.core.items():
            if len(self.others.get(layer, [])) < len(mine):
                raise InvalidValueError(
                    f"layer {layer!r}: {len(self.others.get(layer, []))} other channels for a core "
                    f"of {len(mine)}, expected as many at least"
                )
        self.resamples, self.seed = resamples, seed
        generator = seeded(seed)
        self.doses: list[tuple[float, int, Lesion]] = [
            (fraction, draw, self._drawn(fraction, generator))
            for fraction in doses.tolist()
            for draw in range(draws)
        ]
        self.lesions = [which for _, _, which in self.doses]

    def _drawn(self, fraction: float, generator: np.random.Generator) -> Lesion:
        gone = {}
        for layer, mine in self.core.items():
            hit = round(fraction * len(mine))
            core = generator.permutation(mine)[:hit]
            filler = generator.permutation(self.others[layer])[: len(mine) - hit]
            gone[layer] = [*core, *filler]
        return lesion(gone)

    def conclude(self, damage: Damage) -> CausalResult:
        """Return the mean loss change at every dose, and `slope`, in loss from dose 0 to 1."""
        generator = np.random.default_rng(self.seed + 1)
        rows = [
            {
                "fraction": fraction,
                "draw": draw,
                "loss": damage.loss(which),
                "perplexity": _perplexity(damage.loss(which)),
                "loss_change": damage.change(which),
                "accuracy": damage.accuracy(which),
            }
            for fraction, draw, which in self.doses
        ]
        dose = np.array([fraction for fraction, _, _ in self.doses])
        response = damage.changes(self.lesions)
        picks = resamples_of(len(dose), self.resamples, generator)
        slopes = np.array([_slope(dose[p], response[p]) for p in picks])
        estimates = {"slope": interval(slopes[0], slopes[1:])}
        for fraction in dict.fromkeys(dose.tolist()):
            mine = response[dose == fraction]
            estimates[f"loss_change.{fraction:g}"] = mean_of(mine, self.resamples, generator)
        return self.result(estimates, rows)


class Cascade(CausalCheck):
    """n channels of each type go, drawn out of the type `draws` times.

    `types` is `{type: {layer: channels}}`. The control draws from all types together. A type with
    fewer than n channels is left out at n.
    """

    name = "cascade"

    def __init__(
        self,
        types: Mapping[str, Mapping[str, Any]],
        *,
        counts: Sequence[int] = (1, 2, 4, 8),
        draws: int = 5,
        resamples: int = 1000,
        seed: int = 0,
    ) -> None:
        pools = pools_of(types, counts, draws)
        if ANY in pools:
            raise InvalidValueError(f"a type is named {ANY!r}, as the control is: rename it")
        pools[ANY] = sorted({place for pool in pools.values() for place in pool})
        self.resamples, self.seed = resamples, seed
        generator = seeded(seed)
        self.steps: list[tuple[str, int, int, Lesion]] = [
            (name, n, draw, of_places(_drawn(pool, n, generator)))
            for name, pool in pools.items()
            for n in counts
            if n <= len(pool)
            for draw in range(draws)
        ]
        self.lesions = [which for *_, which in self.steps]

    def conclude(self, damage: Damage) -> CausalResult:
        """Return the mean loss change of n channels of each type, as `loss_change.TYPE.N`.

        `excess.TYPE.N` is how far that is above n channels of any type.
        """
        rows = [
            {
                "type": name,
                "n": n,
                "draw": draw,
                "loss_change": damage.change(which),
                "accuracy": damage.accuracy(which),
            }
            for name, n, draw, which in self.steps
        ]
        generator = np.random.default_rng(self.seed + 1)
        cost: dict[tuple[str, int], list[float]] = {}
        for name, n, _, which in self.steps:
            cost.setdefault((name, n), []).append(damage.change(which))
        estimates: dict[str, Estimate] = {}
        for (name, n), mine in cost.items():
            estimates[f"loss_change.{name}.{n}"] = mean_of(
                np.array(mine), self.resamples, generator
            )
            if name != ANY:
                draws = [
                    np.array(x)[resamples_of(len(x), self.resamples, generator)].mean(1)
                    for x in (mine, cost[(ANY, n)])
                ]
                gap = draws[0] - draws[1]
                estimates[f"excess.{name}.{n}"] = interval(gap[0], gap[1:])
        return self.result(estimates, rows)


def pools_of(
    types: Mapping[str, Mapping[str, Any]], counts: Sequence[int], draws: int
) -> dict[str, list[Place]]:
    """Return the channels of every type.

    Raises InvalidValueError where that, or the numbers to be drawn, leave nothing to silence.
    """
    pools = {name: places(channels) for name, channels in types.items()}
    most = max(map(len, pools.values()), default=0)
    if not most:
        raise InvalidValueError("no type has channels, expected {type: {layer: channels}}")
    whole("draws", draws, 1)
    if min([whole("counts", n, 1) for n in counts], default=most + 1) > most:
        raise InvalidValueError(f"counts are {counts}, and the largest type has {most} channels")
    return pools


def by_layer(channels: Mapping[str, Any]) -> dict[str, list[int]]:
    """Return `{layer: channel numbers}`, sorted and each once; layers without any left out."""
    return {layer: chosen for layer, chosen in channel_numbers(channels).items() if chosen}


def of_places(chosen: Iterable[Place]) -> Lesion:
    """Return the lesion of these channels."""
    channels: dict[str, list[int]] = {}
    for layer, channel in chosen:
        channels.setdefault(layer, []).append(channel)
    return lesion(channels)


def _without(channels: dict[str, list[int]], core: dict[str, list[int]]) -> dict[str, list[int]]:
    return {
        name: [c for c in mine if c not in core.get(name, [])] for name, mine in channels.items()
    }


def _drawn(pool: Sequence[Place], n: int, generator: np.random.Generator) -> list[Place]:
    return [pool[i] for i in generator.permutation(len(pool))[:n]]


def _perplexity(loss: float) -> float:
    return exp(loss) if loss < 700 else float("inf")


def _slope(dose: Any, response: Any) -> float:
    spread = dose - dose.mean()
    size = float((spread**2).sum())
    return float((spread * response).sum()) / size if size > 0 else 0.0


def hit_rate_sweep(
    model: Any,
    batches: Iterable[Any],
    core: Mapping[str, Any],
    others: Mapping[str, Any],
    **options: Any,
) -> CausalResult:
    """Return the loss against the fraction of a core removed; see `HitRateSweep`."""
    return checked(HitRateSweep, model, batches, (core, others), options)


def cascade(
    model: Any, batches: Iterable[Any], types: Mapping[str, Mapping[str, Any]], **options: Any
) -> CausalResult:
    """Return what n channels of each type cost; see `Cascade`."""
    return checked(Cascade, model, batches, (types,), options)
