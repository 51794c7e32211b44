"""Trackers: where else the numbers and files of a run go, besides its own folder."""

from nodelens.tracking.registry import check_tracker, make_tracker, tracker_names
from nodelens.tracking.together import Trackers
from nodelens.tracking.tracker import Status, Tracker

__all__ = ["Status", "Tracker", "Trackers", "check_tracker", "make_tracker", "tracker_names"]
