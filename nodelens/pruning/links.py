"""Which layers read which, from torch-pruning's graph: also across skip connections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nodelens.data import Batch
from nodelens.errors import IncompatibleModelError, SurgeryError
from nodelens.model import ModelWrapper
from nodelens.model.copying import independent_copy
from nodelens.model.layers import Layer
from nodelens.pruning.groups import Cuts, Graph
from nodelens.pruning.requests import Request

__all__ = ["Link", "find_links"]


@dataclass(frozen=True)
class Link:
    """A layer whose channels are another's inputs, in order."""

    source: str
    target: str


def find_links(
    model: ModelWrapper, batch: Batch, layers: Sequence[str]
) -> tuple[list[Link], dict[str, str]]:
    """Return the links between `layers`, in their order, and why a layer has none.

    Inputs of the target stand for the source's channels one by one, or as flattened maps, position
    by position; a target that takes them in between others, as behind a concatenation, is left out.
    The graph is traced on a copy of the model.
    """
    graph = Graph(independent_copy(model.module).eval(), batch)
    links: list[Link] = []
    without: dict[str, str] = {}
    try:
        for name in layers:
            source = model.layers[name]
            try:
                first, last = (_cut(graph, source, n) for n in (0, source.channels - 1))
            except (IncompatibleModelError, SurgeryError) as error:
                without[name] = error.message
                continue
            found = [
                t for t in layers if t != name and _in_order(source, model.layers[t], first, last)
            ]
            links += [Link(name, target) for target in found]
            if not found:
                without[name] = "no other layer takes in its channels, and these alone, in order"
    finally:
        graph.release()
    return links, without


def _cut(graph: Graph, layer: Layer, channel: int) -> Cuts:
    return graph.cuts(Request(layer, "channels", (channel,)))


def _in_order(source: Layer, target: Layer, first: Cuts, last: Cuts) -> bool:
    """Whether the first and the last channel are the target's first and last inputs."""
    width, rest = divmod(target.inputs, source.channels)
    ends = (range(width), range(target.inputs - width, target.inputs))
    return not rest and all(
        cuts.inputs.get(target.name) == set(numbers)
        for cuts, numbers in zip((first, last), ends, strict=True)
    )
