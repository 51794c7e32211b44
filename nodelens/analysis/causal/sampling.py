"""Which channels are silenced: samples over the quantiles of a score, and matched controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nodelens.analysis.arrays import Array
from nodelens.analysis.causal.lesions import channel_numbers
from nodelens.errors import InvalidValueError, whole

__all__ = ["Place", "check_scored", "matched", "places", "shuffled_order", "stratified"]

Place = tuple[str, int]
"""A layer and one of its channels."""

_NEAREST = 3


def places(channels: Mapping[str, Any]) -> list[Place]:
    """Return every channel of `{layer: channels}` with its layer, sorted."""
    found = channel_numbers(channels)
    return sorted((layer, number) for layer, chosen in found.items() for number in chosen)


def shuffled_order(values: Array, generator: np.random.Generator) -> Any:
    """Return the order from low to high, `(channels,)`, ties in an order drawn by lot."""
    lots = generator.permutation(len(values))
    return lots[np.argsort(values[lots], kind="stable")]


def stratified(
    values: Array, sample: int, strata: int, generator: np.random.Generator
) -> dict[int, int]:
    """Return `{channel: stratum}` of channels drawn evenly over the quantiles of a score.

    Every stratum gives as many, within one. Where no more channels exist than are asked for, all
    are taken.
    """
    whole("strata", strata, 1)
    order = shuffled_order(values, generator)
    parts = np.array_split(order, max(1, min(strata, sample, len(order))))
    share = np.array_split(np.arange(min(whole("per_layer", sample, 1), len(order))), len(parts))
    drawn = {
        int(channel): number
        for number, (part, size) in enumerate(zip(parts, share, strict=True))
        for channel in generator.permutation(part)[: len(size)]
    }
    return dict(sorted(drawn.items()))


def check_scored(wanted: Sequence[Place], scores: Mapping[str, Array] | None) -> None:
    """Raise InvalidValueError for a channel that has no score; no scores at all are fine."""
    for layer, channel in wanted if scores is not None else ():
        if scores is not None and channel >= len(scores.get(layer, ())):
            raise InvalidValueError(f"layer {layer!r}: channel {channel} has no score to match by")


def matched(
    targets: Sequence[Place],
    pool: Sequence[Place],
    scores: Mapping[str, Array] | None,
    generator: np.random.Generator,
) -> list[Place]:
    """Return a partner for every target, of its layer, out of the pool and never twice.

    With scores it is drawn among the three that are nearest in score, else among all.

    Raises InvalidValueError where a layer's pool is too small.
    """
    left = {place for place in pool if place not in set(targets)}
    chosen: list[Place] = []
    for number in generator.permutation(len(targets)):
        layer, channel = targets[number]
        mine = sorted(place for place in left if place[0] == layer)
        if not mine:
            raise InvalidValueError(
                f"layer {layer!r} has too few channels to match {len(targets)} with: "
                "expected as many controls as channels in every layer"
            )
        if scores is not None:
            gaps = [abs(scores[layer][c] - scores[layer][channel]) for _, c in mine]
            mine = [mine[i] for i in np.argsort(gaps, kind="stable")[:_NEAREST]]
        partner = mine[int(generator.integers(len(mine)))]
        left.remove(partner)
        chosen.append(partner)
    return sorted(chosen)
