"""Measuring a model that runs elsewhere: the lens travels there, its statistics come back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import nodelens.errors
from nodelens.aggregator import Aggregator
from nodelens.data import Batch
from nodelens.errors import IncompatibleModelError, NodeLensError
from nodelens.model.gather import Measured
from nodelens.model.route import Route
from nodelens.model.shipping import packages_of, sources, writable
from nodelens.model.wrapper import ModelWrapper
from nodelens.statistics.base import Statistic
from nodelens.statistics.read import Read

if TYPE_CHECKING:
    from nodelens.lens import Lens
    from nodelens.stream import Stream

__all__ = ["measured_elsewhere"]


def measured_elsewhere(stream: Stream, batch: Batch) -> Measured:
    """Return a batch's statistics from a hosted pass; no activation comes back.

    Raises IncompatibleModelError for a lens that needs the model here, and what the pass raises.
    """
    lens, model = stream.lens, stream.model
    _check_hostable(lens, stream, batch)
    reads = [read for wanted in lens.wanted(model).values() for read in wanted]
    there = replace(stream, model=None, settled={}, batch_options={})  # type: ignore[arg-type]
    route = model.route(batch)
    payload = writable(_measure, (there, replace(batch, loss=None), route, dict(model.references)))
    code = sources(packages_of(_classes(lens, reads)))
    found = model.trace_hosted(batch, stream.remote, code, payload)
    if "error" in found:
        name, message = found["error"]
        raise getattr(nodelens.errors, name, NodeLensError)(message)
    route.check_visits(found["visits"])
    return Aggregator.unpacked(lens, *found["packed"]).statistics


def _measure(
    model: Any, tracer: Any, stream: Stream, batch: Batch, route: Route, references: dict[str, Any]
) -> dict[str, Any]:
    """What the server does inside the trace; gives back plain data, as it forgets our classes."""
    wrapper = stream.model = ModelWrapper(model)
    wrapper.follow(route, tracer)
    wrapper.references = references
    before = dict(model.interleaver.counts)
    try:
        packed, watched = _intervene(stream, batch.to(wrapper.device))
    except NodeLensError as error:
        return {"error": (type(error).__name__, str(error))}
    _ = model.output  # waits for the end of the pass, when all calls are counted
    return {"packed": packed, "visits": wrapper.visits_since(before, watched)}


def _intervene(stream: Stream, batch: Batch) -> tuple[Any, list[str]]:
    lens = stream.lens
    found = lens._intervene(stream.model, batch=batch, stream=stream, **stream.own_options)
    return _packed(lens, getattr(found, "measured", found)), list(lens._watched(stream, batch))


def _packed(lens: Lens, measured: Any) -> Any:
    for layer, found in measured.items():
        for key, value in found.items():
            if not isinstance(value, Statistic):
                raise IncompatibleModelError(
                    f"layer {layer!r}: {key!r} is a {type(value).__name__}, and only statistics "
                    "come back from a hosted model"
                )
    aggregator = Aggregator(lens)
    aggregator.update(measured)
    return aggregator.packed()


def _check_hostable(lens: Lens, stream: Stream, batch: Batch) -> None:
    if (reason := _refusal(lens, stream, batch)) is not None:
        raise IncompatibleModelError(f"remote={stream.remote!r}: {reason}; run it without remote=")


def _refusal(lens: Lens, stream: Stream, batch: Batch) -> str | None:
    if lens.edits:
        return "the lens compares outputs of the edited model here, so the model has to be here"
    if len(lens._bodies(stream.model, {"batch": batch, "stream": stream})) > 1:
        return "a hosted pass has one reader, and some parts of the composite read on their own"
    if _takes_gradient(lens, stream.model):
        parts = getattr(lens, "lenses", ())
        names = ", ".join(part.name for part in parts if _takes_gradient(part, stream.model))
        return (
            f"the lens takes the gradient of the loss after the pass{names and f' ({names})'}, so "
            "the model has to be here"
        )
    return None


def _takes_gradient(lens: Lens, model: ModelWrapper) -> bool:
    wanted = lens.wanted(model).values()
    return any("gradient" in read.statistic.needs for reads in wanted for read in reads)


def _classes(lens: Lens, reads: Iterable[Read]) -> Iterator[type]:
    """Every class the server must know: the lens, its parts, and the statistics they read."""
    yield from (type(part) for part in (lens, *getattr(lens, "lenses", ())))
    yield from (read.statistic for read in reads)
