"""Lenses that only read: they declare what is to be measured, and the pass is planned for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nodelens.data import Batch
from nodelens.errors import InvalidValueError, LayerNotReachedError, NonFiniteError
from nodelens.lens import Lens
from nodelens.model.costs import shortage
from nodelens.model.facts import facts_of_targets
from nodelens.model.gather import (
    GRADIENT,
    Gathering,
    Measured,
    Stops,
    check_kept,
    gather,
    measure_gradients,
    plan_reads,
)
from nodelens.model.layers import Layer
from nodelens.model.loss import pools_tokens, predict
from nodelens.model.session import untouched
from nodelens.model.wrapper import ModelWrapper
from nodelens.statistics.read import Read
from nodelens.stream import Stream

__all__ = ["ReadingLens", "followed", "located"]

UNFELT = "there were batches with no target that counts (all are -100): no loss, gradients of 0"


class ReadingLens(Lens):
    """A lens whose statistics follow from `reads(layer)`; never changes an activation."""

    def wanted(self, model: ModelWrapper) -> dict[str, list[Read]]:
        """Return the reads of every selected layer, in forward order of the layers."""
        selected = self._selected(model)
        if not selected:
            raise LayerNotReachedError(
                f"the forward pass calls none of the layers that {self.name!r} can score"
            )
        return {name: list(self.reads(located(model, name)).values()) for name in selected}

    def left_out(self, model: ModelWrapper) -> list[str]:
        """Return the layers that could be scored but that the pass never calls.

        Only where all layers are meant: one that was asked for is an error.
        """
        route = model.known_route()
        if route is None or self._compiled is not None or self.layers is not None:
            return []
        return [n for n in model.names if self.scores(n, model) and not route.reached(n)]

    def _stops(self, stream: Stream, batch: Batch) -> Stops:
        def make() -> Stops:
            model = stream.model
            # Only a pass shows where FFNs end, so a lens may find out here that there are none.
            self._ensure_compatible(model)
            wanted = self.wanted(model)
            route = model.route(batch)
            layers = [located(model, name) for name in wanted]
            facts = facts_of_targets(model, batch)
            if (short := shortage(model, wanted, layers, facts)) is not None:
                raise InvalidValueError(
                    f"{short}: give run() a memory_budget= below that, for several passes, or "
                    "leave layers out with layers= or pattern="
                )
            with untouched(model.module):
                # A parametrised weight may be computed anew, and in training changed, when read.
                return plan_reads(model, route, wanted, layers)

        stops: Stops = stream.once("stops", make)
        return stops

    def said_of(self, model: ModelWrapper, batch: Batch) -> list[str]:
        """Return the note on next tokens that are sorted into classes."""
        if not pools_tokens(batch, model.module):
            return []
        reads = [read for wanted in self.wanted(model).values() for read in wanted]
        if not any(r.target == "targets" and "targets" in r.statistic.needs for r in reads):
            return []
        return [
            "next tokens are the targets, their class the remainder of their number by "
            f"{batch.token_classes} (token_classes=)"
        ]

    def _needs_gradient(self, stream: Stream, batch: Batch) -> bool:
        return self._stops(stream, batch).gradients

    def _watched(self, stream: Stream, batch: Batch) -> list[str]:
        visits = self._stops(stream, batch).visits
        return list(dict.fromkeys(visit.layer.name for visit in visits))

    def _intervene(self, model: ModelWrapper, **kwargs: Any) -> Any:
        stream, batch = kwargs["stream"], kwargs["batch"]
        return gather(model, batch, self._stops(stream, batch))

    def _conclude(self, found: list[Any], stream: Stream, batch: Batch) -> Measured:
        gathering: Gathering = found[0]
        model = stream.model
        if GRADIENT in gathering.waiting:
            with untouched(model.module, gradients=True):
                try:
                    prediction = predict(gathering.outputs, batch, model.module, None)
                except NonFiniteError:
                    check_kept(gathering.waiting[GRADIENT], batch)
                    raise
                measure_gradients(gathering, prediction)
            if not prediction.terms and UNFELT not in stream.said:
                stream.said.append(UNFELT)
        return gathering.measured


def followed(model: ModelWrapper, name: str, read: Read) -> bool:
    """Return whether there is a layer beside which a read can be measured, as far as is known."""
    route = model.known_route()
    if not read.beside or route is None or not route.reached(name):
        return not read.beside or len(model.layers) > 1
    return route.beside(name, read.beside) is not None


def located(model: ModelWrapper, name: str) -> Layer:
    """Return a layer's description, with what only a pass can show: whether it ends an FFN."""
    layer, route = model.layers[name], model.known_route()
    if route is None or name not in route.down_projections:
        return layer
    return replace(layer, in_ffn=True)
