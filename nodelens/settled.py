"""Ending a stream once the ranking of the channels no longer changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nodelens.errors import InvalidValueError, TooFewRowsError
from nodelens.files import intact

if TYPE_CHECKING:
    from nodelens.aggregator import Aggregator
    from nodelens.result import LensResult

__all__ = ["Settled", "Settling"]

Ranking = dict[tuple[str, str], frozenset[int]]
"""The top channels by (layer, score)."""


@dataclass(frozen=True)
class Settled:
    """When a stream has seen enough: the top channels of every layer have stopped changing.

    A check scores the merged statistics and takes, for every score of every layer, the set of the
    `top` fraction of channels (rounded, at least one and never all): the highest, or the lowest of
    a score with importance -1. The score agrees when at most a share `tolerance` of that set was
    not in the set of the check before. The stream ends after `patience` checks in a row in which
    every score of every layer agrees. There is one check after `every` batches; each costs as much
    as scoring the result.

    Raises InvalidValueError for a value that no check can use.
    """

    top: float = 0.05
    tolerance: float = 0.01
    patience: int = 5
    every: int = 1

    def __post_init__(self) -> None:
        if not _is_number(self.top) or not 0 < self.top < 1:
            raise InvalidValueError(f"top is {self.top!r}, expected a share between 0 and 1")
        if not _is_number(self.tolerance) or not 0 <= self.tolerance < 1:
            raise InvalidValueError(
                f"tolerance is {self.tolerance!r}, expected a share from 0 to below 1"
            )
        for name in ("patience", "every"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InvalidValueError(f"{name} is {value!r}, expected a whole number from 1")

    def size(self, channels: int) -> int:
        """Return how many of `channels` are the top ones."""
        return min(max(1, round(self.top * channels)), channels - 1)

    def agree(self, before: Ranking, now: Ranking) -> bool:
        """Return whether every top set is that of the check before, up to the tolerance."""
        return before.keys() == now.keys() and all(
            len(now[key] - before[key]) <= self.tolerance * len(now[key]) for key in now
        )


class Settling:
    """The checks of one run: what was on top last time, and how often in a row it stayed so."""

    def __init__(self, rule: Settled) -> None:
        if not isinstance(rule, Settled):
            raise InvalidValueError(f"until is {rule!r}, expected Settled(top=..., patience=...)")
        self.rule = rule
        self.before: Ranking | None = None
        self.agreed = 0
        self.seen = (0, 0)

    @property
    def ended(self) -> bool:
        """Return whether the stream has settled."""
        return self.agreed >= self.rule.patience

    def begin(self, aggregator: Aggregator) -> None:
        """Go on from the checks that were saved with the statistics, if they were by this rule."""
        saved = aggregator.followed.get("settled", {})
        if saved.get("rule") != asdict(self.rule):
            return
        with intact("the saved checks of until="):
            self.agreed, self.seen = saved["agreed"], (aggregator.batches, aggregator.rows)
            self.before = {(layer, name): frozenset(top) for layer, name, top in saved["before"]}

    def update(self, aggregator: Aggregator, statistics: Mapping[str, Any]) -> None:
        """Check the merged statistics if it is time to."""
        self.seen = (aggregator.batches, aggregator.rows)
        if aggregator.batches % self.rule.every == 0:
            self._check(aggregator)

    def _check(self, aggregator: Aggregator) -> None:
        try:
            now = _ranking(self.rule, aggregator)
        except TooFewRowsError:
            # There is no ranking yet; a stream that ends so raises it with its result.
            return
        same = self.before is not None and self.rule.agree(self.before, now)
        self.agreed = self.agreed + 1 if same else 0
        self.before = now
        tops = [[*key, sorted(top)] for key, top in now.items()]
        aggregator.followed["settled"] = {
            "rule": asdict(self.rule), "agreed": self.agreed, "before": tops
        }  # fmt: skip

    def conclude(self, result: LensResult) -> None:
        """Note in the result after how many batches the stream settled, or that it did not."""
        batches, rows = self.seen
        verdict = "settled" if self.ended else "not settled"
        result.notes.append(f"{verdict} after {batches} batches, {rows} rows: {self.rule}")


def _ranking(rule: Settled, aggregator: Aggregator) -> Ranking:
    lens = aggregator.lens
    found = {
        (layer, name): _top(rule, values, lens.score_units(name)[1])
        for layer, scores in lens.finish(aggregator.statistics).items()
        for name, values in scores.items()
        if values.ndim == 1 and len(values) > 1
    }
    if not found:
        raise InvalidValueError(f"lens {lens.name!r} has no score with channels to rank for until=")
    return found


def _top(rule: Settled, values: Tensor, importance: int) -> frozenset[int]:
    # Stable, so that ties do not change places from one check to the next.
    order = torch.argsort(values, stable=True, descending=importance >= 0)
    return frozenset(order[: rule.size(len(values))].tolist())


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
