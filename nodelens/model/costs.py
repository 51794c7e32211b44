"""What a read costs, told before any data is read: the statistic is measured on no rows.

Measured on torch's meta device, where tensors have shapes and no memory: so what is counted is what
the statistic itself keeps, and no second description of it has to be kept true.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from nodelens.memory import available, shown_bytes
from nodelens.model.facts import Facts, Shown
from nodelens.model.layers import Layer
from nodelens.model.logits import check_few
from nodelens.model.views import look, viewed_weights
from nodelens.model.wrapper import ModelWrapper
from nodelens.statistics import PatchMoments, Sample, Statistic, WeightFisher
from nodelens.statistics.blocks import elements
from nodelens.statistics.comoments import TILE_SHARE
from nodelens.statistics.read import BESIDE_CLASS, Read, joined_reads

__all__ = ["Cost", "cost_of", "exceeded", "home", "other_layer", "shortage", "state_bytes"]

_CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TEMPORARIES = 3
"""Copies of a layer's values that are alive at once while a statistic is worked out."""
_TILES = 16
"""Tiles of a matrix that are alive at once while a formula on pairs of channels is worked out."""
_WHOLE = 3
"""Matrices that are alive at once while a score is worked out of a whole one."""
_PER_PAIR = 16
"""Bytes a pair of channels, or a channel and an input, takes in any statistic there is."""
_FEWEST = 1024


@dataclass(frozen=True)
class Cost:
    """What a read costs: bytes that stay, bytes a batch takes besides, and arithmetic.

    `state` is what the merged statistic keeps, exactly. `fresh` is what the batch's own has until
    it is merged, with tensors that wait; `work` what measuring and scoring need in passing, one
    read at a time: both are estimates. `flops` are those of one of `rows` rows a
    batch. `channels` counts those of the view. `unknown` names what only a batch shows, `state`
    being that for one of it.
    """

    state: int
    fresh: int
    work: int
    flops: int
    rows: int | None
    channels: int
    unknown: tuple[str, ...] = ()


def cost_of(
    layer: Layer,
    read: Read,
    where: tuple[torch.device, torch.dtype],
    facts: Facts | None = None,
    *,
    by_block: bool = True,
    every_class: bool = True,
    beside: Layer | None = None,
) -> Cost:
    """Return what a read of a layer costs; `where` is the device and type of its weights.

    `by_block` says whether what reads it goes through matrices a few rows at a time, `every_class`
    whether classes below the highest count that the batch has no row of. `beside` is the other
    layer of a read of two.
    """
    shown = {} if facts is None else facts.of(layer)
    # Layers that differ by name alone cost the same.
    sites = shown.get("input"), shown.get("output")
    width = 0 if beside is None else _width(beside, read.site)
    return _cost(replace(layer, name=""), read, *where, *sites, by_block, every_class, width)


@lru_cache(maxsize=1 << 14)
def _cost(
    layer: Layer,
    read: Read,
    device: torch.device,
    dtype: torch.dtype,
    seen: Shown | None,
    made: Shown | None,
    by_block: bool,
    every_class: bool,
    beside: int,
) -> Cost:
    sites = {"input": seen, "output": made}
    blank = _Blank(layer, read, dtype, sites, every_class=every_class, beside=beside)
    fresh = blank.measured()
    kept, values = fresh.widened(), blank.sample().values
    state, weight = state_bytes(kept), read.site == "weight"
    samples = 0 if blank.shown is None else blank.shown.samples
    size = samples * prod(values.shape[1:]) * values.element_size()
    # What waits is kept: for its gradient, which is as large, the model's outputs, another layer.
    waits = read.of_outputs or bool(read.beside)
    held = 2 * size if "gradient" in read.statistic.needs else size if waits else 0
    return Cost(
        state=state,
        fresh=(0 if weight else state_bytes(fresh)) + held,
        work=max(_TEMPORARIES * size, _scoring(kept, device, read.pairwise and by_block)),
        flops=0 if weight else _flops(kept, read, layer, values.shape[1]),
        rows=samples * prod(values.shape[2:]) if samples else None,
        channels=values.shape[1],
        unknown=() if weight else tuple(blank.unknown(state)),
    )


def state_bytes(statistic: Statistic) -> int:
    """Return the bytes of all tensors that a statistic keeps."""
    return sum(t.numel() * t.element_size() for t in statistic.state().values())


