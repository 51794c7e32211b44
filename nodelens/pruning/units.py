"""What is pruned under a layer's name: its output channels, or an FFN's units at its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nodelens.errors import InvalidValueError, ShapeError
from nodelens.interventions import Condition, known_layers
from nodelens.model import ModelWrapper
from nodelens.model.layers import Layer, weight_rows
from nodelens.model.loaded import check_not_fused, fused_experts
from nodelens.model.selection import compiled, in_forward_order, select
from nodelens.pruning.masks import check_mask, weight_of

__all__ = [
    "Units",
    "condition_of",
    "inputs_of_groups",
    "prunable",
    "site_of",
    "units_of",
    "units_scored",
]


@dataclass(frozen=True)
class Units:
    """The units that a layer's name stands for.

    `site` is "output" for a layer's own channels and "input" for the units of an FFN at its down
    projection, whose rows are in `feeders` (up, and gate where there is one); "heads" for the
    key-value groups of attention at its output projection. `cost` is how many weights a unit has.
    """

    name: str
    size: int
    site: str = "output"
    feeders: tuple[str, ...] = ()
    cost: int = 1

    def gathered(self, rows: Callable[[str], Tensor]) -> Tensor:
        """Return `(size, cost)`: all weights of each unit, `rows(layer)` being `(channels, width)`.

        Of an FFN's unit these are its rows in the feeders and its column in the down projection.
        """
        own = rows(self.name)
        if self.site == "output":
            return own
        return torch.cat([*(rows(feeder) for feeder in self.feeders), own.T], dim=1)

    def weights(self, model: ModelWrapper) -> Tensor:
        """Return `(size, cost)`: all of the model's weights that belong to each unit."""
        return self.gathered(lambda name: weight_rows(model.torch_module(name)))


def prunable(
    model: ModelWrapper,
    layers: Sequence[str] | str | None = None,
    pattern: str | None = None,
    *,
    weights: bool = False,
    heads: bool = False,
) -> dict[str, Units]:
    """Return the units of the layers chosen, in forward order.

    Unless they are named: not the output layer, whose channels are the answer; not the layers of
    attention, pruned by whole key-value groups; not what feeds an FFN, whose units stand under the
    down projection. Norms and embeddings never. FFNs are known once a pass was seen. Where single
    `weights` are pruned, every layer but the output layer is meant, each with its own rows. With
    `heads`, output projections are meant too, and stand for key-value groups.
    """
    every = _reached(model)
    if layers is None and pattern is None:
        chosen = every[:-1] if weights else _default(model, every, heads)
    else:
        layers = [layers] if isinstance(layers, str) else layers
        for name in set(layers or ()) - model.layers.keys():
            check_not_fused(model.module, name)
        chosen = select(every, compiled(pattern), layers)
    if not chosen:
        fused = "".join(f"; {name!r} holds fused experts" for name in fused_experts(model.module))
        raise InvalidValueError(
            f"the model has no layer to prune but its output layer: name it in layers={fused}"
        )
    if weights:
        return {name: _rows(model, name) for name in chosen}
    return {name: _groups(model, name, heads) or units_of(model, name) for name in chosen}


def units_of(model: ModelWrapper, name: str) -> Units:
    """Return what a layer's name stands for, as far as passes have shown."""
    layer, route = model.layers[name], model.known_route()
    if route is not None and name in route.down_projections:
        feeders = _feeders(model, name)
        if feeders:
            cost = len(feeders) * layer.channels + layer.channels
            return Units(name, layer.inputs, "input", feeders, cost)
    return _rows(model, name)


def units_scored(model: ModelWrapper, name: str, size: int) -> Units:
    """Return what `size` scores of a layer are of; ShapeError when they fit nothing it has."""
    groups = _groups(model, name, site_of(model, name, size) == "heads")
    return groups or units_of(model, name)


