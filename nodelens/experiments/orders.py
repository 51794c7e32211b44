"""What a `pruning` section asks for: strategies, which end of their ranking goes, and chance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from nodelens.configs import Config
from nodelens.configs.sections.pruning import PruningSection
from nodelens.errors import NodeLensError
from nodelens.lens import Lens
from nodelens.pruning import Strategy, get_pruning_strategy
from nodelens.pruning.strategies.metric import MetricStrategy

__all__ = ["Order", "code_of", "orders", "section_of"]

RANDOM = "random"
_SET_HERE = ("amount", "pruning_mode", "schedule", "steps", "structured", "nm")
"""Options that are the section's own, or of masks over single weights."""


@dataclass(frozen=True)
class Order:
    """A choice of channels to prune; of a strategy at `place` in the section, or of chance."""

    label: str
    mode: str
    seed: int | None
    place: int | None
    strategy: Strategy

    @property
    def is_chance(self) -> bool:
        """Return whether channels are drawn, not ranked: a control."""
        return self.place is None


def orders(config: Config) -> list[Order]:
    """Return an order for each strategy and mode, then one for each random seed.

    Raises ConfigError, with file and line, for a strategy or an option that there is not.
    """
    return [*_ranked(config), *_drawn(config)]


def section_of(config: Config) -> PruningSection:
    """Return the section; it is there where the stage is."""
    assert config.pruning is not None, "the stage is only made for a config with the section"
    return config.pruning


def code_of(found: list[Order]) -> list[type]:
    """Return the classes from outside nodelens that decide the scores: strategies and lenses."""
    kinds: list[type] = []
    for strategy in (order.strategy for order in found):
        if isinstance(strategy, MetricStrategy):
            kinds.append(Lens.named(strategy.metric))
        kinds.append(type(strategy))
    return [kind for kind in kinds if kind.__module__.partition(".")[0] != "nodelens"]


def _ranked(config: Config) -> Iterator[Order]:
    section = section_of(config)
    names = [entry.name for entry in section.strategies]
    for place, entry in enumerate(section.strategies):
        many = names.count(entry.name) > 1 and entry.options
        told = ", ".join(f"{key}={value}" for key, value in entry.options.items())
        label = f"{entry.name} ({told})" if many else entry.name
        for mode in section.modes:
            options = {"pruning_mode": mode, "distribution": section.distribution, **entry.options}
            yield Order(label, mode, None, place, _made(config, place, options))


def _drawn(config: Config) -> Iterator[Order]:
    section = section_of(config)
    for seed in section.random_seeds:
        try:
            strategy = get_pruning_strategy(RANDOM, seed=seed, distribution=section.distribution)
        except NodeLensError as error:
            raise config.error(("pruning", "distribution"), str(error)) from error
        yield Order(RANDOM, RANDOM, seed, None, strategy)


def _made(config: Config, place: int, options: dict[str, Any]) -> Strategy:
    entry = section_of(config).strategies[place]
    where = ("pruning", "strategies", place)
    for name in _SET_HERE:
        if name in entry.options:
            raise config.error(
                (*where, name),
                f"not an option here: whole channels are pruned, in one step, by the amounts"
                f" and modes of the section; expected {entry.name!r} without it",
            )
    try:
        made = get_pruning_strategy(entry.name, **{"seed": config.experiment.seed, **options})
    except KeyError as error:
        raise config.error((*where, "name"), str(error)) from error
    except NodeLensError as error:
        raise config.error(where, str(error)) from error
    if made.of_weights:
        raise config.error(
            where, f"{entry.name!r} scores single weights, expected a strategy of channels"
        )
    return made
