"""TensorBoard: event files in the run directory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nodelens.tracking.packages import imported
from nodelens.tracking.tracker import Status

__all__ = ["TensorBoardTracker"]

_TEXT = (".yaml", ".json", ".md", ".txt")


class TensorBoardTracker:
    """Writes event files; of files it shows PNG images and text, the others stay where they are.

    The event files of an earlier start of the same run are replaced: every start logs all of it.
    """

    def __init__(self) -> None:
        self._writer: Any = None

    def start(self, name: str, config: Mapping[str, Any], folder: Path) -> None:
        """Open an event file that begins with the configuration."""
        package = imported("torch.utils.tensorboard", "tensorboard")
        for earlier in folder.glob("events.out.tfevents.*"):
            earlier.unlink()
        self._writer = package.SummaryWriter(str(folder))
        self._text("experiment_config", json.dumps({"run": name, **config}, indent=2))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Write scalars."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def log_file(self, path: Path, name: str) -> None:
        """Write an image or a text."""
        if path.suffix == ".png":
            from matplotlib.image import imread

            self._writer.add_image(name, imread(path), dataformats="HWC")
        elif path.suffix in _TEXT:
            self._text(name, path.read_text(encoding="utf-8"))

    def finish(self, status: Status) -> None:
        """Note how the run ended, and close the file."""
        self._text("status", status)
        self._writer.close()

    def _text(self, name: str, text: str) -> None:
        # Four spaces are a code block of Markdown, which leaves the text as it is.
        self._writer.add_text(name, "\n".join(f"    {line}" for line in text.splitlines()))
