"""Saving a figure into the run directory, the same bytes every time."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nodelens.configs import Config
from nodelens.figures.save import figure_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nodelens.experiments.stage import Run

__all__ = ["file_name", "formats_of", "save_figure"]

_DPI = 200
_LONGEST = 80
_STYLE: dict[Any, Any] = {
    "font.size": 8,
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.03,
}


def formats_of(config: Config) -> list[str]:
    """Return the formats that figures are written in: those asked for, and SVG for the report."""
    return list(dict.fromkeys([*config.figures.formats, "svg"]))


def save_figure(run: Run, file: str, draw: Callable[[], Axes]) -> int:
    """Write the figure that `draw()` makes in every format; return its width in CSS pixels.

    `file` is a name in the run directory without suffix, such as `figures/depth`.
    """
    import matplotlib
    from matplotlib import pyplot

    with matplotlib.rc_context(_STYLE):
        figure = draw().get_figure(root=True)
        assert figure is not None
        try:
            # Laid out once, as dense as it is saved: letters are wider there than at fewer dots.
            figure.set_dpi(_DPI)
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
            for kind in formats_of(run.config):
                run.folder.write_bytes(f"{file}.{kind}", figure_bytes(figure, kind, _DPI))
            return round(96 * float(figure.get_size_inches()[0]))
        finally:
            # A figure made at a prompt is pyplot's.
            pyplot.close(figure)


def file_name(name: str) -> str:
    """Return a name as part of a file name; a plugin may call its scores anything."""
    plain = re.sub(r"[^A-Za-z0-9._=-]+", "_", name)[:_LONGEST]
    if plain == name:
        return name
    # Two names that differ in what a file name cannot have must not share a file.
    return f"{plain}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"
