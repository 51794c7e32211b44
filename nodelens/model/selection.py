"""Which layers a lens looks at, by regex, by exact name or by glob, in forward order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from nodelens.errors import InvalidValueError, LayerNotFoundError, LayerNotReachedError, nearest

if TYPE_CHECKING:
    from nodelens.model.route import Route
    from nodelens.model.wrapper import ModelWrapper

__all__ = ["compiled", "in_forward_order", "listed", "listing", "select", "shortened"]


def compiled(pattern: str | None) -> re.Pattern[str] | None:
    """Return the compiled regex; InvalidValueError for one that is not a regex."""
    if pattern is None:
        return None
    try:
        return re.compile(pattern)
    except (re.error, TypeError) as mistake:
        raise InvalidValueError(
            f"pattern {pattern!r} is not a regular expression: {mistake}"
        ) from None


def listed(layers: Iterable[str] | str | None) -> list[str] | None:
    """Return names or globs of layers as a list; InvalidValueError for anything else."""
    if layers is None:
        return None
    if not isinstance(layers, Iterable):
        raise InvalidValueError(f"layers is {layers!r}, expected names or globs")
    names = [layers] if isinstance(layers, str) else list(layers)
    for name in names:
        if not isinstance(name, str):
            raise InvalidValueError(f"layers holds {name!r}, expected names or globs")
    return names


def select(
    names: Sequence[str], pattern: re.Pattern[str] | None, layers: Sequence[str] | None
) -> list[str]:
    """Return those of `names` that the pattern (from the start) and the layers choose.

    Raises LayerNotFoundError when one of them chooses nothing, saying what there is.
    """
    chosen = list(names)
    if layers is not None:
        found: set[str] = set()
        known = set(names)
        for wanted in layers:
            # A name is found at once: comparing hundreds of names with hundreds takes a while.
            matches = {wanted} & known or {name for name in names if fnmatchcase(name, wanted)}
            if not matches:
                raise LayerNotFoundError(
                    f"layer {wanted!r} matches nothing{nearest(wanted, names)}; {_exist(names)}"
                )
            found |= matches
        chosen = [name for name in chosen if name in found]
    if pattern is not None:
        chosen = [name for name in chosen if pattern.match(name)]
        if not chosen:
            raise LayerNotFoundError(
                f"pattern {pattern.pattern!r} matches nothing{nearest(pattern.pattern, names)}; "
                f"{_exist(names)}"
            )
    return chosen


def in_forward_order(wrapper: ModelWrapper, route: Route, names: Sequence[str]) -> list[str]:
    """Return `names` in the order the model calls them; LayerNotReachedError if it does not."""
    missed = [name for name in names if not route.reached(name) and name in wrapper.names]
    if missed:
        raise LayerNotReachedError(
            f"the forward pass never calls {shortened(missed)}: leave it out, "
            "or give a batch whose pass does"
        )
    return sorted(names, key=route.order)


def shortened(names: Sequence[str]) -> str:
    """Return the names in one line, quoted, the first twelve of them."""
    return listing([repr(name) for name in names])


def listing(names: Sequence[str], most: int = 12) -> str:
    """Return the names in one line, shortened after `most`."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more if names else "none"


def _exist(names: Sequence[str]) -> str:
    return f"the layers are {shortened(names)}" if names else "there are no layers to score"
