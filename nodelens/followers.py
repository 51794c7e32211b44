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
    lens: Lens, until: Settled | None, groups: int | None, options: Mapping[str, Any]
) -> list[Follower]:
    """Return who looks on: checks of the ranking, and a jackknife over `groups` groups.

    Raises InvalidValueError for standard errors together with `resume=`.
    """
    found: list[Follower] = [] if until is None else [Settling(until)]
    if groups is not None:
        if options.get("resume") is not None:
            raise InvalidValueError(
                "standard_errors=True does not go with resume=: the saved statistics are merged, "
                "so they cannot be dealt to groups any more"
            )
        found.append(Jackknife(lens, groups))
    return found


def check_one_pass(looking_on: Sequence[Follower]) -> None:
    """Raise InvalidValueError where a run may take several passes and someone looks on."""
    if looking_on:
        raise InvalidValueError(
            "until= and standard_errors= look at one pass over the batches, and memory_budget= may "
            "take several: leave one of them out"
        )
