"""Saving the statistics of a run as it goes, and refusing to go on with those of another one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nodelens.aggregator import Aggregator
from nodelens.errors import InvalidValueError, MergeError, OutputError
from nodelens.files import remove_leftovers
from nodelens.model.fingerprint import model_fingerprint
from nodelens.model.wrapper import ModelWrapper

__all__ = ["Checkpoint", "check_same", "differences"]


@dataclass
class Checkpoint:
    """The file a run saves its statistics in, and after how many batches or seconds it does.

    `about` are plain facts (model, data, settings) that whoever goes on with the file must share.
    Every save replaces the last one in one step, so that a kill loses at most what came since.
    Without a path nothing is saved.
    """

    path: Path | None
    batches: int = 100
    seconds: float = 60.0
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._began, self._held, self._saved = False, 0, time.monotonic()
        for name, value in {"save_every": self.batches, "save_every_seconds": self.seconds}.items():
            if not value > 0:
                raise InvalidValueError(f"{name} is {value!r}, expected a number above 0")

    @classmethod
    def of(
        cls,
        path: str | Path | None,
        batches: int,
        seconds: float,
        model: ModelWrapper,
        about: Mapping[str, Any] | None,
    ) -> Checkpoint:
        """Return the checkpoint of a run over `model`, whose fingerprint is one of its facts."""
        # Looking at every weight takes a while: not where nothing is saved.
        facts = {} if path is None else {"model": model_fingerprint(model.module)}
        place = None if path is None else Path(path)
        return cls(place, batches, seconds, {**facts, **(about or {})})

    def resume(self, aggregator: Aggregator) -> Aggregator:
        """Return what was saved, or `aggregator`, empty as it is, where nothing was.

        Raises MergeError when the file is of another lens, or `about` something else.
        """
        if self.path is not None:
            remove_leftovers(self.path)
            if self.path.exists():
                aggregator = Aggregator.load(self.path, aggregator.lens)
                check_same(f"{str(self.path)!r}", aggregator.about, self.about)
                self._began, self._held = True, aggregator.batches
        aggregator.about = dict(self.about)
        return aggregator

    @contextmanager
    def saving(self, aggregator: Aggregator) -> Iterator[None]:
        """Save when the work within ends, and also when an error or an interrupt ends it.

        A state that could not be written is not written again: the last good one stays.
        """
        try:
            yield
        except OutputError:
            raise
        except BaseException:
            self._last(aggregator)
            raise
        self._last(aggregator)

    def after_batch(self, aggregator: Aggregator) -> None:
        """Save when it is time to."""
        late = time.monotonic() - self._saved >= self.seconds
        if late or aggregator.batches % self.batches == 0:
            self._save(aggregator)

    def _last(self, aggregator: Aggregator) -> None:
        if aggregator.batches != self._held and aggregator.whole:
            self._save(aggregator)

    def _save(self, aggregator: Aggregator) -> None:
        if self.path is None:
            return
        # A folder that was there and is gone took the earlier state along: that must be told.
        aggregator.save(self.path, make_folder=not self._began)
        self._began, self._held, self._saved = True, aggregator.batches, time.monotonic()


def check_same(what: str, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise MergeError naming every fact that both know and that is no longer the same."""
    found = differences(saved, now)
    if found:
        raise MergeError(
            f"{what} was measured with something else: {'; '.join(found)}; give the same again,"
            " or start anew in another place"
        )


def differences(saved: Mapping[str, Any], now: Mapping[str, Any], within: str = "") -> list[str]:
    """Return a phrase for every fact in which two accounts differ, by dotted name.

    A fact that only one of them states at the outermost level is not compared.

    >>> differences({"data": "ab", "config": {"seed": 1}}, {"config": {"seed": 2}})
    ['config.seed was 1, is 2']
    """
    found: list[str] = []
    keys = [key for key in saved if key in now] if not within else list({**saved, **now})
    for key in keys:
        before, after, name = saved.get(key), now.get(key), f"{within}{key}"
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += differences(before, after, f"{name}.")
        elif before != after:
            found.append(f"{name} was {before!r}, is {after!r}")
    return found
