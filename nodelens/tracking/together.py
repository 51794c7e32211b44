"""All trackers of a run as one, and the run safe from every one of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from math import isfinite
from pathlib import Path
from typing import Any

from nodelens.errors import TrackingWarning
from nodelens.tracking.tracker import Status, Tracker

__all__ = ["Trackers"]


class Trackers:
    """Tells every tracker the same; one that fails is warned of, once, and told nothing more.

    `makers` make the trackers, by name, when the run starts. `note` is given each warning too.
    """

    def __init__(
        self,
        makers: Mapping[str, Callable[[], Tracker]],
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._makers = makers
        self._note = note
        self._live: dict[str, Tracker] = {}

    @property
    def names(self) -> list[str]:
        """Return the names of the trackers that started and have not failed."""
        return list(self._live)

    def start(self, name: str, config: Mapping[str, Any], folder: Path) -> None:
        """Make and start the trackers, each with a folder of its own in `folder`."""
        for tracker, make in self._makers.items():
            with self._outlived(tracker, "start"):
                made = make()
                home = folder / tracker
                home.mkdir(parents=True, exist_ok=True)
                made.start(name, config, home)
                self._live[tracker] = made

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log those of the numbers that are finite."""
        finite = {name: float(value) for name, value in values.items() if isfinite(value)}
        if finite:
            self._tell("log", finite, step)

    def log_file(self, path: Path, name: str) -> None:
        """Log a file under its name in the run directory."""
        self._tell("log_file", path, name)

    def finish(self, status: Status) -> None:
        """End all trackers."""
        self._tell("finish", status)
        self._live.clear()

    def _tell(self, what: str, *arguments: Any) -> None:
        for name, tracker in list(self._live.items()):
            with self._outlived(name, what):
                getattr(tracker, what)(*arguments)

    @contextmanager
    def _outlived(self, name: str, what: str) -> Iterator[None]:
        try:
            yield
        # A tracker is a stranger's software, often behind a network: no failure of it is the run's.
        except (Exception, SystemExit) as failure:  # noqa: BLE001
            self._live.pop(name, None)
            text = (
                f"tracker {name!r} failed at {what!r} and is left out from here on; the run goes on"
                f" ({type(failure).__name__}: {failure})"
            )
            self._note(text)
            # Where warnings are errors, this one still is none.
            with suppress(TrackingWarning):
                warnings.warn(text, TrackingWarning, stacklevel=2)
