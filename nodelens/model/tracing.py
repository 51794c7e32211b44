"""The one place that opens an nnsight trace: every lens and wrapper passes through here."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from nodelens.data import Batch
from nodelens.errors import LayerNotReachedError
from nodelens.model.shipping import run_shipped

if TYPE_CHECKING:
    from nodelens.model.wrapper import ModelWrapper

__all__ = ["traced", "traced_hosted"]


def traced(wrapper: ModelWrapper, batch: Batch, bodies: Sequence[Callable[[], Any]]) -> list[Any]:
    """Return the results of `bodies`, each run as a reader of its own in one forward pass.

    Bodies read modules in forward order; two bodies need not agree on an order.

    Raises LayerNotReachedError when the pass does not come by a module in the order it is read.
    """
    try:
        with _late_reads_named():
            found = _interleaved(wrapper, batch, bodies)
    finally:
        wrapper._tracer = None
    if len(found) < len(bodies):
        raise LayerNotReachedError("the forward pass calls a module fewer times than it did before")
    return [result for _, result in sorted(found, key=lambda pair: pair[0])]


def traced_hosted(
    wrapper: ModelWrapper, batch: Batch, remote: bool | str, code: bytes, payload: bytes
) -> Any:
    """Return what the function in `payload` brings, run in a pass where the model is hosted.

    What crosses over are the batch, the text of our packages, and on the way back plain data.
    """
    path = list(sys.path)
    try:
        with _late_reads_named():
            found = _hosted(wrapper.nnsight, batch, remote, code, payload)
    finally:
        # remote="local" puts our folders at the end of the path.
        sys.path[:] = path
    if found is None:
        raise LayerNotReachedError("the hosted pass ended before all was read")
    return found


def _hosted(model: Any, batch: Batch, remote: bool | str, code: bytes, payload: bytes) -> Any:
    import nnsight

    # By name this one module's functions are sent as text; no one else pickles them.
    nnsight.register(run_shipped.__module__)
    found: Any = None
    with model.trace(*batch.args, remote=remote, **batch.kwargs) as tracer:
        found = nnsight.save(run_shipped(model, tracer, code, payload))
    return found


@contextmanager
def _late_reads_named() -> Iterator[None]:
    from nnsight.intervention.interleaver import OutOfOrderError

    try:
        with warnings.catch_warnings():
            # A call that did not come is an error here, with the module's name.
            warnings.filterwarnings("ignore", message=".*was never reached", category=UserWarning)
            yield
    except OutOfOrderError as late:
        raise LayerNotReachedError(
            f"the forward pass does not come by as it did before: {_first_line(late)}"
        ) from late


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
