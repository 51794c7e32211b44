"""What scores do while the network learns: which of them are early what they are in the end."""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from nodelens.analysis.dynamics import dynamics
from nodelens.configs import Config
from nodelens.experiments.artifacts import RunResults
from nodelens.experiments.lenses import build_lens, wants_initial_weights
from nodelens.experiments.networks import EPOCH
from nodelens.experiments.sections import Drawing, leave_section
from nodelens.experiments.stage import Run, Stage
from nodelens.experiments.stages.measure import MeasureStage
from nodelens.figures import plot_depth
from nodelens.figures.style import SINGLE, label_axes, legend_height, paper_axes
from nodelens.report import SectionTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["DynamicsStage"]

SCORES = "results/training_scores.csv"
DYNAMICS = "results/training_dynamics.csv"
_TITLE = "While it learned"
_ALIKE = "rank correlation with the end"
_MOST_DRAWN = 7


class DynamicsStage(Stage):
    """Writes every score after the epochs asked for, and how alike the end it ranks channels."""

    name = "dynamics"
    needs = ("data", "network", "measure")
    code = (*MeasureStage.code, "analysis/dynamics.py", "experiments/stages/dynamics.py")

    def settings(self, run: Run) -> Any:
        return list(run.config.training.measured_epochs)

    def protocol(self, config: Config) -> str:
        epochs = ", ".join(map(str, config.training.measured_epochs))
        return (
            f"After epochs {epochs} the lenses measure the network as it was then, on the same"
            " rows. Rank correlations are Spearman's over the channels of a layer; top_overlap is"
            " the share of its last top tenth that is at the top already."
        )

    def run(self, run: Run) -> str:
        epochs = run.config.training.measured_epochs
        parts = []
        for done, epoch in enumerate(epochs):
            parts.append(_measured(run, epoch).assign(epoch=epoch))
            run.advance(done + 1, len(epochs))
        last = RunResults(run.folder.root).scores.to_pandas()
        table = pd.concat([*parts, last.assign(epoch=run.config.training.epochs)])
        table = table[table["channel"].notna()]
        run.folder.write_table(SCORES, table[["epoch", "layer", "channel", "score", "value"]])
        run.folder.write_table(DYNAMICS, _alike(table))
        return f"scores after {len(epochs)} epochs, beside those of the end"

    def show(self, run: Run) -> None:
        table = run.folder.read_table(DYNAMICS)
        if table.empty:
            leave_section(run, self.name, [], title=_TITLE, sentence="No score ranks channels.")
            return
        means = table.groupby(["score", "epoch"], sort=False)["with_last"].mean().unstack()
        means = means.sort_values(means.columns[0], ascending=False)
        first, names = means.iloc[:, 0], means.index
        leave_section(
            run,
            self.name,
            [
                Drawing(
                    "training_dynamics", f"{_ALIKE.capitalize()}, by epoch.", partial(_draw, means)
                )
            ],
            title=_TITLE,
            sentence=(
                f"After epoch {means.columns[0]} `{names[0]}` ranks channels most as in the end"
                f" (rank correlation {first.iloc[0]:.2f}), `{names[-1]}` least"
                f" ({first.iloc[-1]:.2f})."
            ),
            tables=(SectionTable(file=DYNAMICS, title="Scores by epoch, beside the end"),),
            how="Means over layers. A score that settles early tells early which channels stay."
            + (f" Drawn are {_MOST_DRAWN} of {len(names)}." if len(names) > _MOST_DRAWN else ""),
        )


def _measured(run: Run, epoch: int) -> pd.DataFrame:
    """Return the scores of the network as it was after an epoch."""
    network, lens = copy.deepcopy(run.network), build_lens(run.config)
    network.load_state_dict(run.folder.read_tensors(EPOCH.format(epoch)))
    options: Any = (
        {"initial_weights": run.weights["initial"]} if wants_initial_weights(lens) else {}
    )
    batches = list(run.splits.batches(run.splits.calibration))
    budget = run.config.calibration.memory_budget
    return lens.run(network, batches, progress=False, memory_budget=budget, **options).to_pandas()


def _alike(table: pd.DataFrame) -> pd.DataFrame:
    """Return a row a layer, score and epoch, without scores that rank no channels in the end."""
    found = []
    for (layer, score), rows in table.groupby(["layer", "score"], sort=False):
        values = rows.pivot(index="epoch", columns="channel", values="value")
        if values.iloc[-1].nunique() > 1 and np.isfinite(values.to_numpy()).all():
            changed = dynamics(torch.tensor(values.to_numpy()), steps=list(values.index))
            told = changed.to_pandas().rename(columns={"step": "epoch"}).astype({"epoch": int})
            found.append(told.assign(layer=str(layer), score=str(score)))
    columns = ["layer", "score", "epoch", "with_before", "with_last", "top_overlap"]
    return pd.concat(found)[columns] if found else pd.DataFrame(columns=columns)


def _draw(means: pd.DataFrame) -> Axes:
    """Draw at most seven scores, from the one most like the end to the one least like it."""
    shown = np.unique(np.linspace(0, len(means) - 1, min(_MOST_DRAWN, len(means))).round())
    rows = means.iloc[shown.astype(int)].iterrows()
    lines = {str(score): {str(e): float(v) for e, v in row.items()} for score, row in rows}
    ax = plot_depth(lines, paper_axes(None, SINGLE, 2.2 + legend_height(list(lines), SINGLE)))
    label_axes(ax, "epoch", _ALIKE)
    return ax
