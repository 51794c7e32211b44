"""Pruning strategies by name; every metric lens's name is one too."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

from nodelens.errors import UnknownNameError, nearest
from nodelens.lens import Lens
from nodelens.metrics import list_metrics
from nodelens.pruning.config import PruningConfig
from nodelens.pruning.strategy import Strategy
from nodelens.registry import Registry

__all__ = [
    "STRATEGIES",
    "find_strategy",
    "get_pruning_strategy",
    "list_pruning_strategies",
    "register_strategy",
    "strategy_named",
]

S = TypeVar("S", bound=type[Strategy])

STRATEGIES: Registry[Strategy] = Registry("pruning strategy")


def register_strategy(
    name: str, *, aliases: Iterable[str] = (), paper: str = ""
) -> Callable[[S], S]:
    """Return a class decorator that registers a strategy; a taken name is a ValueError."""

    def decorate(strategy: S) -> S:
        STRATEGIES.add(name, strategy, tuple(aliases))
        strategy.name = name
        strategy.paper = paper or strategy.paper
        return strategy

    return decorate


def get_pruning_strategy(
    name: str, config: PruningConfig | None = None, **options: Any
) -> Strategy:
    """Return a strategy by its own name, or by that of a metric lens.

    Where both have the name, it is the strategy's. `options` override the config's fields and set
    the strategy's own. Raises UnknownNameError (a KeyError) with close matches,
    UnknownOptionError (a TypeError).
    """
    return find_strategy(name)(config, **options)


def find_strategy(name: str) -> Callable[..., Strategy]:
    """Return what makes a strategy of this name; UnknownNameError with close matches."""
    found = strategy_named(name)
    if found is not None:
        return found
    if _is_metric(name):
        from nodelens.pruning.strategies.metric import MetricStrategy

        return partial(MetricStrategy, metric=name)
    known = list_pruning_strategies()
    raise UnknownNameError(
        f"unknown pruning strategy {name!r}{nearest(str(name), known)}; list_pruning_strategies() "
        f"gives all {len(known)}"
    )


def strategy_named(name: str) -> type[Strategy] | None:
    """Return the class registered as `name`, None for a metric lens's name or an unknown one."""
    import nodelens.pruning.strategies  # noqa: F401 (registers them)

    try:
        return STRATEGIES.get(name)
    except UnknownNameError:
        return None


def list_pruning_strategies() -> list[str]:
    """Return the names of all strategies, those of metric lenses among them, sorted."""
    import nodelens.pruning.strategies  # noqa: F401 (registers them)

    return sorted({*STRATEGIES.names(), *list_metrics()})


def _is_metric(name: str) -> bool:
    from nodelens.metrics import MetricLens

    try:
        return issubclass(Lens.named(name), MetricLens)
    except UnknownNameError:
        return False
