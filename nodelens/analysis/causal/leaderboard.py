"""Every lens by how well it foretells what silencing a channel costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nodelens.analysis.causal.board import BoardEntry, LeaderboardCheck
from nodelens.analysis.causal.check import CausalResult
from nodelens.analysis.causal.scoring import scored
from nodelens.errors import InvalidValueError, LayerNotFoundError, nearest
from nodelens.files import write_text
from nodelens.lens import Lens
from nodelens.model.wrapper import ModelWrapper, wrap
from nodelens.notebook import html_table
from nodelens.progress import Progress

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

__all__ = ["Leaderboard", "lens_leaderboard"]


@dataclass(frozen=True)
class Leaderboard:
    """The scores ranked, best first; `refused` says why lenses are missing."""

    result: CausalResult
    refused: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    title: str = "Which lens finds the channels that matter?"

    @property
    def evaluations(self) -> int:
        """Return how often the model went over all batches."""
        return self.result.evaluations

    def to_pandas(self) -> pandas.DataFrame:
        """Return one row a score, the highest Spearman correlation first."""
        return self.result.to_pandas()

    def to_csv(self, path: str | Path) -> None:
        """Write the table as CSV, whole or not at all."""
        self.result.to_csv(path)

    def plot(self, ax: Axes | None = None, most: int = 40) -> Axes:
        """Return axes with the correlation of the best scores, and of the control, on intervals."""
        from nodelens.figures.intervals import plot_intervals

        shown = [row for n, row in enumerate(self.result.rows) if n < most or _is_control(row)]
        found = {
            row["score"]: (row["spearman"], row["spearman_low"], row["spearman_high"])
            for row in shown
        }
        controls = [row["score"] for row in shown if _is_control(row)]
        label = "Spearman correlation with the measured rise in loss"
        return plot_intervals(found, ax, label=label, controls=controls)

    def to_html(self, path: str | Path) -> None:
        """Write one page that holds everything it shows, its table sorted by a click."""
        from nodelens.analysis.causal.page import leaderboard_page

        write_text(Path(path), leaderboard_page(self))

    def _repr_html_(self) -> str:
        header = ("score", "spearman", "spearman_low", "spearman_high")
        rows = [[row.get(name) for name in header] for row in self.result.rows]
        return html_table([name.replace("_", " ") for name in header], rows, self.title)


def _is_control(row: Mapping[str, Any]) -> bool:
    return bool(row["family"] == "control")


def lens_leaderboard(
    model: Any,
    batches: Iterable[Any],
    validation: Iterable[Any] | None = None,
    *,
    layers: Sequence[str] | None = None,
    lenses: Sequence[str | Lens] | None = None,
    pattern: str | None = None,
    unit: Callable[[str], str] = str,
    site: str = "output",
    options: Mapping[str, Any] | None = None,
    per_layer: int = 32,
    strata: int = 8,
    top: float = 0.1,
    fractions: tuple[float, ...] = (0.125, 0.25, 0.5, 0.75),
    timed_batches: int = 1,
    resamples: int = 1000,
    seed: int = 0,
    value: Any = "zero",
    loss: Any = None,
    path: str | Path | None = None,
    progress: bool | Progress = True,
    planned: Callable[[LeaderboardCheck], None] | None = None,
) -> Leaderboard:
    """Return every metric lens that fits, ranked by how well it foretells measured damage.

    Scores come from `batches`, damage from `validation` (the same without). `layers` are those
    whose units are silenced at `site`, by default every layer the pass calls but its last; `unit`
    maps names of layers to that of a set of units, where scores of the same units stand under
    several. `lenses` are names or lenses, by default every metric registered, plugins too.
    `planned` is called with the check before the model is evaluated: it knows `.evaluations`. With
    `path` what was measured is taken up again. See `LeaderboardCheck` and `measured_damage`.

    Raises LayerNotFoundError for a layer that is none.
    """
    wrapper = wrap(model)
    with torch.random.fork_rng(devices=[]):
        given = list(batches)
        tested = given if validation is None else list(validation)
    if not given:
        raise InvalidValueError("no batch to score channels on, expected at least one")
    widths = _widths(wrapper, given[0], layers, site)
    board, refused = scored(
        wrapper, given, widths, lenses=lenses, pattern=pattern, unit=unit, options=options,
        timed_batches=timed_batches, progress=progress,
    )  # fmt: skip
    check = _check(board, refused, per_layer, strata, top, fractions, resamples, seed)
    if planned is not None:
        planned(check)
    result = check.run(
        wrapper, tested, value=value, site=site, loss=loss, path=path, progress=progress
    )
    return Leaderboard(result, refused, _facts(check, wrapper, result))


def _check(
    board: Mapping[str, BoardEntry],
    refused: Mapping[str, str],
    per_layer: int,
    strata: int,
    top: float,
    fractions: tuple[float, ...],
    resamples: int,
    seed: int,
) -> LeaderboardCheck:
    if not board:
        raise InvalidValueError(f"no lens gives a score of single units of these layers: {refused}")
    return LeaderboardCheck(
        board, per_layer=per_layer, strata=strata, top=top,
        fractions=fractions, resamples=resamples, seed=seed,
    )  # fmt: skip


def _widths(
    wrapper: ModelWrapper, batch: Any, layers: Sequence[str] | None, site: str
) -> dict[str, int]:
    """Return how many units each layer has at the site."""
    route = wrapper.route(wrapper.prepare_batch(batch))
    if layers is None:
        called = sorted((n for n in wrapper.layers if route.reached(n)), key=route.order)
        # What the last layer returns is the answer itself.
        layers = called[:-1] or called
    for name in layers:
        if name not in wrapper.layers:
            raise LayerNotFoundError(f"no layer {name!r}{nearest(name, wrapper.layers)}")
    found = {name: wrapper.layers[name] for name in layers}
    return {n: x.channels if site == "output" else x.inputs for n, x in found.items()}


def _facts(check: LeaderboardCheck, wrapper: ModelWrapper, result: CausalResult) -> dict[str, str]:
    channels = sum(len(drawn) for drawn in check.drawn.values())
    return {
        "model": type(wrapper.module).__name__,
        "layers": ", ".join(check.widths),
        "channels silenced one by one": f"{channels} of {sum(check.widths.values())}",
        "fractions pruned": ", ".join(f"{f:g}" for f in check.fractions) or "none",
        "evaluations": f"{check.evaluations}",
        "resamples": f"{check.resamples}",
        **({"reliability": result.notes[0]} if result.notes else {}),
    }