def home(wrapper: ModelWrapper, name: str) -> tuple[torch.device, torch.dtype]:
    """Return where a layer's statistics are kept, and the type of its weights."""
    first = next(wrapper.torch_module(name).parameters(), None)
    if first is None:
        return wrapper.device, torch.float32
    return first.device, first.dtype


def shortage(
    wrapper: ModelWrapper,
    reads: Mapping[str, Sequence[Read]],
    layers: Sequence[Layer],
    facts: Facts | None = None,
) -> str | None:
    """Return how much more memory these reads need than there is left, None when they fit."""
    wanted = [(layer, read) for layer in layers for read in joined_reads(reads[layer.name])]

    def room(bytes_of: Callable[[Layer, Read], int]) -> dict[torch.device, int]:
        found: Counter[torch.device] = Counter()
        for layer, read in wanted:
            found[home(wrapper, layer.name)[0]] += bytes_of(layer, read)
        return found

    def taken(layer: Layer, read: Read) -> int:
        other = other_layer(wrapper, layer, read)
        where = home(wrapper, layer.name)
        # A bound on classes that may never come is no reason to refuse a run.
        cost = cost_of(layer, read, where, facts, every_class=False, beside=other)
        return cost.state + cost.fresh

    def bound(layer: Layer, read: Read) -> int:
        free = read.beside or "targets" in read.statistic.needs
        return taken(layer, read) if free else _at_most(layer)

    return None if exceeded(room(bound)) is None else exceeded(room(taken))


def other_layer(wrapper: ModelWrapper, layer: Layer, read: Read) -> Layer | None:
    """Return the other layer of a read of two; without a pass, "next" is one as large."""
    if not read.beside:
        return None
    route = wrapper.known_route()
    name = None if route is None else route.beside(layer.name, read.beside)
    return wrapper.layers.get(name or read.beside, layer)


def _width(layer: Layer, site: str) -> int:
    return layer.channels if site == "output" else layer.inputs


def exceeded(needed: Mapping[torch.device, int]) -> str | None:
    """Return which device has less memory left than needed, if one has."""
    for device, size in needed.items():
        left = available(device)
        if left is not None and size > left:
            return f"{shown_bytes(size)} of statistics on {device}, {shown_bytes(left)} are left"
    return None


def _at_most(layer: Layer) -> int:
    """Bytes that no statistic of one layer's values exceeds, without working them out."""
    taps = 1 if layer.window is None else layer.window.taps
    return _PER_PAIR * int(max(layer.channels, layer.inputs * taps, _FEWEST)) ** 2


