"""Saving a figure into the run directory, the same bytes every time."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nodelens.experiments.stage import Run

__all__ = ["save_figure"]

_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
}
_STYLE: dict[Any, Any] = {
    "font.size": 8,
    "svg.hashsalt": "nodelens",
    "svg.fonttype": "path",
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.03,
}


def save_figure(run: Run, file: str, draw: Callable[[], Axes]) -> int:
    """Write the figure that `draw()` makes as PNG and SVG; return its width in CSS pixels.

    `file` is a name in the run directory without suffix, such as `figures/depth`.
    """
    import matplotlib
    from matplotlib import pyplot

    with matplotlib.rc_context(_STYLE):
        figure = draw().get_figure(root=True)
        assert figure is not None
        try:
            # Laid out once: doing it again for the second format would give the same places.
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
            for kind, metadata in _METADATA.items():
                buffer = io.BytesIO()
                figure.savefig(buffer, format=kind, dpi=200, metadata=metadata)
                run.folder.write_bytes(f"{file}.{kind}", buffer.getvalue())
            return round(96 * float(figure.get_size_inches()[0]))
        finally:
            pyplot.close(figure)
