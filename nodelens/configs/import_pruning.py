"""The `pruning` section of the unified dialect as ours: which key is which, and what is not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nodelens.errors import UnknownNameError

__all__ = ["pruning_key", "reason_left", "strategies_of"]

_LISTS = ("algorithms", "scoring_methods")
_RENAMED = {
    "ratios": "amounts",
    "selection_modes": "modes",
    "distribution": "distribution",
    "fine_tune.epochs": "fine_tuning.epochs",
    "fine_tune.learning_rate": "fine_tuning.learning_rate",
    "fine_tune.weight_decay": "fine_tuning.weight_decay",
}
_STRATEGIES = {
    "rq": "rayleigh_quotient",
    "rq_low": "rayleigh_quotient",
    # Ours argue against a channel: their lowest scores are those of the most redundant channels.
    "redundancy_high": "average_redundancy",
    "synergy": "synergy_gaussian_mmi",
    "synergy_low": "synergy_gaussian_mmi",
}
"""Names of the dialect that are not those of the strategies."""
_WHY = {
    "enabled": "the section is enabled by being there",
    "fine_tune.max_batches": "every epoch goes over all training rows",
    "structured": "whole channels are pruned in a configuration",
    "dependency_aware": "what belongs together goes together where a network is cut out (shrink)",
    "min_per_layer": "min_amount is an option of each strategy",
    "max_per_layer": "max_amount is an option of each strategy",
}


def strategies_of(section: Any, *, language: bool) -> tuple[list[str], list[tuple[str, str, str]]]:
    """Return the strategies a section names, as ours, and `(key, name, why)` of those left out.

    In the dialect, `magnitude` of a language model is a norm of activations. `random` is in neither
    list: chance is always compared with.
    """
    found: dict[str, None] = {}
    left = []
    for key, name in _named(section):
        ours = _STRATEGIES.get(name, name)
        if language and name == "magnitude":
            ours = "activation_l2_norm"
        if name == "redundancy" or not _is_strategy(ours):
            left.append((key, name, "no strategy here is certain to be it"))
        elif name != "random":
            found[ours] = None
    return list(found), left


def pruning_key(key: str, value: Any, section: Mapping[str, Any]) -> tuple[str, Any] | None:
    """Return what a key below `pruning` is called in ours, and its value; None for no equal."""
    if key.startswith("fine_tune.") and not section["fine_tune"].get("enabled", True):
        return None
    if key == "ratios":
        value = [ratio for ratio in value if 0 < ratio < 1]
    if key == "selection_modes":
        value = [mode for mode in value if mode in ("low", "high")]
    ours = _RENAMED.get(key)
    return None if ours is None or value == [] else (f"pruning.{ours}", value)


def reason_left(key: str) -> str:
    """Return why a key below `pruning` has no equal."""
    return _WHY.get(key, "not enabled" if key.startswith("fine_tune.") else "has no equal here")


def _named(section: Any) -> Iterator[tuple[str, str]]:
    for key in _LISTS:
        names = section.get(key) if isinstance(section, Mapping) else None
        for name in names if isinstance(names, list) else ():
            yield key, str(name)


def _is_strategy(name: str) -> bool:
    from nodelens.pruning.registry import find_strategy

    try:
        find_strategy(name)
    except UnknownNameError:
        return False
    return True
