"""What looks on while a stream is measured, and adds to its result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from nodelens.errors import InvalidValueError
from nodelens.jackknife import Jackknife
from nodelens.settled import Settled, Settling

if TYPE_CHECKING:
    from nodelens.lens import Lens

__all__ = ["Follower", "check_one_pass", "followers"]

Follower: TypeAlias = "Settling | Jackknife"


def followers(
    lens: Lens,
    until: Settled | None,
    standard_errors: bool,
    groups: int | None,
    options: Mapping[str, Any],
) -> list[Follower]:
    """Return who looks on: checks of the ranking, and a jackknife over `groups` (20) groups.

    Raises InvalidValueError for standard errors together with `resume=`, and for groups without
    standard errors.
    """
    found: list[Follower] = [] if until is None else [Settling(until)]
    if groups is not None and not standard_errors:
        raise InvalidValueError(
            f"lens {lens.name!r} was given groups={groups!r} without standard errors, which alone "
            "are made from groups: give standard_errors=True as well, or leave groups= out"
        )
    if standard_errors:
        if options.get("resume") is not None:
            raise InvalidValueError(
                "standard_errors=True does not go with resume=: the saved statistics are merged, "
                "so they cannot be dealt to groups any more"
            )
        found.append(Jackknife(lens, 20 if groups is None else groups))
    return found


def check_one_pass(looking_on: Sequence[Follower]) -> None:
    """Raise InvalidValueError where a run may take several passes and someone looks on."""
    if looking_on:
        raise InvalidValueError(
            "until= and standard_errors= look at one pass over the batches, and memory_budget= may "
            "take several: leave one of them out"
        )
