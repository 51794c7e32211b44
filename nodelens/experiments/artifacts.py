"""Names of the files in a run directory, and the results read back from them."""

from __future__ import annotations

from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nodelens.experiments.folder import PROVENANCE, RunFolder
from nodelens.result import LensResult

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RunResults"]

CONFIG = "experiment_config.yaml"
LOG = "logs/run.log"
DATASET = "results/dataset.json"
NETWORK = "results/network.json"
TRAINING = "results/training.csv"
SCORES = "results/scores"
SCORE_FILES = (f"{SCORES}/scores.safetensors", f"{SCORES}/result.json")
STATE = "results/state.safetensors"
SCORES_TABLE = "results/scores.csv"
CHANNELS = "results/channels.csv"
SENSITIVITY = "results/sensitivity.csv"
CLUSTERS = "results/clusters.csv"
CLUSTER_LAYERS = "results/cluster_layers.csv"
CLUSTER_ABLATIONS = "results/cluster_ablations.csv"
CLUSTER_WORTH = "results/cluster_worth.csv"
CENTROIDS = "results/cluster_centroids.csv"
INFLUENCE = "results/influence.safetensors"
HALOS = "results/halos.csv"
HALO_CHANNELS = "results/halo_channels.csv"
FLOW = "results/flow.csv"
CASCADE = "results/cascade.csv"
HALO_ABLATION = "results/halo_ablation.csv"
RECEIVERS = "results/halo_receivers.csv"
VALIDATION = "results/ablation_validation.csv"
CAUSAL = "results/causal.csv"
PRUNING = "results/pruning.csv"
PRUNING_PROTOCOL = "results/pruning.json"
SUPERNODES = "results/supernodes.csv"
EVALUATION = "results/evaluation.json"
SHRUNK = "shrunk"
LAYER_MEANS = "analysis/layer_means.csv"
LAYER_RANKS = "analysis/layer_ranks.csv"
RANK_CORRELATION = "analysis/rank_correlation.csv"
FINDINGS = "analysis/findings.json"
FIGURES = "figures/figures.json"
REPORT = "report.html"
REPORT_MARKDOWN = "report.md"
REPORT_JSON = "report.json"


class RunResults:
    """The results of a finished run, read from its directory when asked for."""

    def __init__(self, directory: str | Path) -> None:
        self.folder = RunFolder(directory)

    def __repr__(self) -> str:
        return f"RunResults({str(self.directory)!r})"

    def _repr_html_(self) -> str:
        if not self.folder.has(FINDINGS):
            return f"<p>{escape(self.directory.name)}: not finished</p>"
        said = [self.findings["headline"], *self.findings["sentences"]]
        return "".join(f"<p>{escape(sentence.replace('`', ''))}</p>" for sentence in said)

    @property
    def directory(self) -> Path:
        """Return the run directory."""
        return self.folder.root

    @property
    def report(self) -> Path:
        """Return the path of the report page."""
        return self.folder.path(REPORT)

    @cached_property
    def scores(self) -> LensResult:
        """Return the raw scores of every channel."""
        return LensResult.load(self.folder.path(SCORES))

    @cached_property
    def channels(self) -> pd.DataFrame:
        """Return a table with a row for every channel: layer, channel, then a column a score."""
        return self.folder.read_table(CHANNELS)

    @cached_property
    def sensitivity(self) -> pd.DataFrame | None:
        """Return accuracy and loss by order and amount silenced, None when not measured."""
        return self.folder.read_table(SENSITIVITY) if self.folder.has(SENSITIVITY) else None

    def table(self, name: str) -> pd.DataFrame | None:
        """Return the CSV table that a stage wrote as `name`, None where there is none."""
        return self.folder.read_table(name) if self.folder.has(name) else None

    @cached_property
    def pruning(self) -> pd.DataFrame | None:
        """Return what each pruned network is worth, a row each, None when nothing was pruned."""
        return self.folder.read_table(PRUNING) if self.folder.has(PRUNING) else None

    @cached_property
    def rank_correlation(self) -> pd.DataFrame:
        """Return how alike two scores rank the channels of a layer, scores by scores."""
        return self.folder.read_table(RANK_CORRELATION, index="score")

    @cached_property
    def layer_means(self) -> pd.DataFrame:
        """Return the mean of every score (row) in every layer (column)."""
        return self.folder.read_table(LAYER_MEANS, index="score")

    @cached_property
    def layer_ranks(self) -> pd.DataFrame:
        """Return the mean rank, 0 to 1, of a layer's channels (column) by every score (row)."""
        return self.folder.read_table(LAYER_RANKS, index="score")

    @cached_property
    def dataset(self) -> dict[str, Any]:
        """Return what the data are and how they were divided."""
        found: dict[str, Any] = self.folder.read_json(DATASET)
        return found

    @cached_property
    def network(self) -> dict[str, Any]:
        """Return the network's size and accuracy."""
        found: dict[str, Any] = self.folder.read_json(NETWORK)
        return found

    @cached_property
    def findings(self) -> dict[str, Any]:
        """Return what the report says, as data: a headline, key numbers and sentences."""
        found: dict[str, Any] = self.folder.read_json(FINDINGS)
        return found

    @property
    def provenance(self) -> dict[str, Any]:
        """Return versions, seeds, protocol and stages."""
        found: dict[str, Any] = self.folder.read_json(PROVENANCE)
        return found
