"""The sections of an experiment configuration; every key here does something.

A new section is a :class:`Section` and a field of :class:`Config`; the loader needs no change.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, Strict, field_validator, model_validator
from pydantic_core import PydanticCustomError

from nodelens.configs.document import OVERRIDE, Document, Path, dotted
from nodelens.configs.sections.base import (
    Amount,
    Count,
    Fraction,
    NamedSection,
    Names,
    Section,
    Seed,
)
from nodelens.configs.sections.cluster import CausalConfig, ClusteringConfig, HaloConfig
from nodelens.configs.sections.evaluation import EvaluationSection
from nodelens.configs.sections.figures import FiguresConfig
from nodelens.configs.sections.pruning import PruningSection
from nodelens.configs.sections.supernode import SupernodeSection
from nodelens.configs.sections.tracking import TrackingConfig
from nodelens.errors import ConfigError
from nodelens.memory import as_bytes

__all__ = [
    "EXPERIMENT_ALIASES",
    "CalibrationConfig",
    "Config",
    "DatasetConfig",
    "ExperimentConfig",
    "LensConfig",
    "ModelConfig",
    "OutputConfig",
    "Section",
    "SensitivityConfig",
    "SettledConfig",
    "TrainingConfig",
]

EXPERIMENT_ALIASES = {
    "alignment_analysis": "general_alignment",
    "vision_synergy": "general_alignment",
    "llm_supernode": "llm_alignment",
    "llm": "llm_alignment",
    "vision_cluster_analysis": "cluster_analysis",
    "metric_cluster_analysis": "cluster_analysis",
}


class ExperimentConfig(Section):
    """What is run, and under which seed."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """a name made of letters, digits, dots, dashes and underscores"""
    type: Literal["general_alignment", "llm_alignment", "cluster_analysis"] = "general_alignment"
    """`general_alignment` (also `alignment_analysis`, `vision_synergy`), `llm_alignment` (also
    `llm_supernode`, `llm`) or `cluster_analysis` (also `vision_cluster_analysis`,
    `metric_cluster_analysis`)."""
    seed: Seed = 0
    """Seed of the data split, the initial weights and the order of training batches."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
    """`auto`, `cpu`, `mps`, `cuda` or `cuda:N`."""

    @field_validator("type", mode="before")
    @classmethod
    def _canonical(cls, value: Any) -> Any:
        return EXPERIMENT_ALIASES.get(value, value) if isinstance(value, str) else value


class ModelConfig(Section):
    """The network."""

    name: str
    """`mlp`, `small_cnn`, an import path `package.module:name`, a packaged, torchvision, timm or
    hub name, or a folder; a language model by packaged name, folder, GGUF file or hub name."""
    options: dict[str, Any] = Field(default_factory=dict)
    """a section of options of that architecture, or of loading a model"""
    checkpoint: str | None = None
    """A safetensors file of trained weights; without it the network is trained."""
    initial_checkpoint: str | None = None
    """A safetensors file of the weights before training, for lenses that compare the two."""


class DatasetConfig(Section):
    """The data and how it is divided. The three parts share no sample."""

    name: str
    """`digits`, `mnist`, `images`, `imagenet_photos`, or a Hugging Face data set by hub name or
    saved folder; a language model's text: `pydoc`, `encyclopaedia`, `news`, a file, or such a data
    set."""
    folder: str | None = None
    """The folder of `images`; of `mnist`, its IDX files, else 5,000 packaged images are taken."""
    options: dict[str, Any] = Field(default_factory=dict)
    """a section of options of reading images or a Hugging Face data set"""
    tokens: Count | None = None
    """Tokens of the text to read, all by default; for language models."""
    block_size: Count | None = None
    """Tokens in a block, 256 by default; for language models, to which a block is a row."""
    batch_size: Count = 256
    """Rows in a batch when measuring and evaluating; no score depends on it."""
    validation_fraction: Fraction = 0.15
    """Share of the rows that is neither trained on nor reported, for choosing between orders."""
    test_fraction: Fraction = 0.25
    """Share of the rows that every reported accuracy is measured on."""

    @model_validator(mode="after")
    def _leaves_training_data(self) -> DatasetConfig:
        held_out = self.validation_fraction + self.test_fraction
        if held_out >= 1:
            raise ValueError(
                f"validation_fraction + test_fraction is {held_out:g}, which leaves nothing to"
                " train on; expected a sum below 1"
            )
        return self


