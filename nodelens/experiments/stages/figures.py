"""Drawing the figures of a run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from nodelens import figures
from nodelens.configs import Config
from nodelens.experiments.artifacts import FIGURES, RunResults
from nodelens.experiments.drawing import file_name, formats_of
from nodelens.experiments.drawing import save_figure as _save
from nodelens.experiments.stage import Run, Stage
from nodelens.result import LensResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["FigureStage"]

_PROFILES = 4
"""So many scores have violins, which take longer than histograms."""
_MODES = {"low": "lowest first", "high": "highest first"}


class FigureStage(Stage):
    """Writes every figure, and a list of them with what each shows."""

    name = "figures"
    needs = ("data", "measure", "sensitivity", "analysis")
    code = (
        "figures",
        "experiments/drawing.py",
        "experiments/stages/figures.py",
    )
    derived = True
    collects = True

    def settings(self, run: Run) -> Any:
        return {"formats": formats_of(run.config)}

    def protocol(self, config: Config) -> str:
        return (
            "Figures are drawn from the tables in results/ and analysis/; nothing is fitted or"
            " smoothed, but violins, which are kernel densities."
        )

    def run(self, run: Run) -> str:
        results = RunResults(run.folder.root)
        drawings = [
            *_curves(results),
            *_tables(results),
            *_profiles(results, run.config),
            *_histograms(results),
        ]
        listed = []
        for number, (entry, draw) in enumerate(drawings, start=1):
            width = _save(run, entry["file"], draw)
            listed.append({**entry, "width": width})
            run.advance(number, len(drawings))
        run.folder.write_json(FIGURES, listed)
        return f"{len(listed)} figures as {' and '.join(map(str.upper, formats_of(run.config)))}"


Drawing = tuple[dict[str, str], "Callable[[], Axes]"]


def _curves(results: RunResults) -> list[Drawing]:
    table = results.sensitivity
    if table is None:
        return []
    tested = table[table["split"] == "test"]
    chance = results.dataset["guessing_accuracy"]
    drawings: list[Drawing] = []
    for mode, words in _MODES.items():
        if not (tested["mode"] == mode).any():
            continue
        rows = tested[tested["mode"].isin([mode, "random"])]
        alt = f"Test accuracy against the share of channels silenced, {words}."
        draw = partial(figures.plot_sensitivity, rows, chance=chance)
        drawings.append((_entry(f"sensitivity_{mode}", "curve", alt), draw))
    return drawings


def _tables(results: RunResults) -> list[Drawing]:
    if results.layer_ranks.empty:
        return []
    alt = "Mean rank of each layer's channels by each score."
    means = results.layer_means.loc[results.layer_ranks.index]
    heatmap = partial(figures.plot_layer_heatmap, results.layer_ranks, values=means)
    drawings: list[Drawing] = [(_entry("layer_heatmap", "heatmap", alt), heatmap)]
    if len(results.rank_correlation) > 1:
        alt = "Rank correlation of every two scores."
        draw = partial(figures.plot_rank_correlation, results.rank_correlation)
        drawings.append((_entry("rank_correlation", "correlation", alt), draw))
    return drawings


def _profiles(results: RunResults, config: Config) -> list[Drawing]:
    """Violins, and ranks by depth, of the scores that channels are silenced by, or the first."""
    scores, tables = results.scores, results.layer_ranks
    asked = config.sensitivity.scores if config.sensitivity else scores.score_names
    chosen = [name for name in asked if name in results.channels.columns][:_PROFILES]
    drawings: list[Drawing] = []
    for name in chosen:
        values, unit = _by_channel(scores, name), scores.units.get(name, "")
        draw = partial(figures.plot_violin, values, name=name, unit=unit)
        entry = _entry(f"violin_{file_name(name)}", "violin", f"Violins of {name} by layer.")
        drawings.append((entry, draw))
    ranks = tables.loc[[name for name in chosen if name in tables.index]]
    if ranks.notna().to_numpy().any() and len(ranks.columns) > 1:
        alt = "Mean rank of each layer's channels, by depth."
        draw = partial(figures.plot_depth, ranks, name="mean rank of channels")
        drawings.append((_entry("depth_profile", "depth", alt), draw))
    return drawings


def _by_channel(scores: LensResult, name: str) -> dict[str, Any]:
    """Return a score of the layers that have it by channel."""
    found = scores.scores(name).items()
    return {layer: tensor.numpy() for layer, tensor in found if tensor.ndim == 1}


def _histograms(results: RunResults) -> list[Drawing]:
    scores = results.scores
    drawings: list[Drawing] = []
    for name in scores.score_names:
        values = _by_channel(scores, name)
        if not values:
            continue
        unit = scores.units.get(name, "")
        draw = partial(figures.plot_score_histogram, values, name=name, unit=unit)
        entry = _entry(
            f"histogram_{file_name(name)}", "histogram", f"Histogram of {name} by layer."
        )
        drawings.append((entry, draw))
    return drawings


def _entry(file: str, kind: str, alt: str) -> dict[str, str]:
    return {"name": file, "file": f"figures/{file}", "kind": kind, "alt": alt}
