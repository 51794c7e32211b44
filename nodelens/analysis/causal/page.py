"""The leaderboard as one page that holds everything it shows: no request leaves it."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nodelens.analysis.causal.leaderboard import Leaderboard

__all__ = ["COLUMNS", "leaderboard_page", "shown"]

COLUMNS = {
    "score": "score",
    "family": "family",
    "importance": "direction",
    "spearman": "Spearman",
    "first_in": "first in",
    "top_recall": "top recall",
    "curve_loss": "curve, loss",
    "curve_accuracy": "curve, accuracy",
    "layers": "layers",
    "seconds": "s a batch",
    "bytes": "bytes kept",
}


def leaderboard_page(board: Leaderboard) -> str:
    """Return the page as HTML; every text in it is escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("nodelens.analysis.causal"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    rows = [
        [{"value": row[name], "shown": shown(row, name)} for name in COLUMNS]
        for row in board.result.rows
    ]
    template = environment.get_template("leaderboard.html.j2")
    return template.render(
        board=board, columns=list(COLUMNS.values()), rows=rows, figure=_figure(board)
    )


def shown(row: Any, name: str) -> str:
    """Return a cell as text: numbers rounded, with the interval where there is one."""
    value = row[name]
    if value is None:
        return ""
    if name in ("first_in", "curve_accuracy"):
        return f"{value:.0%}" if name == "first_in" else f"{value:.3f}"
    if name == "bytes":
        return f"{value:,}"
    if f"{name}_low" in row:
        return f"{value:.2f} [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _figure(board: Leaderboard) -> str:
    """The figure as a `data:` address, which keeps its styles and ids to itself."""
    from matplotlib.figure import Figure

    rows = min(len(board.result.rows), 41)
    figure = Figure(figsize=(7, 1 + 0.19 * rows), layout="constrained")
    board.plot(figure.subplots())
    drawn = io.BytesIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(drawn.getvalue()).decode("ascii")
