"""The experiment that a configuration asks for."""

from __future__ import annotations

from nodelens.configs import Config
from nodelens.experiments.cluster import ClusterAnalysisExperiment
from nodelens.experiments.experiment import Experiment
from nodelens.experiments.general import GeneralAlignmentExperiment
from nodelens.experiments.llm import LLMAlignmentExperiment

__all__ = ["experiment_for"]

_EXPERIMENTS: dict[str, type[Experiment]] = {
    experiment.type: experiment
    for experiment in (
        GeneralAlignmentExperiment,
        ClusterAnalysisExperiment,
        LLMAlignmentExperiment,
    )
}


def experiment_for(config: Config) -> Experiment:
    """Return the experiment of the configuration's `experiment.type`, ready to run."""
    return _EXPERIMENTS[config.experiment_type](config)
