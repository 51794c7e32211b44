"""Halos: the channels of the next layer that a cluster reaches more than others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nodelens.analysis.arrays import (
    Array,
    Integers,
    array,
    channel_scores,
    indices,
    seeded,
    whole_numbers,
)
from nodelens.analysis.clustering.influence import checked_influence, influence_of, spread_of
from nodelens.analysis.clustering.permutation import Contrast, contrast, halo_mask, shares
from nodelens.errors import InvalidValueError, ShapeError, whole

__all__ = ["CrossLayerHaloAnalysis", "HaloResult"]


@dataclass(frozen=True)
class HaloResult:
    """A halo beside the other channels of its layer.

    `redundancy` and `synergy` are means over the halo, in their scores' units, `other_redundancy`
    and `other_synergy` over the rest; None where the scores are not given, or the group is empty.
    """

    layer_name: str
    source_cluster: str
    halo_indices: Tensor
    redundancy: float | None
    synergy: float | None
    other_redundancy: float | None
    other_synergy: float | None

    @property
    def halo_size(self) -> int:
        """Return how many channels the halo has."""
        return len(self.halo_indices)


class CrossLayerHaloAnalysis:
    """Finds the targets that take an unusual share of what they take in from a cluster of sources.

    `percentile` says how unusual: a halo is all targets at or above that percentile of the layer's.
    With `use_activation_weight` a weight counts as much as what passes it varies.
    """

    def __init__(self, percentile: float = 90.0, use_activation_weight: bool = True) -> None:
        given = array(percentile, "percentile")
        if given.ndim or not 0 <= given <= 100:
            raise InvalidValueError(f"percentile is {percentile}, expected a number from 0 to 100")
        self.percentile = percentile
        self.use_activation_weight = use_activation_weight

    def compute_influence(self, weights: Any, activations: Any = None, groups: int = 1) -> Tensor:
        """Return abs W, taps summed, times the source's standard deviation, `[targets, sources]`.

        `weights` are the next layer's, `(targets, sources, *kernel)`; of a linear layer behind
        flattened maps they may be `(targets, sources * positions)`. `activations` are what the
        source layer hands on: `(rows, sources)`, tokens `(batch, tokens, sources)`, or maps
        `(batch, sources, *positions)`. `groups` are those of a grouped convolution.
        """
        weight = torch.from_numpy(array(weights, "weights"))
        if activations is None:
            return influence_of(weight, None, groups=groups)
        seen = torch.from_numpy(array(activations, "activations"))
        flattened = seen.ndim > 3 and weight.ndim == 2
        spread = spread_of(seen, maps=weight.ndim > 2 or flattened)
        weighting = spread if self.use_activation_weight else None
        return influence_of(weight, weighting, len(spread), groups)

    def find_halo(self, influence: Any, cluster_indices: Any) -> tuple[Tensor, Tensor]:
        """Return the halo's channels, and every target's relative influence, `(targets,)`.

        Relative influence is the sum over the cluster over the sum over all sources, in [0, 1]; a
        target that nothing reaches has 0, and none with 0 is in a halo. `cluster_indices` are
        numbers of sources, or a mask.
        """
        found = checked_influence(influence)
        members = np.zeros((found.shape[1], 1))
        members[indices(cluster_indices, found.shape[1], "the cluster")] = 1
        relative = shares(found, members)
        halo = np.flatnonzero(halo_mask(relative, self.percentile))
        return torch.from_numpy(halo), torch.from_numpy(relative[:, 0])

    def analyse_halo(
        self,
        halo_indices: Any,
        redundancy: Any = None,
        synergy: Any = None,
        layer_name: str = "",
        cluster_name: str = "",
    ) -> HaloResult:
        """Return a halo's mean redundancy and synergy beside those of the rest of its layer."""
        red = None if redundancy is None else channel_scores(redundancy, "redundancy")
        syn = None if synergy is None else channel_scores(synergy, "synergy")
        sizes = {len(scores) for scores in (red, syn) if scores is not None}
        if len(sizes) > 1:
            raise ShapeError(f"scores of {sorted(sizes)} channels, expected those of one layer")
        numbers = indices(halo_indices, next(iter(sizes), None), "the halo")
        inside, outside = zip(_means(red, numbers), _means(syn, numbers), strict=True)
        return HaloResult(layer_name, cluster_name, torch.from_numpy(numbers), *inside, *outside)

    def cluster_flow(
        self, influence: Any, source_labels: Any, target_labels: Any, *, per_unit: bool = False
    ) -> Tensor:
        """Return which share of a source cluster's influence goes to each target cluster.

        `(source clusters, target clusters)`; rows sum to 1, or are 0 where a cluster is empty or
        reaches nothing. With `per_unit` target clusters are compared by influence per channel, so
        that a large one has no more for its size.
        """
        found = checked_influence(influence)
        sources = _members(source_labels, found.shape[1], "source_labels")
        targets = _members(target_labels, found.shape[0], "target_labels")
        flow = (targets.T @ found @ sources).T
        if per_unit:
            sizes = targets.sum(0)
            flow = np.divide(flow, sizes, out=np.zeros_like(flow), where=sizes > 0)
        total = flow.sum(1, keepdims=True)
        return torch.from_numpy(np.divide(flow, total, out=np.zeros_like(flow), where=total > 0))

    def permutation_test(
        self,
        influence: Any,
        cluster_indices: Any,
        *,
        redundancy: Any = None,
        synergy: Any = None,
        permutations: int = 999,
        seed: int = 42,
    ) -> dict[str, Contrast]:
        """Return a halo's numbers beside those of halos of as many sources drawn at random.

        "influence" is the mean relative influence within the halo; "redundancy" and "synergy" are
        the halo's means of those scores of the target layer, where given.
        """
        found = checked_influence(influence)
        cluster = indices(cluster_indices, found.shape[1], "the cluster")
        whole("permutations", permutations, 1)
        if not len(cluster):
            raise InvalidValueError("the cluster has no source, expected at least one")
        relative = shares(found, _drawn(cluster, found.shape[1], permutations, seed))
        halo = halo_mask(relative, self.percentile)
        numbers = {"influence": relative}
        for name, scores in (("redundancy", redundancy), ("synergy", synergy)):
            if scores is not None:
                numbers[name] = channel_scores(scores, name, len(found))[:, None] * np.ones(1)
        return {name: _compared(values, halo) for name, values in numbers.items()}


