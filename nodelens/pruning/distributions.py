"""How many units each layer loses when a budget is shared out: one function a distribution."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from nodelens.errors import InvalidValueError, nearest

__all__ = ["Budget", "get_distribution", "list_distributions", "register_distribution"]


@dataclass(frozen=True)
class Budget:
    """What there is to share out: everything is by layer name, in forward order.

    `scores` are the importances as they are; of `order`, the same shape, the lowest are to go,
    whatever the mode, and protected units are infinite in it. `sizes` count units, `costs` are the
    weights a unit has, `least` and `most` bound what is removed; `total` is to be removed in all.
    `options` are those given to `masks`.
    """

    scores: Mapping[str, Tensor]
    order: Mapping[str, Tensor]
    sizes: Mapping[str, int]
    costs: Mapping[str, int]
    least: Mapping[str, int]
    most: Mapping[str, int]
    amount: float
    total: int
    options: Mapping[str, Any] = field(default_factory=dict)

    def option(self, name: str, default: Any = None) -> Any:
        """Return an option given to `masks`, or the default."""
        return self.options.get(name, default)


Share = Callable[[Budget], Mapping[str, float]]


@dataclass(frozen=True)
class Distribution:
    """What each layer should lose, the options that reads, and the units lost in all.

    Without `total` these are the amount of all units, as `Budget.total` has them.
    """

    share: Share
    options: tuple[str, ...] = ()
    total: Callable[[Budget], int] | None = None


_DISTRIBUTIONS: dict[str, Distribution] = {}


def register_distribution(
    name: str, *, options: tuple[str, ...] = (), total: Callable[[Budget], int] | None = None
) -> Callable[[Share], Share]:
    """Return a decorator for a function that says what each layer should lose, as real numbers.

    What it returns is brought to whole numbers within every layer's bounds that sum to the total.
    `options` are what it reads of those given to `masks`, `total` the units lost in all where that
    is not the amount of all units. A taken name is InvalidValueError.
    """

    def decorate(share: Share) -> Share:
        holder = _DISTRIBUTIONS.get(name)
        if holder is not None and holder.share.__module__ != share.__module__:
            raise InvalidValueError(f"the distribution name {name!r} is taken")
        _DISTRIBUTIONS[name] = Distribution(share, options, total)
        return share

    return decorate


def get_distribution(name: str) -> Distribution:
    """Return a distribution; InvalidValueError with the nearest name."""
    known = list_distributions()
    if name not in known:
        raise InvalidValueError(
            f"distribution is {name!r}{nearest(name, known)}, expected one of {', '.join(known)}"
        )
    return _DISTRIBUTIONS[name]


def list_distributions() -> list[str]:
    """Return the names of all distributions, sorted."""
    import nodelens.pruning.shares
    import nodelens.pruning.strategies  # noqa: F401 (these two register them)

    return sorted(_DISTRIBUTIONS)
