"""The section `pruning`: what is left of the network when channels go, by strategy."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Strict, model_validator

from nodelens.configs.sections.base import Count, Fraction, NamedSection, Names, Section, Seed

__all__ = ["FineTuningConfig", "PruningSection", "StrategyConfig"]


class StrategyConfig(NamedSection):
    """A pruning strategy by its name; every other key is an option of it."""

    name: str
    """a pruning strategy, or a lens whose scores are one"""


class FineTuningConfig(Section):
    """How a pruned network is trained again: on training rows, the epoch chosen on validation."""

    epochs: Count = 5
    """Passes over the training rows."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.001
    """The same in every epoch."""
    batch_size: Count = 64
    """Rows, or blocks of a text, in a training batch."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """`sgd` (with momentum 0.9) or `adamw`."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Of `sgd` through the gradient, of `adamw` apart from it."""
    patience: Count | None = None
    """Epochs without a gain on the validation rows, after which training ends."""


class PruningSection(Section):
    """Accuracy or perplexity as channels are pruned, by strategy, beside random orders."""

    strategies: Annotated[tuple[StrategyConfig, ...], Strict(False), Field(min_length=1)]
    """a list of strategies, each a name or a section with a name and options"""
    amounts: Annotated[tuple[Fraction, ...], Strict(False), Field(min_length=1)] = (
        0.1,
        0.25,
        0.5,
        0.75,
        0.9,
    )
    """Parts of all channels that are pruned."""
    modes: Annotated[tuple[Literal["low", "high"], ...], Strict(False), Field(min_length=1)] = (
        "low",
    )
    """`low` prunes the lowest scores first; `high` the highest, as an ablation."""
    distribution: str = "uniform"
    """how the amount is shared out to layers (`uniform`, `global_threshold`, ...)"""
    layers: Annotated[Names, Field(min_length=1)] | None = None
    """Names or patterns of the layers to prune; all but the output layer when left out."""
    random_seeds: Annotated[tuple[Seed, ...], Strict(False)] = (0, 1, 2)
    """One random choice of channels a seed, for comparison."""
    value: Literal["zero", "mean"] = "zero"
    """What stands where a channel was: zero, or its mean over the calibration rows."""
    fine_tuning: FineTuningConfig | None = None
    """a section, `{}` for its defaults: every pruned network is trained again as well"""
    shrink: bool = False
    """Whether the smallest network asked for is cut out and saved."""

    @model_validator(mode="after")
    def _belongs_together(self) -> PruningSection:
        if self.value == "mean" and (self.shrink or self.fine_tuning is not None):
            raise ValueError(
                "value is 'mean', and fine_tuning and shrink are of channels that are zero;"
                " expected one without the other"
            )
        if any(entry.name == "random" for entry in self.strategies):
            raise ValueError(
                "random choices are always compared with, one for each of random_seeds; expected"
                " strategies without 'random'"
            )
        return self
