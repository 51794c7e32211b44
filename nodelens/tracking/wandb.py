"""Weights & Biases: a run on this machine, or sent as it goes."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from nodelens.tracking.packages import imported
from nodelens.tracking.tracker import Status

__all__ = ["WandbTracker"]

_EXIT_CODES = {"finished": 0, "failed": 1, "interrupted": 130}


class WandbTracker:
    """Writes a W&B run into the run directory, for `wandb sync`; `mode="online"` sends it.

    Nothing but what the run logs is sent on purpose: neither source code nor what is printed.
    """

    def __init__(
        self,
        project: str = "nodelens",
        mode: Literal["offline", "online"] = "offline",
        entity: str | None = None,
        group: str | None = None,
    ) -> None:
        self._where = {"project": project, "mode": mode, "entity": entity, "group": group}
        self._run: Any = None
        self._axes: set[str] = set()

    def start(self, name: str, config: Mapping[str, Any], folder: Path) -> None:
        """Start a run with the configuration."""
        wandb = imported("wandb", "wandb")
        settings = wandb.Settings(
            console="off", silent=True, save_code=False, disable_git=True, disable_code=True
        )
        self._run = wandb.init(
            name=name, dir=str(folder), config=dict(config), settings=settings, **self._where
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log numbers, those before each first slash on an axis of their own."""
        # W&B's one step only grows; epochs and layers each start at the beginning.
        told: dict[str, float] = dict(values)
        for part in {name.partition("/")[0] for name in values}:
            axis = f"{part}/step"
            if part not in self._axes:
                self._axes.add(part)
                self._run.define_metric(axis, hidden=True)
                self._run.define_metric(f"{part}/*", step_metric=axis)
            told[axis] = step
        self._run.log(told)

    def log_file(self, path: Path, name: str) -> None:
        """Copy a file into the run's files."""
        # Of a file that stands elsewhere W&B keeps a link, which breaks when a folder is moved.
        copied = Path(self._run.dir) / name
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copied)
        self._run.save(str(copied), base_path=self._run.dir, policy="now")

    def finish(self, status: Status) -> None:
        """End the run."""
        self._run.finish(exit_code=_EXIT_CODES[status])
