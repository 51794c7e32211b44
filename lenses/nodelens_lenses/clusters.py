"""Kinds of channels by alignment, redundancy and synergy, and which channels listen to one kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from nodelens import Lens, ModelWrapper
from nodelens.analysis.clustering import (
    TYPES,
    ClusterResult,
    CrossLayerHaloAnalysis,
    MetricSpaceClustering,
    influence_of,
)
from nodelens.errors import InvalidValueError, NodeLensError, TooFewRowsError, nearest
from nodelens.metrics.formulas import ratio
from nodelens.metrics.parts import PartsLens
from nodelens.model import Layer
from nodelens.model.gather import Measured
from nodelens.model.selection import select
from nodelens.reading import followed, located
from nodelens.statistics import CrossLayerMoments, Moments, Read, Weights
from nodelens.statistics.read import serving

__all__ = ["CrossLayerHalo", "MetricSpaceClusters"]

_QUOTIENT, _REDUNDANCY = "rayleigh_quotient", "average_redundancy"


class _Clusters(PartsLens):
    """Clusters channels by three parts; `synergy` names the third."""

    family = "clusters"
    unit = "1"
    importance = 0
    state = "C^2 + C T"
    cost = "C^2 + C T"

    def _with_metrics(
        self,
        synergy: str,
        options: Mapping[str, Mapping[str, Any]] | None,
        clusterer: MetricSpaceClustering,
    ) -> None:
        self.synergy = synergy
        self.n_clusters, self.seed = clusterer.n_clusters, clusterer.seed
        self.type_mapping = clusterer.type_mapping
        self._with_parts((_QUOTIENT, _REDUNDANCY, synergy), options)

    def _clusters(
        self, statistics: Mapping[str, Any], layer: Layer, shuffles: int = 0
    ) -> ClusterResult:
        rq, redundancy, synergy = (self._scores_of(n, statistics, layer) for n in self._members)
        clusterer = MetricSpaceClustering(
            self.n_clusters, self.seed, self.type_mapping, shuffles=shuffles
        )
        # K-means begins at channels drawn by number, and numbers are not to count.
        order = _lexicographic(rq, redundancy, synergy)
        found = clusterer.fit(rq[order], redundancy[order], synergy[order], layer_name=layer.name)
        back = order.argsort()
        return replace(found, labels=found.labels[back], points=found.points[back])


@Lens.register("metric_space_clustering", aliases=("metric_clusters",))
class MetricSpaceClusters(_Clusters):
    """Type of a channel, `(channels,)`: 0 background, 1 redundant, 2 synergistic, 3 critical.

    Clusters the channels of a layer by log Rayleigh quotient, redundancy and synergy, each z-scored
    (k-means, `n_clusters` of them, drawn with `seed`), and names the clusters by their centroids:
    `type_mapping` is "greedy", "global", "global_simple" or "prototype". `synergy` is the lens of
    the third metric, and `options` are `{lens name: {option: value}}`. One pass serves all parts.

    K-means finds clusters in anything. So a layer's "p_value" says how often noise with the same
    values and rank correlations has clusters as tight, from `shuffles` samples of it (0 leaves it
    out), and the result's notes name layers without structure. Other scores: the "silhouette" of
    the layer, and the z-scored "log_rq", "redundancy" and "synergy" of every channel.
    """

    formula = (
        r"\operatorname{type}\Bigl(\arg\min_k \textstyle\sum_m (z_{mi} - \mu_{mk})^2\Bigr), \qquad "
        r"z_{mi} = \frac{s_{mi} - \bar s_m}{\sigma_m}"
    )
    where = (
        r"$s_{1i}$ is the log of the Rayleigh quotient, $s_{2i}$ the redundancy and $s_{3i}$ the "
        r"synergy of channel $i$, $\bar s_m$ and $\sigma_m$ their mean and standard deviation over "
        r"the layer, $\mu_k$ the centroids; greedily, the critical cluster has the highest "
        r"$\mu_{1k} - \mu_{2k}$, of the rest the redundant one the highest $\mu_{2k}$, of the rest "
        r"the synergistic one the highest $\mu_{3k}$, and the rest is background"
    )
    degenerate = (
        "A dead channel stands beside the smallest Rayleigh quotient that is not 0. Copies are in "
        "one cluster. A layer with fewer distinct channels than clusters has fewer types, one "
        "whose channels are all alike is background, and both have a p-value of 1."
    )
    exempt: ClassVar = {"half_precision": "types are labels, which rounding to 8 bits may change"}

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        n_clusters: int = 4,
        type_mapping: str = "greedy",
        synergy: str = "gaussian_pid_synergy_mmi",
        options: Mapping[str, Mapping[str, Any]] | None = None,
        shuffles: int = 99,
        seed: int = 42,
    ) -> None:
        super().__init__(pattern, layers=layers)
        clusterer = MetricSpaceClustering(n_clusters, seed, type_mapping, shuffles=shuffles)
        self._with_metrics(synergy, options, clusterer)
        self.shuffles = shuffles

    @classmethod
    def example(cls, model: ModelWrapper) -> tuple[Lens, dict[str, Any]]:
        """Return the lens without its null, which is a hundred more clusterings."""
        return cls(shuffles=0), {}

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> dict[str, Tensor]:
        found = self._clusters(statistics, layer, self.shuffles)
        types = [float(TYPES.index(name)) for name in found.channel_types]
        numbers = {"silhouette": found.silhouette}
        if found.structure is not None:
            numbers["p_value"] = found.structure.p_value
        return {
            self.name: torch.tensor(types, dtype=torch.float64),
            **dict(zip(found.features, found.points.T, strict=True)),
            **{name: torch.tensor(x, dtype=torch.float64) for name, x in numbers.items()},
        }

    def remarks(self, statistics: Mapping[str, Any], layer: Layer) -> list[str]:
        said = super().remarks(statistics, layer)
        found = self._clusters(statistics, layer, self.shuffles)
        if found.structure is not None and not found.has_structure:
            p = found.structure.p_value
            said.append(
                f"no structure: noise gives clusters as tight (p = {p:.2g}); types are none"
            )
        return said


@Lens.register("cross_layer_halo", aliases=("halo",))
class CrossLayerHalo(_Clusters):
    """Share of a channel's input that comes from one type of channel before it, `(channels,)`.

    Channels of every layer are clustered as `metric_space_clustering` does (`n_clusters`,
    `type_mapping`, `synergy`, `options`, `seed`); those of the type `cluster` are looked for in
    what the next layer takes in. A weight counts with its taps summed, times the standard deviation
    of what arrives there (`use_activation_weight`). In [0, 1]; scores stand under the next layer's
    name. "in_halo" is 1 at or above the `percentile` of that layer. "followed" is the same share of
    squared correlations with the sources, measured and not predicted. "p_value" says how often as
    many sources drawn at random have a halo as strong, of `permutations` draws.

    The next layer is the one called behind, `next_layers={"a": "b"}` names another, and `source`
    with `target` one pair alone. Its inputs must be the source's channels, or their flattened
    positions: a pair that does not fit is left out, or an error where it was named. Of layers that
    stand side by side before one (query, key, value; gate, up) the one called last is the source.
    """

    state = "C^2 + C_1 C_2"
    cost = "C^2 + C_1 C_2"
    formula = (
        r"\frac{\sum_{i \in S} \lvert W_{ji} \rvert \sigma_i}{\sum_i \lvert W_{ji} \rvert \sigma_i}"
    )
    where = (
        r"$j$ is a channel of the next layer, $W$ that layer's weight with its taps summed, "
        r"$\sigma_i$ the standard deviation of what arrives from channel $i$, $S$ the source's "
        "channels of one type"
    )
    degenerate = (
        "A channel that nothing reaches scores 0 and is in no halo; dead sources hold no share. "
        "Where no channel is of the type, all score 0 and the p-value is 1."
    )

    def __init__(
        self,
        pattern: str | None = None,
        *,
        layers: Sequence[str] | str | None = None,
        source: str | None = None,
        target: str | None = None,
        next_layers: Mapping[str, str] | None = None,
        cluster: str = "critical",
        percentile: float = 90.0,
        use_activation_weight: bool = True,
        permutations: int = 199,
        n_clusters: int = 4,
        type_mapping: str = "greedy",
        synergy: str = "gaussian_pid_synergy_mmi",
        options: Mapping[str, Mapping[str, Any]] | None = None,
        seed: int = 42,
    ) -> None:
        super().__init__(pattern, layers=layers if source is None else [source])
        if target is not None and source is None:
            raise InvalidValueError(f"target is {target!r} without source=, expected both")
        if cluster not in TYPES:
            raise InvalidValueError(
                f"cluster is {cluster!r}{nearest(cluster, TYPES)}, "
                f"expected one of {', '.join(TYPES)}"
            )
        if permutations < 1:
            raise InvalidValueError(f"permutations is {permutations}, expected 1 or more")
        halos = CrossLayerHaloAnalysis(percentile, use_activation_weight)
        self._with_metrics(synergy, options, MetricSpaceClustering(n_clusters, seed, type_mapping))
        self.source, self.target, self.cluster = source, target, cluster
        self.next_layers = dict(next_layers or {})
        self.percentile, self.use_activation_weight = percentile, halos.use_activation_weight
        self.permutations = permutations

    def refusal(self, model: ModelWrapper) -> str | None:
        pairs = self._named_pairs()
        for name in (name for pair in pairs.items() for name in pair):
            if name not in model.layers:
                return f"it has no layer {name!r}{nearest(name, model.layers)}"
        for name, later in pairs.items():
            mine, theirs = model.layers[name], model.layers[later]
            if theirs.inputs % mine.channels:
                return (
                    f"layer {later!r} takes {theirs.inputs} inputs, expected the {mine.channels} "
                    f"channels of {name!r} or a multiple"
                )
        return super().refusal(model)

    def scores(self, name: str, model: ModelWrapper) -> bool:
        if not super().scores(name, model) or not followed(model, name, self._next(name)):
            return False
        later = self._later(name, model)
        return later is None or model.layers[later].inputs % model.layers[name].channels == 0

    def reads(self, layer: Layer) -> dict[str, Read]:
        return {**self._source_reads(layer), **_target_reads()}

    def wanted(self, model: ModelWrapper) -> dict[str, list[Read]]:
        found: dict[str, list[Read]] = {}
        for name in super().wanted(model):
            found.setdefault(name, []).extend(self._source_reads(located(model, name)).values())
            later = self._later(name, model)
            found.setdefault(later or name, []).extend(_target_reads().values())
        return found

    def finish(self, statistics: Measured) -> dict[str, dict[str, Tensor]]:
        return {
            target.name: self._of_pair(source, target, statistics)
            for source, target in self._pairs(statistics)
        }

    def notes(self, statistics: Measured) -> list[str]:
        return [
            f"{self.name}, layer {target.name!r}: the source is {source.name!r}"
            for source, target in self._pairs(statistics)
        ]

    def score(self, statistics: Mapping[str, Any], layer: Layer) -> Tensor:
        raise InvalidValueError(
            f"{self.name!r} is about two layers: analyse a model, or call CrossLayerHaloAnalysis "
            "of nodelens.analysis.clustering on tensors"
        )

    def _named_pairs(self) -> dict[str, str]:
        one = {self.source: self.target} if self.source and self.target else {}
        return {**self.next_layers, **one}

    def _next(self, name: str) -> Read:
        beside = self._named_pairs().get(name, "next")
        return Read("output", CrossLayerMoments, beside=beside)

    def _later(self, name: str, model: ModelWrapper) -> str | None:
        """The layer behind, None as long as no pass has shown which."""
        route, named = model.known_route(), self._named_pairs().get(name)
        return named if named is not None or route is None else route.beside(name, "next")

    def _source_reads(self, layer: Layer) -> dict[str, Read]:
        return {**super().reads(layer), "next": self._next(layer.name)}

    def _pairs(self, statistics: Measured) -> Iterator[tuple[Layer, Layer]]:
        """Sources and their targets; of several sources of one target the last."""
        last: dict[str, Layer] = {}
        for name in self._mine_of(statistics):
            found = statistics[name]
            seen = serving(self._next(name), found)
            if isinstance(seen, CrossLayerMoments) and seen.other in statistics:
                layer = found["layer"]
                assert isinstance(layer, Layer)
                last[seen.other] = layer
        for later, layer in last.items():
            target = statistics[later]["layer"]
            assert isinstance(target, Layer)
            yield layer, target

    def _mine_of(self, statistics: Measured) -> list[str]:
        names = [n for n, found in statistics.items() if isinstance(found.get("layer"), Layer)]
        return select(names, self._compiled, self.layers)

    def _of_pair(self, source: Layer, target: Layer, statistics: Measured) -> dict[str, Tensor]:
        found = statistics[source.name]
        named = {k: serving(read, found) for k, read in self._source_reads(source).items()}
        try:
            members = self._clusters(named, source).channels_of(self.cluster)
        except NodeLensError as error:
            error.within(f"layer {source.name!r}")
            raise
        influence = self._influence(source, target, statistics[target.name])
        analysis = CrossLayerHaloAnalysis(self.percentile, self.use_activation_weight)
        halo, relative = analysis.find_halo(influence, members)
        p_value = self._p_value(analysis, influence, members)
        inside = torch.zeros_like(relative)
        inside[halo] = 1
        scores = {
            "": relative,
            ".in_halo": inside,
            ".followed": _followed(named["next"], members),
            ".p_value": torch.tensor(p_value, dtype=torch.float64),
        }
        return {self.name + name: values for name, values in scores.items()}

    def _influence(self, source: Layer, target: Layer, found: Mapping[Any, Any]) -> Tensor:
        weights, arriving = (serving(read, found) for read in _target_reads().values())
        assert isinstance(weights, Weights) and isinstance(arriving, Moments)
        if arriving.rows < 2:
            raise TooFewRowsError(
                f"layer {target.name!r}: one row seen, expected at least 2 to score {self.name!r}"
            )
        rows = weights.rows.unflatten(1, (target.inputs // target.groups, -1))
        spread = arriving.variance().sqrt() if self.use_activation_weight else None
        return influence_of(rows, spread, source.channels, target.groups)

    def _p_value(
        self, analysis: CrossLayerHaloAnalysis, influence: Tensor, members: Tensor
    ) -> float:
        if not len(members):
            return 1.0
        tested = analysis.permutation_test(
            influence, members, permutations=self.permutations, seed=self.seed
        )
        return tested["influence"].p_greater


def _lexicographic(*scores: Tensor) -> Tensor:
    """The order of channels by the first score, ties by the next."""
    order = torch.arange(len(scores[0]))
    for values in reversed(scores):
        order = order[values[order].sort(stable=True).indices]
    return order


def _target_reads() -> dict[str, Read]:
    return {"weights": Read("weight", Weights), "arriving": Read("input", Moments)}


def _followed(seen: Any, members: Tensor) -> Tensor:
    """The share of each target's squared correlations that is with members, `(targets,)`."""
    squares = torch.cat([rho.square() for rho in seen.correlations()])
    return ratio(squares[members.to(squares.device)].sum(0), squares.sum(0))
