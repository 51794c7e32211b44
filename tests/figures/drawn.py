"""What was drawn, read back from axes."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

Points = list[list[float]]


def points(ax: Axes) -> dict[str, Points]:
    """Return the points of every line that has a label."""
    return {
        str(line.get_label()): line.get_xydata().tolist()
        for line in ax.get_lines()
        if not str(line.get_label()).startswith("_")
    }


def heights(ax: Axes) -> dict[str, list[float]]:
    """Return the heights of every line that has a label."""
    return {label: [y for _, y in found] for label, found in points(ax).items()}


def new_axes(width: float = 3.3, height: float = 2.4) -> Axes:
    """Return axes of a figure of their own."""
    return Figure(figsize=(width, height), layout="constrained").add_subplot()


def texts(ax: Any) -> list[str]:
    """Return what is written into the axes."""
    return [text.get_text() for text in ax.texts]
