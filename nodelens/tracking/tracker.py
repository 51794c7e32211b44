"""What a tracker is: four calls, in this order, from one process of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

__all__ = ["Status", "Tracker"]

Status = Literal["finished", "failed", "interrupted"]
"""How a run ended."""


class Tracker(Protocol):
    """Follows one run. Made with its options by keyword; what costs or can fail is in `start`.

    Any of the calls may raise: the run warns once, goes on, and calls this tracker no more.
    """

    def start(self, name: str, config: Mapping[str, Any], folder: Path) -> None:
        """Begin with a run's name, its configuration as plain data, and a folder of one's own."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Take finite numbers by name, such as `training/loss`.

        What stands before the first slash has steps of its own: epochs, layers, percentages.
        """

    def log_file(self, path: Path, name: str) -> None:
        """Take a file of the run directory; `name` is its path within, with forward slashes."""

    def finish(self, status: Status) -> None:
        """End, and leave nothing open."""