class TrainingConfig(Section):
    """How the network is trained: Adam, learning rate falling to zero along a cosine."""

    epochs: Annotated[int, Field(ge=0)] = 15
    """Passes over the training rows; 0 takes the network as it comes."""
    batch_size: Count = 64
    """Rows in a training batch."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.003
    """Learning rate at the start."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay."""
    measured_epochs: Annotated[tuple[Count, ...], Strict(False)] = ()
    """Epochs after which the lenses measure the network too; it is measured in the end anyway."""

    @model_validator(mode="after")
    def _measures_on_the_way(self) -> TrainingConfig:
        asked = self.measured_epochs
        if list(asked) != sorted(set(asked)) or max(asked, default=0) >= max(self.epochs, 1):
            raise ValueError(
                f"measured_epochs are {list(asked)}, expected epochs that rise and come before the"
                f" last of {self.epochs}"
            )
        return self


class SettledConfig(Section):
    """When measuring has seen enough: the top channels of every layer no longer change."""

    top: Fraction = 0.05
    """Share of the channels that are the top ones of a layer."""
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Share of the top channels that may change from one check to the next."""
    patience: Count = 5
    """Checks in a row without a change, after which measuring ends."""
    every: Count = 1
    """Batches from one check to the next."""


class CalibrationConfig(Section):
    """Which rows the lenses read: rows of the training part, never the held-out ones."""

    rows: Count | None = None
    """Number of rows; all of them when left out."""
    memory_budget: int | str | None = None
    """Bytes, or text such as `2 GiB`, that measuring keeps to, in several passes if need be."""

    until: SettledConfig | None = None
    """a section that ends measuring once the top channels are settled; all rows are read without"""
    standard_errors: bool = False
    """Whether every score gets a jackknife standard error, of batches dealt to 20 groups."""

    @model_validator(mode="after")
    def _takes_one_pass(self) -> CalibrationConfig:
        if self.memory_budget is not None and (self.until is not None or self.standard_errors):
            raise ValueError(
                "until and standard_errors look at one pass over the batches, and memory_budget"
                " may take several; expected one without the other"
            )
        return self

    @field_validator("memory_budget")
    @classmethod
    def _is_an_amount(cls, value: int | str | None) -> int | str | None:
        if value is not None:
            as_bytes(value)
        return value


class LensConfig(NamedSection):
    """A lens by its registry name; every other key is an option of that lens."""

    name: str
    """`name:` with the registry name of a lens (`nodelens lenses` lists them)"""


class SensitivityConfig(Section):
    """Accuracy as channels are silenced, in the order of a score."""

    scores: Annotated[Names, Field(min_length=1)]
    """Names of scores that the lenses of this file give."""
    modes: Annotated[tuple[Literal["low", "high"], ...], Strict(False), Field(min_length=1)] = (
        "low",
        "high",
    )
    """`low` silences the lowest scores first, `high` the highest."""
    amounts: Annotated[tuple[Amount, ...], Strict(False), Field(min_length=1)] = (
        0.1,
        0.2,
        0.3,
        0.4,
        0.5,
        0.6,
        0.7,
        0.8,
        0.9,
    )
    """Fractions of the channels of every hidden layer."""
    random_seeds: Annotated[tuple[Seed, ...], Strict(False)] = (0, 1, 2)
    """One random order a seed, for comparison."""


class OutputConfig(Section):
    """Where files go."""

    directory: Annotated[str, Field(min_length=1)]
    """The run directory; made when missing."""
    save_every: Count = 100
    """Batches after which what was measured is saved, to go on from."""
    save_every_seconds: Annotated[float, Field(gt=0)] = 60.0
    """Seconds after which it is saved as well, whichever comes first."""


class Config(Section):
    """A whole experiment configuration. `config.source` says where each value was written."""

    experiment: ExperimentConfig
    model: ModelConfig
    dataset: DatasetConfig
    training: TrainingConfig = TrainingConfig()
    calibration: CalibrationConfig = CalibrationConfig()
    lenses: Annotated[tuple[LensConfig, ...], Strict(False), Field(min_length=1)]
    """a list of lenses, each a name or a section with a name and options"""
    sensitivity: SensitivityConfig | None = None
    clustering: ClusteringConfig | None = None
    halo: HaloConfig | None = None
    causal: CausalConfig | None = None
    supernode: SupernodeSection | None = None
    pruning: PruningSection | None = None
    evaluation: EvaluationSection | None = None
    figures: FiguresConfig = FiguresConfig()
    tracking: TrackingConfig = TrackingConfig()
    output: OutputConfig

    _source: Document | None = PrivateAttr(default=None)

    @property
    def experiment_type(self) -> str:
        """Return the family of the experiment, aliases resolved."""
        return self.experiment.type

    @property
    def is_language_model(self) -> bool:
        """Return whether the network reads text."""
        return self.experiment.type == "llm_alignment"

    @property
    def is_trained_here(self) -> bool:
        """Return whether the run trains the network, from weights that it draws."""
        given = self.model.checkpoint is not None or self.training.epochs == 0
        return not (given or self.is_language_model)

    @model_validator(mode="before")
    @classmethod
    def _clusters(cls, data: Any) -> Any:
        """Give a cluster analysis its section, with every default, where it is left out."""
        experiment = data.get("experiment") if isinstance(data, dict) else None
        family = experiment.get("type") if isinstance(experiment, dict) else None
        known = isinstance(family, str) and EXPERIMENT_ALIASES.get(family, family)
        if known == "cluster_analysis" and data.get("clustering") is None:
            return {**data, "clustering": {}}
        return data

    @model_validator(mode="after")
    def _belongs_together(self) -> Config:
        """Refuse values that this family of experiments would not look at."""
        family = self.experiment.type
        if unread := [key for key, given in self._only_for_others() if given]:
            problem = f"not read by {family!r} experiments, expected to be left out"
            where = {"path": tuple(unread[0].split(".")), "problem": problem}
            raise PydanticCustomError("misplaced", "{problem}", where)
        return self

    def _only_for_others(self) -> list[tuple[str, bool]]:
        model, dataset = self.model, self.dataset
        judged = self.evaluation or EvaluationSection()
        clusters = [
            (name, getattr(self, name) is not None)
            for name in ("clustering", "halo", "causal")
            if self.experiment.type != "cluster_analysis"
        ]
        if not self.is_language_model:
            here = self.experiment.type == "general_alignment" and self.is_trained_here
            return [
                *clusters,
                ("training.measured_epochs", bool(self.training.measured_epochs) and not here),
                ("dataset.tokens", dataset.tokens is not None),
                ("dataset.block_size", dataset.block_size is not None),
                ("supernode", self.supernode is not None),
                *(
                    (f"evaluation.{key}", bool(getattr(judged, key)))
                    for key in ("block_size", "stride", "tokens", "tasks", "task_limit")
                ),
            ]
        return [
            *clusters,
            ("model.checkpoint", model.checkpoint is not None),
            ("model.initial_checkpoint", model.initial_checkpoint is not None),
            ("dataset.folder", dataset.folder is not None),
            ("training", self.training != TrainingConfig()),
            ("sensitivity", self.sensitivity is not None),
            ("evaluation.rows", judged.rows is not None),
        ]

    def __eq__(self, other: object) -> bool:
        """Tell whether every value is the same, wherever it was written."""
        return isinstance(other, Config) and self.model_dump() == other.model_dump()

    def is_overridden(self, path: Path) -> bool:
        """Return whether the value at `path` was given beside the file, as on the command line."""
        return self._source is not None and self._source.place(path) == OVERRIDE

    def error(self, path: Path, problem: str) -> ConfigError:
        """Return an error about the value at `path` that names its file and line."""
        place = f"{self._source.place(path)}: " if self._source is not None else ""
        return ConfigError(f"{place}{dotted(path)}: {problem}")
