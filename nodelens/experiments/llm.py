"""The language model experiment: what scores say of the channels of a trained language model."""

from __future__ import annotations

from collections.abc import Sequence

from nodelens.configs import Config
from nodelens.experiments.experiment import Experiment
from nodelens.experiments.stage import Stage
from nodelens.experiments.stages.analysis import AnalysisStage
from nodelens.experiments.stages.figures import FigureStage
from nodelens.experiments.stages.language import LanguageModelStage, TextStage
from nodelens.experiments.stages.measure import MeasureStage
from nodelens.experiments.stages.pruning import pruning_stages
from nodelens.experiments.stages.report import ReportStage
from nodelens.experiments.stages.supernode_checks import SupernodeCheckStage
from nodelens.experiments.stages.supernodes import SupernodeStage

__all__ = ["LLMAlignmentExperiment"]


class LLMAlignmentExperiment(Experiment):
    """Loads a language model, takes its perplexity, scores its channels on text, and reports."""

    type = "llm_alignment"

    def stages(self) -> Sequence[Stage]:
        """Return the stages in the order they run."""
        return [
            TextStage(),
            LanguageModelStage(),
            MeasureStage(),
            *_supernode_stages(self.config),
            *pruning_stages(self.config),
            AnalysisStage(),
            FigureStage(),
            ReportStage(),
        ]


def _supernode_stages(config: Config) -> list[Stage]:
    if config.supernode is None:
        return []
    return [SupernodeStage(), *([SupernodeCheckStage()] if config.supernode.causal else [])]