def _compared(values: Array, halo: NDArray[np.bool_]) -> Contrast:
    """The mean of values over each halo: the first is the observed one."""
    sizes = halo.sum(0)
    means = np.divide((values * halo).sum(0), sizes, out=np.zeros(halo.shape[1]), where=sizes > 0)
    return contrast(float(means[0]), means[1:])


def _drawn(cluster: Integers, sources: int, permutations: int, seed: int) -> Array:
    """The cluster, and as many sources drawn at random, as columns `(sources, 1 + n)`."""
    members = np.zeros((1 + permutations, sources))
    members[0, cluster] = 1
    members[1:, : len(cluster)] = 1
    members[1:] = seeded(seed).permuted(members[1:], axis=1)
    return members.T


def _members(labels: Any, channels: int, what: str) -> Array:
    numbers = whole_numbers(channel_scores(labels, what, channels), what)
    found: Array = np.eye(numbers.max() + 1)[numbers]
    return found


def _means(scores: Array | None, halo: Integers) -> tuple[float | None, float | None]:
    """The means of scores over the halo and over the rest."""
    if scores is None:
        return None, None
    inside = np.isin(np.arange(len(scores)), halo)
    mean = [float(scores[group].mean()) if group.any() else None for group in (inside, ~inside)]
    return mean[0], mean[1]
