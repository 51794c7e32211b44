"""Sharing the reads of a run out to passes, so that each keeps to the memory there is for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar, Protocol

from torch import Tensor

from nodelens.errors import InvalidValueError
from nodelens.memory import shown_bytes
from nodelens.model.costs import Cost, cost_of, home, other_layer
from nodelens.model.facts import Facts
from nodelens.model.layers import Layer
from nodelens.model.wrapper import ModelWrapper
from nodelens.plan.plan import PlannedPass, PlannedRead
from nodelens.statistics import Statistic
from nodelens.statistics.read import Read, joined_reads

__all__ = ["Prices", "Scoring", "Share", "packed"]

MOST_BLOCKS = 64
"""Passes that one layer is spread over at most: more would take longer than anyone waits."""

Remarks = Mapping[str, int] | list[str]
"""What a part of a layer has to say: sentences, or a tally that adds up over blocks."""


class Scoring(Protocol):
    """A lens whose layers, and whose blocks of channels where it says so, are scored one by one."""

    name: ClassVar[str]
    by_block: ClassVar[bool]

    def reads(self, layer: Layer) -> dict[str, Read]:
        """Return what is to be measured at a layer."""

    def score_part(
        self, found: Mapping[Any, Statistic], block: tuple[int, int] | None
    ) -> tuple[dict[str, Tensor], Remarks]:
        """Return the scores of a layer or of a block of its channels, and what to know of them."""

    def remark_on(self, layer: str, remarks: Sequence[Remarks]) -> list[str]:
        """Return the notes on a layer, from what all its parts said."""


@dataclass(frozen=True)
class Share:
    """What one lens, number `number` of a composite, reads at a layer or at a block of channels."""

    number: int
    lens: Scoring
    layer: Layer
    block: tuple[int, int] | None = None

    @property
    def reads(self) -> list[Read]:
        """Return the reads, those of pairs of channels for the block alone."""
        reads = list(self.lens.reads(self.layer).values())
        return reads if self.block is None else [read.block(*self.block) for read in reads]

    def to_json(self) -> list[Any]:
        """Return what tells the share from others of its lens."""
        return [self.number, self.layer.name, self.block and list(self.block)]


class Prices:
    """What reads of one model cost, with what is known of the batches.

    Where states of several processes are `merged`, one of another process is there beside this
    one's and their merge.
    """

    def __init__(self, wrapper: ModelWrapper, facts: Facts | None, merged: bool = False) -> None:
        self.wrapper, self.facts, self.merged = wrapper, facts, merged

    def cost(self, layer: Layer, read: Read, *, by_block: bool = True) -> Cost:
        """Return what a read of a layer costs; more where its matrix is scored as a whole."""
        where = home(self.wrapper, layer.name)
        beside = other_layer(self.wrapper, layer, read)
        cost = cost_of(layer, read, where, self.facts, by_block=by_block, beside=beside)
        return replace(cost, fresh=max(cost.fresh, 2 * cost.state)) if self.merged else cost

    def planned(self, shares: Iterable[Share]) -> PlannedPass:
        """Return the pass that measures these shares, what several read once."""
        reads: dict[Layer, list[Read]] = {}
        whole: set[tuple[Layer, Read]] = set()
        for share in shares:
            reads.setdefault(share.layer, []).extend(share.reads)
            if not share.lens.by_block:
                whole |= {(share.layer, read) for read in share.reads if read.pairwise}
        return PlannedPass(
            tuple(
                self._one(layer, read, (layer, read) not in whole)
                for layer, found in reads.items()
                for read in joined_reads(found)
            )
        )

    def _one(self, layer: Layer, read: Read, by_block: bool) -> PlannedRead:
        cost, options = self.cost(layer, read, by_block=by_block), dict(read.options)
        block = (options["start"], options["stop"]) if read.pairwise and "stop" in options else None
        device = str(home(self.wrapper, layer.name)[0])
        return PlannedRead(
            layer.name, read.site, read.statistic.__name__, read.view, cost.channels, device,
            cost.state, cost.fresh, cost.work, cost.flops, cost.rows, block, cost.unknown,
        )  # fmt: skip

    def needed(self, shares: Iterable[Share]) -> int:
        """Return the bytes that these shares need at their peak, on the device that needs most."""
        return max(self.planned(shares).peak.values(), default=0)


def packed(
    layers: Sequence[Sequence[Share]], prices: Prices, budget: int | None
) -> list[list[Share]]:
    """Return the shares of every pass: layers in forward order, as many a pass as the budget lets.

    A layer too large for a pass of its own is split by lens, then by blocks of channels. Raises
    InvalidValueError that says the least that would do.
    """
    if budget is None:
        return [[share for shares in layers for share in shares]]
    passes: list[list[Share]] = []
    totals = _Totals()
    for shares in layers:
        for unit in _units(shares, prices, budget, layers):
            added = totals.plus(prices.planned(unit))
            if not passes or added.largest > budget:
                passes.append([])
                added = _Totals().plus(prices.planned(unit))
            passes[-1] += unit
            totals = added
    return passes


@dataclass(frozen=True)
class _Totals:
    """What a pass needs so far: bytes that add up, and the largest in passing, by device."""

    kept: tuple[tuple[str, int], ...] = ()
    work: tuple[tuple[str, int], ...] = ()

    def plus(self, planned: PlannedPass) -> _Totals:
        kept, work = dict(self.kept), dict(self.work)
        for read in planned.reads:
            kept[read.device] = kept.get(read.device, 0) + read.state + read.fresh
            work[read.device] = max(work.get(read.device, 0), read.work)
        return _Totals(tuple(kept.items()), tuple(work.items()))

    @property
    def largest(self) -> int:
        work = dict(self.work)
        return max((size + work[device] for device, size in self.kept), default=0)


def _units(
    shares: Sequence[Share], prices: Prices, budget: int, layers: Sequence[Sequence[Share]]
) -> list[list[Share]]:
    """The shares of a layer in parts each of which fits into a pass, as few as that takes."""
    if prices.needed(shares) <= budget:
        return [list(shares)]
    parts = _parted(shares) or _blocks(shares, prices, budget) or _singly(shares)
    if not parts:
        least = max(_least(each, prices) for each in layers)
        layer = shares[0].layer.name
        lenses = ", ".join(repr(share.lens.name) for share in shares)
        raise InvalidValueError(
            f"a memory budget of {shown_bytes(budget)} is too small for lens {lenses} on layer "
            f"{layer!r}: it takes at least {_at_least(least)}; raise memory_budget=, give smaller "
            "batches, or leave the layer out with layers= or pattern="
        )
    return [unit for part in parts for unit in _units(part, prices, budget, layers)]


def _parted(shares: Sequence[Share]) -> list[list[Share]]:
    """The shares with those together that read the same pairs; none when all do."""
    groups: dict[frozenset[Read], list[Share]] = {}
    for share in shares:
        groups.setdefault(frozenset(r for r in share.reads if r.pairwise), []).append(share)
    return list(groups.values()) if len(groups) > 1 else []


def _singly(shares: Sequence[Share]) -> list[list[Share]]:
    return [[share] for share in shares] if len(shares) > 1 else []


def _splits(shares: Sequence[Share]) -> bool:
    """Whether the shares can be measured block by block."""
    return all(
        share.block is None and share.lens.by_block and any(r.pairwise for r in share.reads)
        for share in shares
    )


def _blocks(shares: Sequence[Share], prices: Prices, budget: int) -> list[list[Share]]:
    """The shares in blocks of channels, the largest that fit; none when none do."""
    if not _splits(shares):
        return []
    high = _channels(shares, prices)
    low = smallest = _smallest(high)
    while high - low > 1:
        middle = (low + high) // 2
        fits = prices.needed(_block(shares, 0, middle)) <= budget
        low, high = (middle, high) if fits else (low, middle)
    if low == smallest and prices.needed(_block(shares, 0, low)) > budget:
        return []
    return _cut(shares, _channels(shares, prices), low)


def _cut(shares: Sequence[Share], channels: int, most: int) -> list[list[Share]]:
    """The shares in as few blocks of at most `most` channels as there can be, of one size."""
    number = -(-channels // most)
    ends = [channels * i // number for i in range(number + 1)]
    return [_block(shares, start, stop) for start, stop in pairwise(ends)]


def _least(shares: Sequence[Share], prices: Prices) -> int:
    """The bytes of the largest pass once a layer's shares are split as far as they can be."""
    if parts := _parted(shares) or _singly(shares):
        return max(_least(part, prices) for part in parts)
    if _splits(shares):
        return prices.needed(_block(shares, 0, _smallest(_channels(shares, prices))))
    return prices.needed(shares)


def _block(shares: Sequence[Share], start: int, stop: int) -> list[Share]:
    return [replace(share, block=(start, stop)) for share in shares]


def _smallest(channels: int) -> int:
    return -(-channels // MOST_BLOCKS)


def _channels(shares: Sequence[Share], prices: Prices) -> int:
    first = shares[0]
    return next(prices.cost(first.layer, r).channels for r in first.reads if r.pairwise)


def _at_least(size: int) -> str:
    """An amount as people read it, and in bytes, which can be copied."""
    return f"{shown_bytes(size)} ({size} bytes)"
