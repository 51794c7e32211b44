"""Trackers by name: the three that are built in, and those that installed packages announce."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, cast

from nodelens.errors import UnknownNameError, UnknownOptionError, nearest

if TYPE_CHECKING:
    from nodelens.tracking.tracker import Tracker

__all__ = ["GROUP", "check_tracker", "make_tracker", "tracker_names"]

GROUP = "nodelens.trackers"
_BUILT_IN = {
    "mlflow": "nodelens.tracking.mlflow:MLflowTracker",
    "tensorboard": "nodelens.tracking.tensorboard:TensorBoardTracker",
    "wandb": "nodelens.tracking.wandb:WandbTracker",
}


def tracker_names() -> list[str]:
    """Return the names of all trackers, sorted; whether their software is there is not asked.

    >>> tracker_names()
    ['mlflow', 'tensorboard', 'wandb']
    """
    return sorted(_points())


def make_tracker(name: str, options: Mapping[str, Any]) -> Tracker:
    """Return a tracker; UnknownNameError for a name that nobody has.

    A stranger's package may raise anything.
    """
    return cast("Tracker", _point(name).load()(**options))


def check_tracker(name: str, options: Mapping[str, Any]) -> None:
    """Raise UnknownNameError or UnknownOptionError for what cannot be a tracker.

    Of a stranger's tracker only the name is looked at: its package is not imported before the run.
    """
    point = _point(name)
    if name not in _BUILT_IN:
        return
    known = list(inspect.signature(point.load()).parameters)
    for option in options:
        if option not in known:
            raise UnknownOptionError(
                f"tracker {name!r} has no option {option!r}{nearest(option, known)};"
                f" it has {', '.join(known)}"
            )


def _points() -> dict[str, EntryPoint]:
    announced = {point.name: point for point in entry_points(group=GROUP)}
    ours = {name: EntryPoint(name, value, GROUP) for name, value in _BUILT_IN.items()}
    return {**announced, **ours}


def _point(name: str) -> EntryPoint:
    points = _points()
    if name not in points:
        known = ", ".join(sorted(points))
        raise UnknownNameError(
            f"unknown tracker {name!r}{nearest(name, points)}; there are {known}"
        )
    return points[name]
