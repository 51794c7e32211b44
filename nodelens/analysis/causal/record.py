"""What was measured so far, in a file of one line a lesion that an interrupted run goes on from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nodelens.analysis.causal.lesions import INTACT, Lesion, lesion
from nodelens.errors import MergeError, OutputError
from nodelens.files import write_text

__all__ = ["Record"]

_FORMAT = 1
_SAME = 1e-6


class Record:
    """Measured lesions, in memory and, with a path, in a file of JSON lines.

    The first line says what is measured and holds the losses of the intact model by batch: another
    model, or other batches, are recognised by them.
    """

    def __init__(self, path: str | Path | None, about: Mapping[str, Any], intact: Any) -> None:
        self.path = None if path is None else Path(path)
        self.found: dict[Lesion, Any] = {INTACT: intact}
        head = {"format": _FORMAT, **about, "intact": intact}
        if self.path is None:
            return
        if self.path.exists():
            self._read(head)
        else:
            write_text(self.path, json.dumps(head) + "\n")

    def add(self, which: Lesion, found: Any) -> None:
        """Take in what a lesion cost; it is in the file before this returns."""
        self.found[which] = found
        if self.path is None:
            return
        line = json.dumps({"channels": dict(which), **found})
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as failure:
            raise OutputError(f"cannot write {str(self.path)!r}: {failure.strerror}") from failure

    def _read(self, head: Mapping[str, Any]) -> None:
        assert self.path is not None
        text = self.path.read_text("utf-8")
        whole, _, cut = text.rpartition("\n")
        try:
            first, *lines = [json.loads(line) for line in whole.splitlines()]
            known = {lesion(line.pop("channels")): line for line in lines}
        except (ValueError, AttributeError, KeyError, TypeError) as failure:
            raise OutputError(f"{str(self.path)!r} is no record of lesions: {failure}") from failure
        _check_same(first, head, str(self.path))
        self.found |= known
        if cut:
            # A killed run leaves half a line: what is appended would become part of it.
            write_text(self.path, whole + "\n")


def _check_same(saved: Any, mine: Mapping[str, Any], path: str) -> None:
    """Raise MergeError where the record is of another measurement."""
    if not isinstance(saved, dict) or saved.get("format") != _FORMAT:
        raise OutputError(f"{path!r} is no record of lesions of format {_FORMAT}")
    for name, value in mine.items():
        if name != "intact" and saved.get(name) != value:
            raise MergeError(
                f"{path!r} was measured with {name} {saved.get(name)!r}, not {value!r}"
            )
    theirs, ours = saved["intact"]["losses"], mine["intact"]["losses"]
    if len(theirs) != len(ours) or not np.allclose(theirs, ours, rtol=_SAME, atol=0):
        raise MergeError(
            f"{path!r} was measured on another model or other batches: the losses of the intact "
            f"model were {theirs[:3]}, and are {ours[:3]}"
        )
