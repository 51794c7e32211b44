"""The section `tracking`: where else the numbers and files of a run go."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated

from pydantic import Strict, field_validator

from nodelens.configs.sections.base import NamedSection, Names, Section

__all__ = ["TrackerConfig", "TrackingConfig"]


class TrackerConfig(NamedSection):
    """A tracker by its name; every other key is an option of that tracker."""

    name: str
    """`tensorboard`, `mlflow`, `wandb`, or one that an installed package announces"""


class TrackingConfig(Section):
    """Trackers that follow the run; one that fails never stops it."""

    trackers: Annotated[tuple[TrackerConfig, ...], Strict(False)] = ()
    """a list of trackers, each a name or a section with a name and options; none by default"""
    files: Names = ("report.html", "experiment_config.yaml", "figures/*.png")
    """Patterns of files in the run directory that trackers get when the run ends."""

    @field_validator("trackers")
    @classmethod
    def _each_once(cls, value: tuple[TrackerConfig, ...]) -> tuple[TrackerConfig, ...]:
        names = [tracker.name for tracker in value]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)} is named twice, expected each tracker once")
        return value

    @field_validator("files")
    @classmethod
    def _inside(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            path = PurePosixPath(pattern)
            if not path.parts or path.is_absolute() or ".." in path.parts:
                raise ValueError(f"{pattern!r}, expected a pattern inside the run directory")
        return value
