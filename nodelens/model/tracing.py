"""The one place that opens an nnsight trace: every lens and wrapper passes through here."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from nodelens.data import Batch
from nodelens.errors import LayerNotReachedError

if TYPE_CHECKING:
    from nodelens.model.wrapper import ModelWrapper

__all__ = ["traced"]


def traced(wrapper: ModelWrapper, batch: Batch, bodies: Sequence[Callable[[], Any]]) -> list[Any]:
    """Return the results of `bodies`, each run as a reader of its own in one forward pass.

    Bodies read modules in forward order; two bodies need not agree on an order.

    Raises LayerNotReachedError when the pass does not come by a module in the order it is read.
    """
    from nnsight.intervention.interleaver import OutOfOrderError

    try:
        with warnings.catch_warnings():
            # A call that did not come is an error here, with the module's name.
            warnings.filterwarnings("ignore", message=".*was never reached", category=UserWarning)
            found = _interleaved(wrapper, batch, bodies)
    except OutOfOrderError as late:
        raise LayerNotReachedError(
            f"the forward pass does not come by as it did before: {_first_line(late)}"
        ) from late
    finally:
        wrapper._tracer = None
    if len(found) < len(bodies):
        raise LayerNotReachedError("the forward pass calls a module fewer times than it did before")
    return [result for _, result in sorted(found, key=lambda pair: pair[0])]


def _interleaved(
    wrapper: ModelWrapper, batch: Batch, bodies: Sequence[Callable[[], Any]]
) -> list[tuple[int, Any]]:
    # Names assigned inside a trace are lost when it ends, objects made outside are not.
    found: list[tuple[int, Any]] = []
    model = wrapper.nnsight
    first, others = bodies[0], bodies[1:]
    with model.trace() as tracer:
        wrapper._tracer = tracer
        with tracer.invoke(*batch.args, **batch.kwargs):
            found.append((0, first()))
        for number, body in enumerate(others, start=1):
            with tracer.invoke():
                found.append((number, body()))
    return found


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
