"""Standard errors of scores from mergeable statistics: the delete-group jackknife."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nodelens.aggregator import Aggregator
from nodelens.errors import InvalidValueError, NodeLensError
from nodelens.statistics.base import Statistic

if TYPE_CHECKING:
    from nodelens.lens import Lens
    from nodelens.result import LensResult

__all__ = ["Jackknife", "jackknife_error"]

Scores = dict[str, dict[str, Tensor]]


class Jackknife:
    """A stream's batches dealt round-robin to groups, to score it again without each of them.

    Rows of one batch may depend on each other, batches should not. While the stream runs there
    is one state a group, at its end twice as many: what is in front of a group is merged with what
    is behind it, so the merges grow with the groups, not with their square.
    """

    ended = False
    """A jackknife never ends a stream."""

    def __init__(self, lens: Lens, groups: int = 20) -> None:
        if not isinstance(groups, int) or isinstance(groups, bool) or groups < 2:
            raise InvalidValueError(f"groups is {groups!r}, expected a whole number from 2")
        self.lens = lens
        self.groups = [Aggregator(lens) for _ in range(groups)]
        self.batches = 0

    def begin(self, aggregator: Aggregator) -> None:
        """Do nothing: groups of batches are in no file, so no run goes on with them."""

    def update(
        self, aggregator: Aggregator, statistics: Mapping[str, Mapping[Any, Statistic]]
    ) -> None:
        """Deal one batch's statistics to the group whose turn it is."""
        self.groups[self.batches % len(self.groups)].update(statistics)
        self.batches += 1

    def conclude(self, result: LensResult) -> None:
        """Give the result a standard error for every score, or NaN and a note why there is none."""
        filled = [group for group in self.groups if group.batches]
        replicates, note = self._replicates(filled)
        result.standard_errors = {
            layer: {name: _error(replicates, layer, name, value) for name, value in scores.items()}
            for layer, scores in result.items()
        }
        result.notes += [note, *(_gaps(replicates, result) if replicates else ())]

    def _replicates(self, filled: Sequence[Aggregator]) -> tuple[list[Scores], str]:
        """The scores without each group, and what a reader must know of them."""
        seen = f"{self.batches} batch{'' if self.batches == 1 else 'es'}"
        if len(filled) < 2:
            return [], f"no standard errors: {seen}, expected at least 2"
        try:
            found = [self.lens.finish(rest.statistics) for rest in leave_one_out(filled)]
        except NodeLensError as error:
            # The scores of the whole stream are good: they are not lost to what a part lacks.
            return [], f"no standard errors: without one group of {seen} {error}"
        return found, f"standard errors: jackknife over {len(filled)} groups of {seen}"


def leave_one_out(groups: Sequence[Aggregator]) -> Iterator[Aggregator]:
    """Yield, for every group in turn, the merge of all others; nothing for fewer than two."""
    if len(groups) < 2:
        return
    behind = [Aggregator(groups[0].lens)]
    for group in reversed(groups[1:]):
        behind.append(_merged(behind[-1], group))
    front = Aggregator(groups[0].lens)
    for group in groups:
        yield _merged(front, behind.pop())
        front.merge(group)


def jackknife_error(replicates: Tensor) -> Tensor:
    """Return the standard error from leave-one-out scores `(groups, ...)`, `(...)`.

    sqrt((G - 1) / G * sum of squared deviations from their mean), in the score's own unit
    (Shao and Tu 1995, the delete-group jackknife; groups count alike).
    """
    groups = len(replicates)
    return (replicates.var(0, correction=0) * (groups - 1)).sqrt()


def _merged(first: Aggregator, second: Aggregator) -> Aggregator:
    merged = Aggregator(first.lens)
    merged.merge(first)
    merged.merge(second)
    return merged


def _error(replicates: Sequence[Scores], layer: str, name: str, value: Tensor) -> Tensor:
    found = [r[layer][name] for r in replicates if name in r.get(layer, {})]
    if not found or len(found) < len(replicates):
        return torch.full_like(value, torch.nan)
    return jackknife_error(torch.stack(found).detach().double().cpu())


def _gaps(replicates: Sequence[Scores], result: LensResult) -> list[str]:
    """Notes on layers that only one group has seen, so that nothing is left without it."""
    return [
        f"no standard errors of layer {layer!r}: without one group of batches it has no score"
        for layer, scores in result.items()
        if not all(scores.keys() <= r.get(layer, {}).keys() for r in replicates)
    ]