@dataclass(frozen=True)
class _Blank:
    """A read of a layer in a batch without rows; unknown maps are the smallest, or `more`."""

    layer: Layer
    read: Read
    dtype: torch.dtype
    sites: Mapping[str, Shown | None]
    more: int = 0
    every_class: bool = True
    beside: int = 0
    device: str = "meta"

    @property
    def shown(self) -> Shown | None:
        return self.sites.get(self.read.site)

    def measured(self) -> Statistic:
        """Return the statistic, without memory where it can be measured so."""
        try:
            return self._measured()
        except (NotImplementedError, RuntimeError):
            if self.device != "meta":
                raise
            # Some read a number off a tensor, and on the meta device there is none.
            return replace(self, device="cpu").measured()

    def _measured(self) -> Statistic:
        found = self.read.statistic.measure(self.sample(), **dict(self.read.options))
        if self.shown is None or (self.read.of_outputs and not self._beside_class):
            return found
        few = not self.every_class and getattr(found, "by_class", False)
        classes = self.shown.occurring if few else self.shown.classes
        if classes is not None and hasattr(found, "padded"):
            padded: Statistic = found.padded(classes)
            return padded
        return found

    def sample(self) -> Sample:
        """Return what the layer shows."""
        read, layer, module = self.read, self.layer, self._stand_in()
        assert isinstance(module.weight, Tensor)
        weight = module.weight.detach()
        if read.site == "weight":
            rows = viewed_weights(read.view, layer, module, weight)
            return Sample(rows, window=layer.window)
        empty = {site: self._empty(site) for site in ("input", "output")}
        values = look(read.view, empty[read.site], layer, module, weight)
        gradient = torch.empty_like(values)
        seen = Sample(values, gradient, self._targets(), empty["input"], layer.window)
        other = values.new_empty((0, self.beside, *values.shape[2:]))
        return replace(seen, beside=other) if read.beside else seen

    def _empty(self, site: str) -> Tensor:
        channels = _width(self.layer, site)
        halves = self.dtype in (torch.float16, torch.bfloat16)
        kind = torch.float32 if halves or not self.dtype.is_floating_point else self.dtype
        return torch.empty((0, channels, *self._space(site)), device=self.device, dtype=kind)

    def _targets(self) -> Tensor:
        if self.read.of_outputs:
            known = None if self.shown is None else self.shown.outputs
            columns = (known or 1) if self.read.target.endswith("logits") else 1
            check_few(columns)
            return torch.empty((0, columns + self._beside_class), device=self.device)
        if self.shown is None or self.shown.dimensions is None:
            return torch.empty(0, dtype=torch.int64, device=self.device)
        return torch.empty((0, self.shown.dimensions), device=self.device)

    @property
    def _beside_class(self) -> bool:
        return self.read.target.startswith(BESIDE_CLASS)

    def _space(self, site: str) -> tuple[int, ...]:
        shown, window = self.sites[site], self.layer.window
        if window is None or (shown is not None and shown.space and not window.space):
            return () if shown is None else shown.space
        axes = range(len(window.kernel))
        spans = [(window.kernel[a] - 1) * window.dilation[a] + 1 for a in axes]
        sizes = list(window.space) or [
            max(spans[a], max(window.padding[a]) + 1) + self.more * window.stride[a] for a in axes
        ]
        if site == "input":
            return tuple(sizes)
        padded = [sizes[a] + sum(window.padding[a]) for a in axes]
        return tuple((padded[a] - spans[a]) // window.stride[a] + 1 for a in axes)

    def _stand_in(self) -> nn.Module:
        """A module of the layer's shape, for views that go through the weights."""
        layer, window = self.layer, self.layer.window
        kind = self.dtype if self.dtype.is_floating_point else torch.float32
        options: dict[str, Any] = {"bias": False, "device": self.device, "dtype": kind}
        if window is None:
            return nn.Linear(layer.inputs, layer.channels, **options)
        make = _CONVOLUTIONS[len(window.kernel)]
        kernel: Any = window.kernel
        return make(layer.inputs, layer.channels, kernel, groups=window.groups, **options)

    def unknown(self, state: int) -> Iterator[str]:
        """Yield what the state grows with that only a batch shows."""
        shown = self.shown
        told = shown is not None and (shown.classes, shown.dimensions) != (None, None)
        if self.read.of_outputs:
            if shown is None and self.read.target.endswith("logits"):
                yield "logits"
            if shown is None and self._beside_class:
                yield "classes"
        elif not told and hasattr(self.read.statistic, "padded"):
            yield "classes"
        if self.layer.window is not None and shown is None:
            larger = replace(self, more=1).measured().widened()
            if state_bytes(larger) != state:
                yield "positions"


def _scoring(kept: Statistic, device: torch.device, tiled: bool) -> int:
    """Bytes that scores take in passing: copies of the state, of matrices a few rows at a time.

    Of a matrix a class, one class is worked on after the other, beside the total.
    """
    if getattr(kept, "by_class", False):
        return 2 * _WHOLE * max(t.numel() * t.element_size() for t in kept.state().values())
    if not tiled:
        return _WHOLE * state_bytes(kept)
    largest = max((t.numel() for t in kept.state().values()), default=0)
    return _TILES * 8 * min(largest, elements(torch.empty(0, device=device)) // TILE_SHARE)


def _flops(kept: Statistic, read: Read, layer: Layer, channels: int) -> int:
    """A multiplication and an addition for every number kept; a counter is added to for a row.

    An estimate: it is right for sums of products, and within a factor of two for the others.
    """
    if issubclass(read.statistic, PatchMoments):
        return 4 * channels  # summed over samples first, pixel by pixel
    if issubclass(read.statistic, WeightFisher) and layer.window is not None:
        return 2 * layer.channels * layer.width  # a weight gradient for every sample
    tensors = kept.state().values()
    sums = sum(2 * (t.numel() if t.is_floating_point() else len(t)) for t in tensors)
    through = read.view in ("tap_sum", "pooled_tap_sum", "change")
    return sums + (2 * layer.channels * layer.width if through else 0)
