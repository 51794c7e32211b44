"""Which units are silenced: the core and its controls, and half of all by every order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nodelens.analysis.supernodes import matched_others, random_cores, write_halo
from nodelens.pruning import get_pruning_strategy
from nodelens.pruning.masks import generator_for
from projects.supernodes_scar.scores import Layers, Scores
from projects.supernodes_scar.study import Study

__all__ = ["AMOUNT", "Condition", "alike_blocks", "conditions", "halos_and_matches"]

AMOUNT = 0.5
"""Share of the units of every block that goes where orders are compared."""
_SEEDS_OF_HALVES = 3


@dataclass(frozen=True)
class Condition:
    """Units to silence, `{down projection: mask, True to silence}`, under the name of a group.

    `stand_in` are the values in their place, zero where there is none.
    """

    name: str
    group: str
    silent: Mapping[str, Tensor] = field(default_factory=dict)
    seed: int | None = None
    stand_in: Layers | None = None


def conditions(study: Study, scores: Scores) -> Iterator[Condition]:
    """Yield the dense model, what removes about a core, halos, and halves."""
    yield Condition("dense", "dense")
    yield from _removals(study, scores)
    yield from _halos(scores)
    yield from _halves(study, scores)


def _removals(study: Study, scores: Scores) -> Iterator[Condition]:
    proxy = scores["loss proxy"]
    yield Condition("top 1% by loss proxy", "removed", _masks(scores.core, proxy))
    following = {name: _next(found, len(scores.core[name])) for name, found in proxy.items()}
    yield from _split_core(scores)
    yield Condition("next 1% by loss proxy", "removed", _masks(following, proxy))
    yield Condition("top 1% by activation power", "removed", _masks(scores.active, proxy))
    peaks = {
        name: _top(found, len(scores.core[name]))
        for name, found in scores["activation peak"].items()
    }
    yield Condition("top 1% by activation peak", "removed", _masks(peaks, proxy))
    for seed in range(study.settings.seeds):
        drawn = _drawn(scores, seed)
        yield Condition("random 1%, without the top", "removed", _masks(drawn, proxy), seed)


def _split_core(scores: Scores) -> Iterator[Condition]:
    """Yield the highest unit of every block, and the rest of the core: is it one unit?"""
    proxy = scores["loss proxy"]
    first = {name: _top(found, 1) for name, found in proxy.items()}
    rest = {name: core[core != first[name]] for name, core in scores.core.items()}
    yield Condition("first of the top 1%, one a block", "removed", _masks(first, proxy))
    yield Condition("top 1% but its first", "removed", _masks(rest, proxy))


def halos_and_matches(scores: Scores) -> tuple[Layers, Layers]:
    """Return the units that write where the core does, and others of like loss proxy."""
    proxy = scores["loss proxy"]
    halos = {name: write_halo(scores.down[name], core)[0] for name, core in scores.core.items()}
    others = {
        name: matched_others(proxy[name], halo, scores.core[name]) for name, halo in halos.items()
    }
    return halos, others


def _halos(scores: Scores) -> Iterator[Condition]:
    proxy = scores["loss proxy"]
    for name, units in zip(
        ("write-halo", "matched others"), halos_and_matches(scores), strict=True
    ):
        yield Condition(f"{name}, 10%", "halo", _masks(units, proxy))
        alike = {layer: units[layer] for layer in alike_blocks(scores)}
        yield Condition(f"{name}, 10%, where alike", "halo", _masks(alike, proxy))


def alike_blocks(scores: Scores, most: float = 1.5) -> list[str]:
    """Return the blocks whose halo has at most 1.5 times the loss proxy and power of its matches.

    A halo that holds units like none outside it has no match, whatever others are taken.
    """
    halos, others = halos_and_matches(scores)
    return [
        layer
        for layer, halo in halos.items()
        if all(
            scores[name][layer][halo].sum() <= most * scores[name][layer][others[layer]].sum()
            for name in ("loss proxy", "activation power")
        )
    ]


def _halves(study: Study, scores: Scores) -> Iterator[Condition]:
    orders = {
        "SCAR-Prot": scores.scar_prot(),
        "SCAR-Conn": scores.scar_conn(),
        "loss proxy": scores["loss proxy"],
        "SCAR-Prot around activations": scores.scar_prot("activation power"),
        "activation power": scores["activation power"],
        "Wanda, channels": scores["Wanda"],
        "FLAP, uniform": scores["FLAP"],
    }
    for name, order in orders.items():
        yield Condition(name, "half", _half(study, order))
    kept = {
        "top 1% by loss proxy": scores.core,
        "top 1% by activation power": scores.active,
        "random 1%": _drawn(scores, 0),
    }
    for name, core in kept.items():
        silent = _half(study, scores["Wanda"], core)
        yield Condition(f"Wanda, channels, {name} kept", "half", silent)
    flap = get_pruning_strategy("flap").masks(study.model, scores["FLAP"], AMOUNT)
    silent = {name: ~mask for name, mask in flap.items()}
    yield Condition("FLAP, one threshold, means", "half", silent, stand_in=scores["mean"])
    for seed in range(_SEEDS_OF_HALVES):
        yield Condition("random", "half", _half(study, _chance(scores, seed)), seed)


def _half(study: Study, order: Layers, protected: Layers | None = None) -> Layers:
    # Every uniform strategy makes the same masks of the same scores.
    strategy = get_pruning_strategy("wanda")
    masks = strategy.masks(study.model, order, AMOUNT, protected=protected)
    return {name: ~mask for name, mask in masks.items()}


def _chance(scores: Scores, seed: int) -> Layers:
    return {
        name: torch.rand(len(found), generator=generator_for(seed, name), dtype=torch.float64)
        for name, found in scores["loss proxy"].items()
    }


def _drawn(scores: Scores, seed: int) -> Layers:
    proxy = scores["loss proxy"]
    return {
        name: random_cores(len(proxy[name]), len(core), 1, exclude=core, seed=1000 * seed + number)[
            0
        ]
        for number, (name, core) in enumerate(scores.core.items())
    }


def _top(scores: Tensor, count: int) -> Tensor:
    return torch.sort(scores, descending=True, stable=True).indices[:count]


def _next(scores: Tensor, count: int) -> Tensor:
    return torch.sort(scores, descending=True, stable=True).indices[count : 2 * count]


def _masks(chosen: Layers, like: Layers) -> Layers:
    masks = {name: torch.zeros(len(found), dtype=torch.bool) for name, found in like.items()}
    for name, units in chosen.items():
        masks[name][units] = True
    return masks
