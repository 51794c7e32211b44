"""How much is pruned, which end of the ranking goes, and what every layer keeps."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from nodelens.errors import InvalidValueError, nearest, whole

__all__ = ["MODES", "SCHEDULES", "PruningConfig", "check_amount", "whole"]

MODES = ("low", "high", "random")
SCHEDULES = ("one_shot", "linear", "cubic")


@dataclass(frozen=True)
class PruningConfig:
    """What all strategies share; every value is checked when it is made.

    `amount` in [0, 1) is the part removed. `pruning_mode` "low" removes the lowest scores, "high"
    the highest (an ablation), "random" a seeded random set. `structured` masks whole channels,
    else single weights; `nm=(2, 4)` keeps 2 of every 4 weights along a row, and sets the amount.
    `distribution` shares a budget out to layers; each removes between `min_amount` and `max_amount`
    of its channels and keeps `min_keep` of them. `schedule` "linear" or "cubic" takes `steps`.

    Raises InvalidValueError (a ValueError) with the nearest valid name.
    """

    amount: float = 0.5
    pruning_mode: str = "low"
    structured: bool = True
    distribution: str = "uniform"
    min_keep: int = 1
    seed: int = 0
    min_amount: float = 0.0
    max_amount: float = 1.0
    nm: tuple[int, int] | None = None
    schedule: str = "one_shot"
    steps: int = 1

    def __post_init__(self) -> None:
        check_amount(self.amount)
        _check_choice("pruning_mode", self.pruning_mode, MODES)
        _check_choice("schedule", self.schedule, SCHEDULES)
        _check_flag("structured", self.structured)
        whole("min_keep", self.min_keep, 1)
        whole("steps", self.steps, 1)
        whole("seed", self.seed, 0)
        self._check_distribution()
        self._check_range()
        self._check_pattern()

    def _check_distribution(self) -> None:
        from nodelens.pruning.distributions import list_distributions

        _check_choice("distribution", self.distribution, list_distributions())

    def _check_range(self) -> None:
        for name in ("min_amount", "max_amount"):
            value = getattr(self, name)
            if not _is_number(value) or not 0 <= value <= 1:
                raise InvalidValueError(f"{name} is {value!r}, expected a number from 0 to 1")
        if self.min_amount > self.max_amount:
            raise InvalidValueError(
                f"min_amount is {self.min_amount} and max_amount {self.max_amount}, "
                "expected the first not to be above the second"
            )

    def _check_pattern(self) -> None:
        if self.nm is None:
            return
        if not _is_pattern(self.nm):
            raise InvalidValueError(f"nm is {self.nm!r}, expected (n, m) with 0 < n < m, as (2, 4)")
        if self.structured:
            raise InvalidValueError("nm masks single weights: give structured=False with it")
        part = 1 - self.nm[0] / self.nm[1]
        if not math.isclose(self.amount, part) and self.amount != PruningConfig.amount:
            raise InvalidValueError(
                f"amount is {self.amount}, and nm={self.nm} removes {part}: leave amount out"
            )
        object.__setattr__(self, "amount", part)
        object.__setattr__(self, "nm", tuple(self.nm))


def check_amount(amount: Any) -> float:
    """Return an amount as a float; InvalidValueError when it is not in [0, 1)."""
    if not _is_number(amount) or not 0 <= amount < 1:
        raise InvalidValueError(
            f"amount is {amount!r}, expected the part to remove, from 0 to below 1: "
            "at 1 nothing of a layer would be left"
        )
    return float(amount)


def _check_choice(name: str, value: Any, valid: Iterable[str]) -> None:
    valid = list(valid)
    if value not in valid:
        raise InvalidValueError(
            f"{name} is {value!r}{nearest(str(value), valid)}, expected one of {', '.join(valid)}"
        )


def _check_flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise InvalidValueError(f"{name} is {value!r}, expected True or False")


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, (int, float)) and math.isfinite(value)


def _is_pattern(nm: Any) -> bool:
    return (
        isinstance(nm, (tuple, list))
        and len(nm) == 2
        and all(isinstance(n, int) and not isinstance(n, bool) for n in nm)
        and 0 < nm[0] < nm[1]
    )
