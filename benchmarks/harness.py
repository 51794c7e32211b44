"""Timing cases in turn, and ratios of neighbours: what holds when the machine's speed drifts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from statistics import median
from time import perf_counter

__all__ = ["Timing", "time_cases"]


@dataclass(frozen=True)
class Timing:
    """Median seconds of a case, and the median over rounds of its ratio to another case."""

    case: str
    seconds: float
    against: str
    ratio: float
    rounds: int

    def as_dict(self) -> dict[str, object]:
        """Return the timing as plain data."""
        return asdict(self)


def time_cases(
    cases: Mapping[str, Callable[[], object]], against: Mapping[str, str], rounds: int
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
    return [_timing(name, seconds, against.get(name, name)) for name in cases]


def _timing(name: str, seconds: Mapping[str, list[float]], reference: str) -> Timing:
    pairs = zip(seconds[name], seconds[reference], strict=True)
    ratio = median(mine / theirs for mine, theirs in pairs)
    return Timing(name, median(seconds[name]), reference, ratio, len(seconds[name]))
