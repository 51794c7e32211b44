"""The general alignment experiment: what scores say of channels, and what channels are worth."""

from __future__ import annotations

from collections.abc import Sequence

from nodelens.experiments.experiment import Experiment
from nodelens.experiments.stage import Stage
from nodelens.experiments.stages.analysis import AnalysisStage
from nodelens.experiments.stages.data import DataStage
from nodelens.experiments.stages.dynamics import DynamicsStage
from nodelens.experiments.stages.figures import FigureStage
from nodelens.experiments.stages.measure import MeasureStage
from nodelens.experiments.stages.network import NetworkStage
from nodelens.experiments.stages.pruning import pruning_stages
from nodelens.experiments.stages.report import ReportStage
from nodelens.experiments.stages.sensitivity import SensitivityStage

__all__ = ["GeneralAlignmentExperiment"]


class GeneralAlignmentExperiment(Experiment):
    """Trains or loads a network, scores its channels, silences them in order, and reports."""

    type = "general_alignment"

    def stages(self) -> Sequence[Stage]:
        """Return the stages; nothing is silenced or pruned without a section that asks for it."""
        tested = [SensitivityStage()] if self.config.sensitivity is not None else []
        return [
            DataStage(),
            NetworkStage(),
            MeasureStage(),
            *([DynamicsStage()] if self.config.training.measured_epochs else []),
            *tested,
            *pruning_stages(self.config),
            AnalysisStage(),
            FigureStage(),
            ReportStage(),
        ]
