"""The sections of a cluster analysis: types of channels, their halos, and causal checks of both."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Strict, model_validator

from nodelens.configs.sections.base import Count, Names, Section, Seed, SmallSeed

__all__ = ["CausalConfig", "ClusteringConfig", "HaloConfig"]

Whole = Annotated[int, Field(ge=0)]
Counts = Annotated[tuple[Count, ...], Strict(False), Field(min_length=1)]


class ClusteringConfig(Section):
    """How the channels of every hidden layer are sorted into types."""

    quotient: str = "rayleigh_quotient"
    """score of this file's lenses that is the first metric; its logarithm is taken"""
    redundancy: str = "average_redundancy"
    """score that is the second metric"""
    synergy: str = "gaussian_pid_synergy_mmi"
    """score that is the third metric"""
    importance: str | None = None
    """score of what a channel is worth; reported by type, and what controls are matched by"""
    n_clusters: Count = 4
    """Clusters of a layer."""
    features: Literal["all", "rq_red", "rq_syn", "red_syn", "rq_only", "red_only", "syn_only"] = (
        "all"
    )
    """The metrics to cluster by."""
    mode: Literal["geometric", "quantile", "importance_reassign", "score_augmented"] = "geometric"
    """`geometric` uses the three metrics alone; the others need `importance`."""
    type_mapping: Literal["greedy", "global", "global_simple", "prototype"] = "greedy"
    """How clusters get their types."""
    shuffles: Whole = 199
    """Samples of noise that clusters are compared with; 0 leaves that out."""
    bootstraps: Whole = 20
    """Samples of channels, drawn with replacement, that stability is measured over."""
    ablations: bool = True
    """Whether the clusters are also made with fewer metrics, and compared."""
    seed: SmallSeed = 42
    """Seed of k-means, of the noise and of the samples."""

    @model_validator(mode="after")
    def _has_importance(self) -> ClusteringConfig:
        if self.mode != "geometric" and self.importance is None:
            raise ValueError(f"mode {self.mode!r} needs importance, the name of a score")
        return self


class HaloConfig(Section):
    """How the channels that listen to a type are found; without the section they are not."""

    percentile: Annotated[float, Field(ge=0, le=100)] = 90.0
    """A halo is all channels at or above that percentile of the share of a type."""
    use_activation_weight: bool = True
    """Whether a weight counts as much as what passes it varies."""
    permutations: Count = 999
    """Draws of as many sources, or of the next layer's types, that halos and flow stand beside."""
    seed: SmallSeed = 42
    """Seed of the draws."""


class CausalConfig(Section):
    """What silencing says of the types, on validation rows; without the section nothing is."""

    counts: Counts = (1, 2, 4, 8)
    """Channels of each type that are silenced together."""
    draws: Count = 10
    """Sets drawn for each type and number, and as many matched random ones."""
    halo_type: Literal["critical", "redundant", "synergistic", "background"] = "critical"
    """Type whose halo is silenced; needs the section `halo`."""
    halo_draws: Count = 20
    """Controls of a halo."""
    scores: Names = ()
    """Scores whose ranking is compared with what silencing single channels costs."""
    per_layer: Count = 32
    """Single channels silenced in each layer, for `scores`."""
    rows: Count | None = None
    """Validation rows that checks look at; all of them when left out."""
    resamples: Count = 1000
    """Bootstrap samples of every interval."""
    seed: Seed = 0
    """Seed of draws and samples."""
