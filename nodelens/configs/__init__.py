"""Experiment configurations: the schema, and a loader that tells where a mistake stands."""

from nodelens.configs.config_loader import load_config
from nodelens.configs.document import Document
from nodelens.configs.schema import (
    CalibrationConfig,
    Config,
    DatasetConfig,
    ExperimentConfig,
    LensConfig,
    ModelConfig,
    OutputConfig,
    SensitivityConfig,
    TrainingConfig,
)
from nodelens.configs.sections.cluster import CausalConfig, ClusteringConfig, HaloConfig

__all__ = [
    "CalibrationConfig",
    "CausalConfig",
    "ClusteringConfig",
    "Config",
    "DatasetConfig",
    "Document",
    "ExperimentConfig",
    "HaloConfig",
    "LensConfig",
    "ModelConfig",
    "OutputConfig",
    "SensitivityConfig",
    "TrainingConfig",
    "load_config",
]
