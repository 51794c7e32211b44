"""What a run did so far, kept in `provenance.json` after every step so that it can go on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from typing import Any

from nodelens.experiments.folder import PROVENANCE, RunFolder

__all__ = ["Record", "key_of"]

_FORMAT = 1


class Record:
    """The provenance of a run and, for each stage, its key, its files and how long it took."""

    def __init__(self, folder: RunFolder, facts: Mapping[str, Any]) -> None:
        self.folder = folder
        earlier = folder.read_json(PROVENANCE) if folder.has(PROVENANCE) else {}
        self.data: dict[str, Any] = {
            "format": _FORMAT,
            "status": "running",
            "started": _now(),
            "finished": None,
            **facts,
            "protocol": {},
            "stages": earlier.get("stages", {}) if earlier.get("format") == _FORMAT else {},
        }

    def is_done(self, stage: str, key: str) -> bool:
        """Return whether the stage finished with this key and its files are as it left them.

        What it shows in the report is left out: that can be drawn again.
        """
        entry = self.data["stages"].get(stage, {})
        if entry.get("status") != "finished" or entry.get("key") != key:
            return False
        return self._unchanged(entry["files"].keys() - entry.get("shown", ()), entry)

    def is_shown(self, stage: str, style: str) -> bool:
        """Return whether what the stage shows in the report is as it was drawn, in this style."""
        entry = self.data["stages"][stage]
        return entry.get("style") == style and self._unchanged(entry["shown"], entry)

    def _unchanged(self, names: Iterable[str], entry: Mapping[str, Any]) -> bool:
        return all(self.folder.digest(name) == entry["files"][name] for name in names)

    def begin(self, stage: str, key: str) -> None:
        """Note that a stage starts, and remove the files it left the last time."""
        self.folder.remove(self.data["stages"].get(stage, {}).get("files", {}))
        self.folder.written.clear()
        self._set(stage, status="running", key=key, files={}, seconds=None, summary="")

    def end(
        self, stage: str, seconds: float, summary: str, *, style: str, shown: Iterable[str]
    ) -> None:
        """Note that a stage finished, and the digest of each file it wrote, `shown` among them."""
        files = {name: self.folder.digest(name) for name in dict.fromkeys(self.folder.written)}
        entry = self.data["stages"][stage]
        self._set(
            stage,
            status="finished",
            key=entry["key"],
            files=files,
            seconds=round(seconds, 3),
            summary=summary,
            shown=list(dict.fromkeys(shown)),
            style=style,
        )

    def redraw(self, stage: str, style: str, draw: Callable[[], None]) -> None:
        """Note what `draw()` writes as what the stage shows, instead of what it showed before."""
        entry = self.data["stages"][stage]
        shown = entry.get("shown", [])
        self.folder.remove(shown)
        self.folder.written.clear()
        draw()
        drawn = {name: self.folder.digest(name) for name in dict.fromkeys(self.folder.written)}
        kept = {name: digest for name, digest in entry["files"].items() if name not in shown}
        self._set(stage, **{**entry, "files": kept | drawn, "shown": list(drawn), "style": style})

    def keep(self, stages: list[str]) -> None:
        """Forget stages that this experiment does not have."""
        self.data["stages"] = {n: e for n, e in self.data["stages"].items() if n in stages}

    def close(self, status: str) -> None:
        """Note how the run ended; a stage under way ends the same way."""
        for entry in self.data["stages"].values():
            if entry["status"] == "running":
                entry["status"] = status
        self.data["status"] = status
        self.data["finished"] = _now()
        self.save()

    def save(self) -> None:
        """Write `provenance.json`."""
        self.folder.write_provenance(self.data)

    def _set(self, stage: str, **entry: Any) -> None:
        self.data["stages"][stage] = entry
        self.save()


def key_of(*parts: Any) -> str:
    """Return a short digest of plain data; equal data give equal keys."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
