"""Writing a figure: the same bytes every time, text as text."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nodelens.errors import InvalidValueError
from nodelens.figures.values import one_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FORMATS", "figure_bytes", "figure_of", "save_figure"]

FORMATS: Mapping[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
"""The formats that figures are written in, each with the metadata that would change by the day."""
_STYLE: dict[Any, Any] = {"svg.hashsalt": "nodelens", "svg.fonttype": "none", "pdf.fonttype": 42}


def save_figure(drawn: Any, path: str | Path, *, dpi: int = 300) -> Path:
    """Write the figure of `drawn` (axes, an array of them, or a figure) and return its path.

    The suffix says how: `.png`, `.svg` or `.pdf`. Text stays text: PDF holds its font, SVG names
    it. The file is whole or not there. `dpi` is of PNG and of what is rasterised in the others.

    Raises InvalidValueError for another suffix, or for what no figure holds.
    """
    from nodelens.files import write_bytes

    target = Path(path)
    kind = one_of(target.suffix.removeprefix(".").lower(), FORMATS, f"the format of {target.name}")
    write_bytes(target, figure_bytes(figure_of(drawn), kind, dpi))
    return target


def figure_bytes(figure: Figure, kind: str, dpi: int) -> bytes:
    """Return a figure in one of `FORMATS`."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(buffer, format=kind, dpi=dpi, metadata=FORMATS[kind])
    return buffer.getvalue()


def figure_of(drawn: Any) -> Figure:
    """Return the figure of axes, of an array of axes, or itself."""
    from matplotlib.figure import Figure

    first = drawn.flat[0] if hasattr(drawn, "flat") else drawn
    figure = first if isinstance(first, Figure) else getattr(first, "figure", None)
    if figure is None:
        raise InvalidValueError(f"a {type(drawn).__name__} is on no figure, expected axes")
    found: Figure = figure.get_figure(root=True) if hasattr(figure, "get_figure") else figure
    return found
