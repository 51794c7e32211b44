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

__all__ = [
    "CalibrationConfig",
    "Config",
    "DatasetConfig",
    "Document",
    "ExperimentConfig",
    "LensConfig",
    "ModelConfig",
    "OutputConfig",
    "SensitivityConfig",
    "TrainingConfig",
    "load_config",
]