def site_of(model: ModelWrapper, name: str, size: int) -> str:
    """Return where a layer's mask of `size` entries applies; ShapeError when it fits nothing."""
    layer, units = model.layers[name], units_of(model, name)
    if size == units.size:
        return units.site
    if size == layer.channels:
        return "output"
    if layer.heads and size == layer.key_value_heads:
        return "heads"
    raise ShapeError(
        f"layer {name!r}: {size} entries, expected {units.size} "
        f"({'units of the FFN' if units.site == 'input' else 'output channels'})"
    )


def condition_of(model: ModelWrapper, masks: Mapping[str, Tensor]) -> Condition:
    """Return the probe that silences what masks do not keep: channels, units or single weights."""
    for name in known_layers(model, masks):
        _check_fits(model, name, masks[name])
    silent = {name: ~mask for name, mask in masks.items() if not bool(mask.all())}
    weights = {name: mask for name, mask in silent.items() if mask.ndim > 1}
    where = {n: site_of(model, n, len(mask)) for n, mask in silent.items() if n not in weights}
    heads = {n: _of_heads(silent[n], model.layers[n]) for n, s in where.items() if s == "heads"}
    channels = {name: silent[name] for name in where if name not in heads}
    at_input = {name: "input" for name, site in where.items() if site != "output"}
    return Condition(channels, heads, site=at_input, weights=weights)


def _check_fits(model: ModelWrapper, name: str, mask: Tensor) -> None:
    check_mask(name, mask)
    if mask.ndim == 1:
        site_of(model, name, len(mask))
    elif mask.shape != (shape := weight_of(model.torch_module(name)).shape):
        raise ShapeError(
            f"layer {name!r}: a mask of shape {tuple(mask.shape)}, expected one entry a unit, or "
            f"the weight's {tuple(shape)}"
        )


def inputs_of_groups(groups: Tensor, layer: Layer) -> Tensor:
    """Return what is said of key-value groups for each channel that the layer takes in."""
    return groups.repeat_interleave(layer.inputs // layer.key_value_heads)


def _of_heads(groups: Tensor, layer: Layer) -> Tensor:
    return groups.repeat_interleave(layer.heads // layer.key_value_heads)


def _groups(model: ModelWrapper, name: str, heads: bool) -> Units | None:
    """The key-value groups that an output projection takes in, None of another layer."""
    layer = model.layers[name]
    if not (heads and layer.heads):
        return None
    shared, size = layer.key_value_heads, layer.inputs // layer.heads
    # Queries and the output of each head, and the keys and values that the heads share.
    cost = layer.channels * size * 2 * (layer.heads // shared + 1)
    return Units(name, shared, "heads", (), cost)


def _reached(model: ModelWrapper) -> list[str]:
    route = model.known_route()
    if route is None:
        return list(model.layers)
    return in_forward_order(model, route, [name for name in model.layers if route.reached(name)])


def _rows(model: ModelWrapper, name: str) -> Units:
    layer = model.layers[name]
    return Units(name, layer.channels, "output", (), layer.width)


def _default(model: ModelWrapper, every: list[str], heads: bool) -> list[str]:
    route = model.known_route()
    downs = [] if route is None else route.down_projections
    fed = {feeder for name in downs for feeder in _feeders(model, name)}
    attention = {_parent(name) for name, layer in model.layers.items() if layer.heads}
    left = [
        name
        for name in every[:-1]
        if (heads and model.layers[name].heads)
        or (_parent(name) not in attention and name not in fed)
    ]
    return [*left, every[-1]] if every and every[-1] in downs and every[-1] not in left else left


def _feeders(model: ModelWrapper, down: str) -> tuple[str, ...]:
    """The layers that give an FFN's units: called before its end, and each as wide as it takes."""
    route = model.known_route()
    assert route is not None
    width = weight_rows(model.torch_module(down)).shape[1]
    before = sorted((n for n in model.layers if route.reached(n)), key=route.order)
    before = before[: before.index(down)][-2:]
    inputs = model.layers[down].channels
    return tuple(
        n for n in before if model.layers[n].channels == width and model.layers[n].inputs == inputs
    )


def _parent(name: str) -> str:
    return name.rpartition(".")[0]
