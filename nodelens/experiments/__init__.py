"""Experiments: a configuration in, a run directory with results, figures and a report out."""

from nodelens.experiments.artifacts import RunResults
from nodelens.experiments.cluster import ClusterAnalysisExperiment
from nodelens.experiments.comparison import Comparison, compare
from nodelens.experiments.experiment import Experiment
from nodelens.experiments.general import GeneralAlignmentExperiment
from nodelens.experiments.llm import LLMAlignmentExperiment
from nodelens.experiments.posthoc import analyse, rebuild_report, saved_config
from nodelens.experiments.registry import begun_by, experiment_for, started_by
from nodelens.experiments.sections import Drawing, leave_section
from nodelens.experiments.shards import read_shards
from nodelens.experiments.signals import Terminated, terminable
from nodelens.experiments.stage import Run, Stage

__all__ = [
    "ClusterAnalysisExperiment",
    "Comparison",
    "Drawing",
    "Experiment",
    "GeneralAlignmentExperiment",
    "LLMAlignmentExperiment",
    "Run",
    "RunResults",
    "Stage",
    "Terminated",
    "analyse",
    "begun_by",
    "compare",
    "experiment_for",
    "leave_section",
    "read_shards",
    "rebuild_report",
    "saved_config",
    "started_by",
    "terminable",
]
