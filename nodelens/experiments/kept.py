"""Rows of a long stage, kept on disk as they come, so that a killed run goes on from them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from nodelens.experiments.record import key_of
from nodelens.experiments.stage import Run
from nodelens.files import write_text

__all__ = ["KeptRows"]

Row = dict[str, Any]


class KeptRows:
    """The rows of an unfinished stage, in `checkpoints/`; each is known by what decided it.

    `about` decides them all: rows of something else are left behind. Without `--resume` the stage
    starts anew.
    """

    def __init__(self, run: Run, name: str, about: Any) -> None:
        self.path = self.place(run, name)
        self.about = key_of(about)
        self.rows: dict[str, Row] = self._read() if run.resume else {}

    @staticmethod
    def place(run: Run, name: str) -> Any:
        """Return the file in which the rows of the stage `name` are kept."""
        return run.folder.path(f"checkpoints/{name}.json")

    def row(self, decided_by: Any, make: Callable[[], Row]) -> Row:
        """Return the row kept under what decided it, else the one that `make` gives, kept now."""
        key = key_of(decided_by)
        if key not in self.rows:
            self.rows[key] = make()
            write_text(self.path, json.dumps({"about": self.about, "rows": self.rows}))
        return self.rows[key]

    def _read(self) -> dict[str, Row]:
        try:
            found = json.loads(self.path.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        rows: dict[str, Row] = found["rows"] if found.get("about") == self.about else {}
        return rows
