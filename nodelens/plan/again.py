"""Batches that are gone through several times, the same each time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any

import torch

from nodelens.errors import InvalidValueError

__all__ = ["Again"]


class Again:
    """A stream of batches whose first one can be looked at, and that may be read repeatedly.

    A `DataLoader` that shuffles draws the same order each time: its generator is put back, and
    torch's own is by every run. `once` tells of an iterator, which is gone after one reading.
    """

    def __init__(self, batches: Iterable[Any]) -> None:
        self.batches = batches
        self.once = isinstance(batches, Iterator)
        self.number: int | None = None
        self._ahead: list[Any] = []
        self._draws = [(g, g.get_state()) for g in _generators(batches)]

    def first(self) -> list[Any]:
        """Return the first batch in a list, which is empty when there is none."""
        with torch.random.fork_rng(devices=[]):
            found = list(islice(self.batches, 1))
        if self.once:
            self._ahead = found
        return found

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        for generator, state in self._draws:
            generator.set_state(state)
        ahead, self._ahead = self._ahead, []
        number = 0
        for batch in chain(ahead, self.batches):
            number += 1
            yield batch
        if self.number not in (None, number):
            raise InvalidValueError(
                f"a second pass over the batches brought {number}, the first {self.number}: give a "
                "list or a DataLoader, which is the same each time, or raise memory_budget="
            )
        self.number = number


def _generators(batches: Any) -> list[torch.Generator]:
    """The generators that the order of a loader's batches comes from."""
    holders = [batches, getattr(batches, "sampler", None)]
    found = [getattr(holder, "generator", None) for holder in holders]
    return [g for i, g in enumerate(found) if isinstance(g, torch.Generator) and g not in found[:i]]
