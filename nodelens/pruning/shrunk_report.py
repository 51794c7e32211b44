"""What shrinking changed: sizes, work and time, before and after."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain

import torch
from torch import nn

from nodelens.data import Batch
from nodelens.model.session import untouched

__all__ = ["Change", "ShrinkReport", "bytes_of", "latencies", "macs_of", "parameters_of"]


@dataclass(frozen=True)
class Change:
    """A number before and after."""

    before: float
    after: float

    @property
    def ratio(self) -> float:
        """Return after divided by before; 1 where there was nothing."""
        return self.after / self.before if self.before else 1.0

    def __str__(self) -> str:
        return f"{self.before:,.6g} -> {self.after:,.6g} ({self.ratio:.1%})"


@dataclass(frozen=True)
class ShrinkReport:
    """What `shrink` did.

    `parameters` counts shared ones once; `bytes` is of parameters and buffers; `macs` are
    multiply-accumulates of the matrix products and convolutions of one pass over the example
    batch; `seconds` the median time of such a pass. `widths` is `{layer: (before, after)}` in
    outputs, `input_widths` in inputs. `along` names the layers that a mask took with it and had
    none themselves, `padded` how many removed units of an FFN stay as zeros. `difference` is the
    largest between shrunk and masked outputs, relative to the largest masked output.
    `pretrained` says whether `save_pretrained` and `from_pretrained` work.
    """

    parameters: Change
    bytes: Change
    macs: Change
    seconds: Change
    difference: float
    tolerance: float
    widths: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    input_widths: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    along: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    padded: Mapping[str, int] = field(default_factory=dict)
    pretrained: bool = False

    def __str__(self) -> str:
        lines = [f"{name}: {getattr(self, name)}" for name in ("parameters", "bytes", "macs")]
        lines.append(f"milliseconds: {Change(1e3 * self.seconds.before, 1e3 * self.seconds.after)}")
        lines += [f"{name} took {', '.join(others)} along" for name, others in self.along.items()]
        lines += [f"{name} keeps {n} units as zeros" for name, n in self.padded.items()]
        lines.append(f"largest difference from the mask: {self.difference:.1e} of the output")
        return "\n".join(lines)


def parameters_of(model: nn.Module) -> int:
    """Return the number of parameters, shared ones once."""
    return sum(p.numel() for p in model.parameters())


def bytes_of(model: nn.Module) -> int:
    """Return the bytes of parameters and buffers, shared ones once."""
    return sum(t.numel() * t.element_size() for t in chain(model.parameters(), model.buffers()))


def macs_of(model: nn.Module, batch: Batch) -> int:
    """Return the multiply-accumulates of a pass, as torch counts its matrix products."""
    from torch.utils.flop_counter import FlopCounterMode

    with untouched(model), FlopCounterMode(display=False) as counter:
        model(*batch.args, **batch.kwargs)
    return int(counter.get_total_flops()) // 2


def latencies(models: tuple[nn.Module, nn.Module], batch: Batch, rounds: int) -> Change:
    """Return the median seconds of a pass of each model, timed in turns.

    Taking turns lets whatever else the machine does slow down both alike.
    """
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for model, taken in zip(models, seconds, strict=True):
            with untouched(model):
                start = time.perf_counter()
                model(*batch.args, **batch.kwargs)
                _finish()
                if number:  # the first pass of each warms up
                    taken.append(time.perf_counter() - start)
    return Change(*(statistics.median(taken) if taken else float("nan") for taken in seconds))


def _finish() -> None:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
