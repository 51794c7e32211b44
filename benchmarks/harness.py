"""Timing cases in turn, and ratios of neighbours: what holds when the machine's speed drifts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from statistics import median
from time import perf_counter

import torch

__all__ = ["Bound", "Timing", "gemm_rate", "time_cases"]


@dataclass(frozen=True)
class Timing:
    """Median seconds of a case, and the median over rounds of its ratio to another case."""

    case: str
    seconds: float
    against: str
    ratio: float
    rounds: int
    bound: float | None = None
    """Seconds: the pass alone and the arithmetic of the statistics at the measured GEMM rate."""

    def as_dict(self) -> dict[str, object]:
        """Return the timing as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Bound:
    """What a case cannot be faster than: another case, and so many floating-point operations."""

    case: str
    flops: int


def gemm_rate(size: int = 1024, times: int = 20) -> float:
    """Return floating-point operations a second of a float32 matrix product, the best of some."""
    a, b, seconds = torch.randn(size, size), torch.randn(size, size), []
    for _ in range(times):
        start = perf_counter()
        torch.mm(a, b)
        seconds.append(perf_counter() - start)
    return 2 * size**3 / min(seconds)


def time_cases(
    cases: Mapping[str, Callable[[], object]],
    against: Mapping[str, str],
    rounds: int,
    bounds: Mapping[str, Bound] | None = None,
) -> list[Timing]:
    """Return a timing a case: all of them in turn, `rounds` times, after one that does not count.

    `against` names, for each case, the one its ratio is to; the ratio is taken within each round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, case in cases.items():
            start = perf_counter()
            case()
            if number:
                seconds[name].append(perf_counter() - start)
    rate, known = gemm_rate(), bounds or {}
    return [_timing(n, seconds, against.get(n, n), known.get(n), rate) for n in cases]


def _timing(
    name: str,
    seconds: Mapping[str, list[float]],
    reference: str,
    bound: Bound | None,
    rate: float,
) -> Timing:
    pairs = zip(seconds[name], seconds[reference], strict=True)
    ratio = median(mine / theirs for mine, theirs in pairs)
    least = None if bound is None else median(seconds[bound.case]) + bound.flops / rate
    return Timing(name, median(seconds[name]), reference, ratio, len(seconds[name]), least)
