"""What is going to be measured, in how many passes, and what it takes: as data, text and HTML."""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from nodelens.memory import shown_bytes
from nodelens.notebook import html_table

__all__ = ["MemoryPlan", "PlannedPass", "PlannedRead"]

_HEADER = ("layer", "site", "statistic", "view", "channels", "state", "FLOPs a row", "rows")


@dataclass(frozen=True)
class PlannedRead:
    """One statistic of one site of a layer.

    `state` bytes stay for the whole pass, exactly; `fresh` are those of one batch until it is
    merged, `work` those needed in passing, by one read at a time (both estimates). `flops` are a
    row's, `rows` a batch's (None without a batch). `block` is the block of channels, (start, stop).
    `unknown` is what `state` is counted for one of ("classes", "positions"), for want of a batch.
    """

    layer: str
    site: str
    statistic: str
    view: str
    channels: int
    device: str
    state: int
    fresh: int
    work: int
    flops: int
    rows: int | None = None
    block: tuple[int, int] | None = None
    unknown: tuple[str, ...] = ()

    def _cells(self) -> tuple[str, ...]:
        shown = f"{self.channels:,}"
        if self.block is not None:
            shown = f"{self.block[0]:,} to {self.block[1]:,} of {shown}"
        each = "".join(f", for one of the {name}" for name in self.unknown)
        rows = "" if self.rows is None else f"{self.rows:,}"
        state, flops = shown_bytes(self.state) + each, f"{self.flops:,}"
        return (self.layer, self.site, self.statistic, self.view, shown, state, flops, rows)


@dataclass(frozen=True)
class PlannedPass:
    """One pass over the batches: what it measures."""

    reads: tuple[PlannedRead, ...]

    @property
    def layers(self) -> list[str]:
        """Return the layers that are read, in forward order."""
        return list(dict.fromkeys(read.layer for read in self.reads))

    @property
    def bytes(self) -> dict[str, int]:
        """Return the bytes of all statistics by device, as the aggregator holds them."""
        return {d: sum(r.state for r in reads) for d, reads in self._by_device().items()}

    @property
    def peak(self) -> dict[str, int]:
        """Return the most that is needed at once by device, besides the model's own memory."""
        return {
            device: sum(r.state + r.fresh for r in reads) + max(r.work for r in reads)
            for device, reads in self._by_device().items()
        }

    @property
    def flops(self) -> int:
        """Return the floating-point operations of one row of every site."""
        return sum(read.flops for read in self.reads)

    @property
    def batch_flops(self) -> int | None:
        """Return the floating-point operations of a batch, None where its rows are not known."""
        measured = [read for read in self.reads if read.flops]
        if any(read.rows is None for read in measured):
            return None
        return sum(read.flops * (read.rows or 0) for read in measured)

    def _by_device(self) -> dict[str, list[PlannedRead]]:
        found: dict[str, list[PlannedRead]] = {}
        for read in self.reads:
            found.setdefault(read.device, []).append(read)
        return found


@dataclass(frozen=True)
class MemoryPlan:
    """What a run of a lens will read, in how many passes, with how much memory and work.

    Printed, it is a table; `to_json` gives plain data. `unplanned` are lenses that measure by code
    of their own, so that nothing can be said of them before they run.
    """

    lens: str
    passes: tuple[PlannedPass, ...]
    budget: int | None = None
    unplanned: tuple[str, ...] = ()

    @property
    def reads(self) -> list[PlannedRead]:
        """Return the reads of all passes."""
        return [read for each in self.passes for read in each.reads]

    @property
    def layers(self) -> list[str]:
        """Return the layers of all passes."""
        return list(dict.fromkeys(read.layer for read in self.reads))

    @property
    def bytes(self) -> dict[str, int]:
        """Return the most bytes of statistics held at once, by device."""
        return _largest(each.bytes for each in self.passes)

    @property
    def peak(self) -> dict[str, int]:
        """Return the most that is needed at once by device, besides the model's own memory."""
        return _largest(each.peak for each in self.passes)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain data."""
        return {
            "lens": self.lens,
            "memory_budget": self.budget,
            "bytes": self.bytes,
            "peak": self.peak,
            "unplanned": list(self.unplanned),
            "passes": [
                {
                    "layers": each.layers,
                    "bytes": each.bytes,
                    "peak": each.peak,
                    "flops_a_row": each.flops,
                    "flops_a_batch": each.batch_flops,
                    "reads": [_plain(read) for read in each.reads],
                }
                for each in self.passes
            ],
        }

    def summary(self) -> str:
        """Return passes, layers and bytes in one line."""
        passes = _counted(len(self.passes), "pass", "passes")
        reads = _counted(len(self.reads), "read", "reads")
        layers = _counted(len(self.layers), "layer", "layers")
        held = _on_devices(self.bytes)
        return f"{self.lens}: {passes}, {reads} of {layers}, {held} of statistics"

    def __str__(self) -> str:
        lines = [self.summary()]
        for number, each in enumerate(self.passes, 1):
            lines += ["", self._title(number, each), *_table([r._cells() for r in each.reads])]
        if self.unplanned:
            lines += ["", f"not planned (code of their own): {', '.join(self.unplanned)}"]
        return "\n".join(lines)

    def _title(self, number: int, each: PlannedPass) -> str:
        work = f"{each.flops:,} FLOPs a row"
        if each.batch_flops is not None:
            work = f"{each.batch_flops:,} FLOPs a batch"
        peak = _on_devices(each.peak)
        return f"pass {number}: {_on_devices(each.bytes)}, {peak} at its peak, {work}"

    def _repr_html_(self) -> str:
        tables = (
            html_table(_HEADER, [read._cells() for read in each.reads], self._title(number, each))
            for number, each in enumerate(self.passes, 1)
        )
        return "".join([f"<p>{html.escape(self.summary())}</p>", *tables])


def _plain(read: PlannedRead) -> dict[str, Any]:
    data = asdict(read)
    return data | {"block": data["block"] and list(data["block"]), "unknown": list(read.unknown)}


def _largest(amounts: Iterable[dict[str, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for by_device in amounts:
        for device, size in by_device.items():
            found[device] = max(found.get(device, 0), size)
    return found


def _on_devices(amounts: dict[str, int]) -> str:
    if set(amounts) <= {"cpu"}:
        return shown_bytes(amounts.get("cpu", 0))
    return ", ".join(f"{shown_bytes(size)} on {device}" for device, size in amounts.items())


def _counted(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    table = [_HEADER, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(_HEADER))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
