"""Tables over scores and layers, and the findings that the report states."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nodelens.configs import Config
from nodelens.experiments.artifacts import (
    FINDINGS,
    LAYER_MEANS,
    LAYER_RANKS,
    RANK_CORRELATION,
    RunResults,
)
from nodelens.experiments.sections import read_sections
from nodelens.experiments.stage import Run, Stage
from nodelens.report import Evidence, find
from nodelens.result import LensResult

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["AnalysisStage", "layer_ranks", "rank_correlation"]


class AnalysisStage(Stage):
    """Writes rank correlations, means and ranks by layer, and findings."""

    name = "analysis"
    needs = ("data", "network", "measure", "sensitivity")
    code = ("report", "experiments/stages/analysis.py")
    derived = True
    collects = True

    def settings(self, run: Run) -> Any:
        return {"model": run.config.model.name}

    def protocol(self, config: Config) -> str:
        return (
            "Rank correlations are Spearman's over the channels of a layer, averaged over layers"
            " by their number of channels. Intervals of accuracies are Wilson's, 95%."
        )

    def run(self, run: Run) -> str:
        import pandas as pd

        results = RunResults(run.folder.root)
        channels = results.channels
        means = channels.drop(columns="channel").groupby("layer", sort=False).mean().T
        ranks = layer_ranks(channels)
        correlation = rank_correlation(channels)
        for name, table in {
            LAYER_MEANS: pd.concat([means, layer_numbers(results.scores)]),
            LAYER_RANKS: ranks,
            RANK_CORRELATION: correlation,
        }.items():
            run.folder.write_table(name, table.rename_axis(index="score"), index=True)
        findings = find(
            Evidence(
                channels=channels,
                correlation=correlation,
                layer_ranks=ranks,
                units=results.scores.units,
                importance=results.scores.importance,
                network=results.network["name"],
                dataset=results.dataset["note"],
                classes=results.dataset["classes"],
                rows=results.dataset["rows"],
                rows_are=results.dataset.get("rows_are", "rows"),
                accuracy=results.network.get("test_accuracy"),
                perplexity=results.network.get("test_perplexity"),
                protocol=results.network.get("test_protocol", ""),
                sensitivity=results.sensitivity,
            )
        )
        findings = findings.with_sections(list(read_sections(run.folder).values()))
        run.folder.write_json(FINDINGS, asdict(findings))
        return f"{len(findings.sentences)} findings"


def layer_numbers(scores: LensResult) -> pd.DataFrame:
    """Return the scores that are a number of the whole layer, scores by layers."""
    import pandas as pd

    named = {name: scores.scores(name) for name in scores.score_names}
    found = {
        name: {layer: float(value) for layer, value in values.items() if not value.ndim}
        for name, values in named.items()
    }
    return pd.DataFrame({name: values for name, values in found.items() if values}).T


def rank_correlation(channels: pd.DataFrame) -> pd.DataFrame:
    """Return Spearman's correlation of every pair of scores within layers, scores by scores.

    Layers count by their number of channels; over all channels at once, differences between layers
    would pass for agreement. NaN where one of the two is constant in every layer.
    """
    import pandas as pd

    scores = list(channels.columns[2:])
    total = pd.DataFrame(0.0, index=scores, columns=scores)
    weight = pd.DataFrame(0.0, index=scores, columns=scores)
    for _, rows in channels.groupby("layer", sort=False):
        found = rows[scores].corr(method="spearman")
        total += found.fillna(0.0) * len(rows)
        weight += found.notna() * len(rows)
    return total / weight.where(weight > 0)


def layer_ranks(channels: pd.DataFrame) -> pd.DataFrame:
    """Return the mean rank of each layer's channels among all, scores by layers, from 0 to 1.

    NaN for a score that is the same for every channel.
    """
    scores = channels[channels.columns[2:]]
    counts = scores.notna().sum()
    ranks = (scores.rank() - 1) / (counts - 1).clip(lower=1)
    ranks.loc[:, scores.nunique() <= 1] = float("nan")
    return ranks.groupby(channels["layer"], sort=False).mean().T
