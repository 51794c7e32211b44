"""The one place that opens an nnsight trace: every lens and wrapper passes through here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from nodelens.data import Batch

if TYPE_CHECKING:
    from nodelens.model.wrapper import ModelWrapper

__all__ = ["traced"]


def traced(wrapper: ModelWrapper, batch: Batch, bodies: Sequence[Callable[[], Any]]) -> list[Any]:
    """Return the results of `bodies`, each run as a reader of its own in one forward pass.

    Bodies read modules in forward order; two bodies need not agree on an order.
    """
    # Names assigned inside a trace are lost when it ends, objects made outside are not.
    found: list[Any] = []
    model = wrapper.nnsight
    first, others = bodies[0], bodies[1:]
    try:
        with model.trace() as tracer:
            wrapper._tracer = tracer
            with tracer.invoke(*batch.args, **batch.kwargs):
                found.append((0, first()))
            for number, body in enumerate(others, start=1):
                with tracer.invoke():
                    found.append((number, body()))
    finally:
        wrapper._tracer = None
    return [result for _, result in sorted(found, key=lambda pair: pair[0])]
