"""Every causal check as one call: options go to the check or to its run, unknown ones to no one."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from nodelens.analysis.causal.check import CausalCheck, CausalResult
from nodelens.errors import UnknownOptionError, nearest

__all__ = ["checked"]


def checked(
    kind: type[CausalCheck],
    model: Any,
    batches: Iterable[Any],
    given: tuple[Any, ...],
    options: Mapping[str, Any],
) -> CausalResult:
    """Return the result of a check made from `given` and its own options, run with the others.

    Raises UnknownOptionError for an option of neither.
    """
    own = inspect.signature(kind).parameters
    running = inspect.signature(kind.run).parameters
    for option in options:
        if option not in own and option not in running:
            known = [*own, *list(running)[3:]]
            raise UnknownOptionError(
                f"{kind.name} has no option {option!r}{nearest(option, known)}; "
                f"it has {', '.join(known)}"
            )
    check = kind(*given, **{k: v for k, v in options.items() if k in own})
    return check.run(model, batches, **{k: v for k, v in options.items() if k not in own})
