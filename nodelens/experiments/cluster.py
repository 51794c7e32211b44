"""The cluster analysis: types of channels, who listens to them, and what they are worth."""

from __future__ import annotations

from collections.abc import Sequence

from nodelens.experiments.experiment import Experiment
from nodelens.experiments.stage import Stage
from nodelens.experiments.stages.analysis import AnalysisStage
from nodelens.experiments.stages.causal import CausalStage
from nodelens.experiments.stages.clusters import ClusteringStage
from nodelens.experiments.stages.data import DataStage
from nodelens.experiments.stages.figures import FigureStage
from nodelens.experiments.stages.halos import HaloStage
from nodelens.experiments.stages.measure import MeasureStage
from nodelens.experiments.stages.network import NetworkStage
from nodelens.experiments.stages.pruning import pruning_stages
from nodelens.experiments.stages.report import ReportStage
from nodelens.experiments.stages.sensitivity import SensitivityStage

__all__ = ["ClusterAnalysisExperiment"]


class ClusterAnalysisExperiment(Experiment):
    """Sorts the channels of a network into types, follows them to the next layers, tests both."""

    type = "cluster_analysis"

    def stages(self) -> Sequence[Stage]:
        """Return the stages; those whose section is left out of the configuration are not run."""
        config = self.config
        asked = [
            (config.halo, HaloStage()),
            (config.causal, CausalStage()),
            (config.sensitivity, SensitivityStage()),
        ]
        return [
            DataStage(),
            NetworkStage(),
            MeasureStage(),
            ClusteringStage(),
            *(stage for section, stage in asked if section is not None),
            *pruning_stages(config),
            AnalysisStage(),
            FigureStage(),
            ReportStage(),
        ]
